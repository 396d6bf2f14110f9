"""The directive `cnnbench-help`: a section for each verb, with what its help prints."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any
from unittest import mock

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from cnnbench.__main__ import main
from cnnbench.cli import front

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class Help(SphinxDirective):
    """A section for each verb, in the order of `cnnbench --help`."""

    def run(self) -> list[nodes.Node]:
        sections: list[nodes.Node] = []
        for verb in front.verbs():
            text = help_of(verb)
            section = nodes.section("", nodes.title(text=verb), names=[verb])
            section += nodes.literal_block(text, text, language="none")
            self.state.document.note_implicit_target(section)
            sections.append(section)
        return sections


def help_of(verb: str) -> str:
    """What `cnnbench VERB --help-all` prints at 100 columns."""
    printed = io.StringIO()
    with mock.patch.dict(os.environ, COLUMNS="101"), redirect_stdout(printed):  # it leaves the last column free
        code = main([verb, "--help-all"])
    if code:
        raise RuntimeError(f"cnnbench {verb} --help-all exits {code}")
    return printed.getvalue()


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("cnnbench-help", Help)
    return {"parallel_read_safe": True}
