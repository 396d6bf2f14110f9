"""The front page, `cnnbench --help`: which verbs there are, the version, and completion for shells.

A verb is a file of this folder whose docstring begins with the file's name in backticks, a colon and a summary. Its
function has the same name (`list_` in list.py, since `list` is Python's), or is called `main` and reads its command
line itself.
"""

from __future__ import annotations

import ast
import importlib
import shutil
import sys
import tokenize
from collections.abc import Callable
from inspect import isfunction
from pathlib import Path

from cnnbench import tasks
from cnnbench.architectures import architecture
from cnnbench.arguments import near
from cnnbench.cli import help, parser
from cnnbench.datasets import dataset
from cnnbench.types import CnnbenchError, Exit, first_line

FOLDER = Path(__file__).parent
STORY: dict[str, tuple[str, ...]] = {
    "from a folder of images to a network": ("ship", "audit"),
    "train and score": ("fit", "sweep", "test", "validate", "predict"),
    "learn about networks": ("list", "explain", "lab"),
    "ship one": ("export", "verify", "classify"),
    "compare results": ("compare", "choose", "report", "bench", "robustness", "collect"),
    "this machine": ("download", "doctor", "clean", "completion"),
}
"""The verbs of the front page by what they are for; one that is not named here comes last."""
EXAMPLES = (
    "cnnbench fit lenet5                   # train on mnist5k, which is included",
    "cnnbench test runs/mnist5k_lenet5     # score it on the test images",
    "cnnbench ship FOLDER --budget 30m     # your own images: all of it",
)
GUESSES: dict[str, str] = {
    "train": "fit",
    "run": "fit",
    "eval": "test",
    "evaluate": "test",
    "score": "test",
    "val": "validate",
    "infer": "classify",
    "inference": "classify",
    "summary": "explain",
    "show": "explain",
    "info": "explain",
    "describe": "explain",
    "plan": "sweep --dry-run",
    "tune": "sweep",
    "benchmark": "bench",
    "profile": "bench",
    "latency": "bench",
    "convert": "export",
    "onnx": "export",
    "quantize": "export --precision int8",
    "check": "verify",
    "best": "choose",
    "select": "choose",
    "results": "compare",
    "table": "compare",
    "plot": "compare --picture",
    "html": "report",
    "data": "list datasets",
    "datasets": "list datasets",
    "tasks": "list tasks",
    "models": "list",
    "architectures": "list",
    "ls": "list",
    "init": "ship",
    "auto": "ship",
    "deploy": "ship",
    "resume": "fit --checkpoint last",
    "rm": "clean",
    "install": "doctor",
    "version": "--version",
    "completions": "completion",
    "lessons": "lab",
    "learn": "lab",
    "course": "lab --all",
}
"""What other tools call a verb: the one that is suggested."""


def run(arguments: list[str]) -> int:
    """Do what comes without a verb; without any argument, print the help to stderr and return the code of a mistake."""
    if not arguments:
        print(help_text(), end="", file=sys.stderr)
        return Exit.USAGE
    if {"-h", "--help", "--help-all"} & set(arguments):
        print(help_text(), end="")
        return Exit.OK
    return cnnbench(**parser.parse("", cnnbench, arguments=arguments).kwargs)


def cnnbench(*, version: bool = False, debug: bool = False) -> int:
    """Which network should I ship for my small images, and what does it cost me?

    Args:
        version: Show the version.
        debug: With a verb: also show the traceback of an error.
    """
    if version:  # looking it up takes a while
        import importlib.metadata

        print(f"cnnbench {importlib.metadata.version('cnnbench')}")
    return Exit.OK


def help_text() -> str:
    """The front page: what cnnbench answers, first steps, and the verbs by what they are for."""
    width = min(shutil.get_terminal_size().columns - 1, help.WIDEST)
    lines = ["usage: cnnbench VERB [options]", "", first_line(cnnbench.__doc__), "", "first steps:"]
    lines += [*(f"  {example}" for example in EXAMPLES), ""]
    summaries = verbs()
    named = {verb for group in STORY.values() for verb in group}
    groups = {**STORY, "more": tuple(verb for verb in summaries if verb not in named)}
    for title, group in groups.items():
        shown = [verb for verb in group if verb in summaries]
        lines += [f"{title}:"] if shown else []
        lines += [f"  {verb:12}{_fitting(summaries[verb], width - 14)}" for verb in shown]
    return "\n".join([*lines, "", "`cnnbench VERB --help` explains a verb; also --version, --debug"]) + "\n"


def _fitting(summary: str, width: int) -> str:
    """A summary in one line: without the parts after a comma that do not fit."""
    while len(summary) > width and "," in summary:
        summary = summary.rpartition(",")[0]
    return summary


def entry(verb: str) -> Callable[..., int]:
    """The function of a verb.

    Raises:
        CnnbenchError: There is no such verb (exit 2), with the nearest ones.
    """
    if verb not in verbs():
        raise CnnbenchError(f"unknown verb {verb!r}: {_meant(verb)}")
    module = importlib.import_module(f"cnnbench.cli.{verb}")
    for name in (verb, f"{verb}_", "main"):
        function = vars(module).get(name)
        if isfunction(function) and function.__module__ == module.__name__:
            return function
    raise AssertionError(f"{module.__name__} has no function {verb} or main")


def _meant(word: str) -> str:
    """What to say of a word that is not a verb."""
    if word in GUESSES:
        return f"`cnnbench {GUESSES[word]}` does that"
    if word in architecture.entries:
        return f"it is an architecture: `cnnbench fit {word}` trains it, `cnnbench explain {word}` shows it"
    if word in dataset.entries:
        return f"it is a data set: `cnnbench fit lenet5 --dataset {word}` trains on it"
    if word in tasks.names():
        return f"it is a task: `cnnbench fit {word}` trains it"
    if Path(word).is_dir():
        return f"it is a folder: `cnnbench audit {word}` looks at its images, `cnnbench report {word}` at its runs"
    closest = near(word, verbs()) or near(word, GUESSES)
    meant = dict.fromkeys(GUESSES.get(name, name) for name in closest)
    return f"did you mean {' or '.join(meant)}?" if closest else "`cnnbench --help` lists the verbs"


def verbs() -> dict[str, str]:
    """Every verb with its summary, in the order of the front page, read from the source: importing takes seconds."""
    summaries = {}
    for path in sorted(FOLDER.glob("*.py")):
        name, separator, summary = _first_line(path).partition("`: ")
        if separator and name == f"`{path.stem}":
            summaries[path.stem] = summary.partition(". ")[0].rstrip(".")
    order = [verb for group in STORY.values() for verb in group]
    places = {verb: place for place, verb in enumerate(order)}
    return dict(sorted(summaries.items(), key=lambda pair: places.get(pair[0], len(places))))


def _first_line(path: Path) -> str:
    """The first line of a module's docstring."""
    with tokenize.open(path) as file:
        docstring = next(token for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.STRING)
    return str(ast.literal_eval(docstring.string)).split("\n")[0]
