"""The front page, `cnnbench --help`: which verbs there are, the version, and completion for shells.

A verb is a file of this folder whose docstring begins with the file's name in backticks, a colon and a summary. Its
function has the same name (`list_` in list.py, since `list` is Python's), or is called `main` and reads its command
line itself.
"""

from __future__ import annotations

import ast
import importlib
import sys
import tokenize
from argparse import ArgumentParser
from collections.abc import Callable
from inspect import isfunction
from pathlib import Path
from typing import Literal

from cnnbench.cli import parser
from cnnbench.registry import hint
from cnnbench.types import CnnbenchError, Exit

Shell = Literal["bash", "zsh", "tcsh"]

FOLDER = Path(__file__).parent
STORY = (
    *("ship", "audit"),
    *("fit", "validate", "test", "predict", "sweep"),
    *("explain", "lab", "list", "download"),
    *("export", "verify", "classify"),
    *("compare", "choose", "report", "collect", "bench", "robustness", "doctor", "clean"),
)
"""The order of verbs on the front page; one that is not named here comes last."""


def run(arguments: list[str]) -> int:
    """Do what comes without a verb; without any argument, print the help to stderr and return the code of a mistake."""
    if not arguments:
        page().print_help(sys.stderr)
        return Exit.USAGE
    if {"-h", "--help"} & set(arguments):
        page().print_help()
        return Exit.OK
    return cnnbench(**parser.parse("", cnnbench, arguments=arguments).kwargs)


def cnnbench(*, version: bool = False, debug: bool = False, print_completion: Shell | None = None) -> int:
    """Which network should I ship for my small images, and what does it cost me?

    Args:
        version: Show the version.
        debug: With a verb: also show the traceback of an error.
        print_completion: Print a script that completes verbs and their flags in this shell.
    """
    if print_completion:
        import shtab

        print(shtab.complete(page(flags=True), print_completion))
    elif version:  # looking it up takes a while
        import importlib.metadata

        print(f"cnnbench {importlib.metadata.version('cnnbench')}")
    return Exit.OK


def page(*, flags: bool = False) -> ArgumentParser:
    """The parser whose help is the front page.

    Args:
        flags: Give it the flags of every verb too, which imports every verb.
    """
    front = parser.parser_of("", cnnbench)
    front.epilog = "`cnnbench VERB --help` explains a verb."
    children = front.add_subparsers(title="verbs", metavar="VERB", parser_class=ArgumentParser)
    for verb, summary in verbs().items():
        children.add_parser(verb, help=summary, add_help=False, parents=[_flags(verb)] if flags else [])
    return front


def _flags(verb: str) -> ArgumentParser:
    function = entry(verb)
    if function.__name__ == "main":
        from cnnbench.cli import lightning

        return lightning.parser(verb)
    return parser.parser_of(verb, function)


def entry(verb: str) -> Callable[..., int]:
    """The function of a verb.

    Raises:
        CnnbenchError: There is no such verb (exit 2), with the nearest ones.
    """
    if verb not in verbs():
        raise CnnbenchError(f"unknown verb {verb!r}: {hint(verb, list(verbs()))}")
    module = importlib.import_module(f"cnnbench.cli.{verb}")
    for name in (verb, f"{verb}_", "main"):
        function = vars(module).get(name)
        if isfunction(function) and function.__module__ == module.__name__:
            return function
    raise AssertionError(f"{module.__name__} has no function {verb} or main")


def verbs() -> dict[str, str]:
    """Every verb with its summary, in the order of the front page, read from the source: importing takes seconds."""
    summaries = {}
    for path in sorted(FOLDER.glob("*.py")):
        name, separator, summary = _first_line(path).partition("`: ")
        if separator and name == f"`{path.stem}":
            summaries[path.stem] = summary.partition(". ")[0].rstrip(".")
    places = {verb: place for place, verb in enumerate(STORY)}
    return dict(sorted(summaries.items(), key=lambda pair: places.get(pair[0], len(STORY))))


def _first_line(path: Path) -> str:
    """The first line of a module's docstring."""
    with tokenize.open(path) as file:
        docstring = next(token for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.STRING)
    return str(ast.literal_eval(docstring.string)).split("\n")[0]
