"""Command lines that are parsed and not run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from cnnbench.cli import front, lightning, parser
from cnnbench.training import config


def accept(command: str) -> None:
    """Parse a command line, without `cnnbench` before it. Raises CnnbenchError where it is refused."""
    words = shlex.split(command.split(" > ")[0], comments=True)
    if words[0].startswith("-"):
        parser.parse("", front.cnnbench, arguments=words)
        return
    verb, *arguments = [word for word in words if word != "--print_config"]  # it prints, and exits
    if arguments == ["--help"]:
        return
    for word in arguments:
        if re.fullmatch(r"runs/\w+/seed\d+", word):
            _run(Path(word))
    entry = front.entry(verb)
    parser.check_flags(verb, arguments)
    if entry.__name__ == "main":
        config.parse_with(lightning.VERBS[verb].flags, arguments, verb=verb)
    else:
        parser.parse(verb, entry, arguments=arguments)


def _run(folder: Path) -> None:
    """A run that a command names, as far as parsing looks at it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("model: {arch: lenet5}\n")
    (folder / "best.ckpt").touch()
