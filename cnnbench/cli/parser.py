"""Command lines from plain functions: a verb's signature is its flags, its docstring its help.

Parameters before the `*` are what the verb is about and come without a flag; keyword-only ones are flags, spelled with
dashes. `bool` is a switch, `list[...]` is comma-separated and may be repeated, a `Literal` is a choice, and the aliases
of `cnnbench.cli.units` read figures with a unit. Defaults stand in the signature alone.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from inspect import BoundArguments, Parameter, signature
from itertools import pairwise
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, TypeAlias, Union, get_args, get_origin, get_type_hints

from cnnbench.cli.help import Option, Page, render
from cnnbench.cli.units import Unit
from cnnbench.registry import hint
from cnnbench.types import CnnbenchError, Exit

Verb: TypeAlias = Callable[..., int]

RENAMED: dict[tuple[str, str], str] = {
    # (verb, or "" for every verb, and the old spelling): the new one
    ("", "--json"): "--format json",
    ("", "--runs_dir"): "--runs-dir",
    ("", "--print_completion"): "cnnbench completion bash",
    ("", "--print-completion"): "cnnbench completion bash",
    ("sweep", "--engine"): "--executor",
    ("sweep", "--engine-options"): "--executor-options KEY=VALUE, repeated",
    ("export", "--variants"): "--precision",
    ("export", "--providers"): "--provider",
    ("export", "--budget"): "--max-accuracy-loss 0.2%",
    ("export", "--target"): "--for triton|safetensors with --out",
    ("bench", "--runtime"): "--backend",
    ("bench", "--server-p99-ms"): "--server-p99 5ms",
    ("choose", "--runtime"): "--backend",
    ("choose", "--max-latency-ms"): "--max-latency 2ms",
    ("compare", "--target"): "--target-accuracy 99%",
    ("compare", "--figure"): "--picture",
    ("compare", "--view variants"): "--view precision",
    ("report", "--target"): "--target-accuracy 99%",
}


@dataclass(frozen=True)
class Kind:
    """How a parameter reads the text behind its flag."""

    read: Callable[[str], Any]
    """The value, of a list one item. Raises ValueError with what is accepted."""
    show: Callable[[Any], str] = str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    switch: bool = False
    several: bool = False


def parse(verb: str, function: Verb, *, arguments: list[str]) -> BoundArguments:
    """The arguments of `function` that a command line gives; those not given are left to its defaults.

    Raises:
        CnnbenchError: An unknown or renamed flag, a value that is not accepted, or several words after a list flag
            (exit 2).
        SystemExit: `--help` was printed.
    """
    known = ["--help", "--help-all", *(_flag(parameter.name) for parameter in _split(function)[1])]
    check_flags(verb, arguments, known=known)
    _check_lists(verb, arguments, function)
    parser = parser_of(verb, function)
    parser.usage = parser.page().usage  # what intermixed parsing would make takes percent signs for formats
    try:
        values = parser.parse_intermixed_args(arguments)  # flags may stand between paths
    except argparse.ArgumentError as error:
        if error.argument_name is None:  # newer Pythons raise what 3.11 hands to `error`
            parser.error(error.message)
        raise _refusal(verb, _plain(str(error.argument_name), error.message, parser)) from None
    given = {name: value for name, value in vars(values).items() if value not in (None, [])}
    return signature(function).bind(**given)


def parser_of(verb: str, function: Verb) -> VerbParser:
    """The parser of a verb, for its help and for completion."""
    import docstring_parser

    doc = docstring_parser.parse(function.__doc__ or "")
    parser = VerbParser(
        verb=verb,
        prog=f"cnnbench {verb}".rstrip(),
        description="\n\n".join(filter(None, (doc.short_description, doc.long_description))),
        examples=[line for example in doc.examples for line in (example.description or "").splitlines()],
        add_help=False,
        argument_default=argparse.SUPPRESS,
        exit_on_error=False,
        allow_abbrev=False,
    )
    described = {param.arg_name: param.description or "" for param in doc.params}
    hints = get_type_hints(function, include_extras=True)
    positionals, flags = _split(function)
    for parameter in positionals:
        options = _positional_options(parameter, _kind(hints[parameter.name]), described.get(parameter.name, ""))
        parser.add_argument(parameter.name, **options)
    for parameter in flags:
        options = _options(parameter, _kind(hints[parameter.name]), described.get(parameter.name, ""))
        parser.add_argument(_flag(parameter.name), **options)
    parser.add_argument("-h", "--help", action=_Help, help="Show this help.")
    parser.add_argument("--help-all", action=_Help, help="Describe every option in full.")
    return parser


def check_flags(verb: str, arguments: list[str], *, known: Iterable[str] | None = None) -> None:
    """Refuse flags that were renamed and, where `known` ones are given, flags that are not among them.

    Raises:
        CnnbenchError: With the new spelling, or the nearest known one (exit 2).
    """
    accepted = sorted(known or [])
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for word, following in pairwise([*words, ""]):
        flag, equals, value = word.partition("=")
        if not flag.startswith("--"):
            continue
        new = RENAMED.get((verb, f"{flag} {value if equals else following}"))
        if new:
            raise _refusal(verb, f"{flag} {value if equals else following} is now {new}")
        if flag not in accepted:
            _refuse_unknown(verb, flag, accepted)


def _check_lists(verb: str, arguments: list[str], function: Verb) -> None:
    """Refuse a word that follows the value of a list flag and looks like its next item, as lists were written once.

    Raises:
        CnnbenchError: With the two ways to write several values (exit 2).
    """
    hints = get_type_hints(function, include_extras=True)
    kinds = {_flag(parameter.name): _kind(hints[parameter.name]) for parameter in _split(function)[1]}
    lists = {flag: kind for flag, kind in kinds.items() if kind.several}
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    words = [part for word in words for part in (word.split("=", 1) if word.split("=")[0] in lists else [word])]
    for flag, value, word in zip(words, words[1:], words[2:], strict=False):
        if flag in lists and not word.startswith("-") and _is_item(word, value, lists[flag]):
            ways = f"separate several values by commas, {flag} {value},{word}, or repeat the flag"
            raise _refusal(verb, f"{word!r} after {flag} {value} is not a file or folder: {ways}")


def _is_item(word: str, value: str, kind: Kind) -> bool:
    """Whether a word after the value of a list flag is rather another value than an argument of the verb."""
    if Path(word).exists():
        return False
    if "=" in value:
        return "=" in word
    if kind.read is _whole:
        return word.replace(",", "").isdigit()
    return "," not in value


def _refuse_unknown(verb: str, flag: str, accepted: list[str]) -> None:
    """Refuse a flag with its new spelling or the nearest; where no flag is known, only if it was renamed."""
    dashed = flag.replace("_", "-")
    rows = [RENAMED[row] for row in ((verb, flag), (verb, dashed), ("", flag)) if row in RENAMED]
    new = rows[0] if rows else dashed if dashed in accepted else None
    if new:
        raise _refusal(verb, f"{flag} is now {new}")
    if accepted:
        from cnnbench.training.spelling import GUESSES, suggestion

        short = GUESSES.get(flag.rpartition(".")[2].replace("_", "-"), flag.rpartition(".")[2].replace("_", "-"))
        if verb == "sweep" and "." in flag and f"--{short}" in accepted:
            raise _refusal(verb, f"unknown option {flag}: did you mean --{short}?")
        if verb == "sweep" and "." in flag:
            raise _refusal(verb, f"unknown option {flag}: write --override {flag.removeprefix('--')}=VALUE")
        known = [name.removeprefix("--") for name in accepted]
        raise _refusal(verb, f"unknown option {flag}: {suggestion(flag.removeprefix('--'), known, verb=verb)}")


MISSING = "the following arguments are required: "
"""How argparse begins to say that something is missing; its words are replaced by plain ones."""
LEFT_OVER = "unrecognized arguments: "


def _plain(flag: str, message: str, parser: argparse.ArgumentParser) -> str:
    """The refusal of a flag's value, in plain words."""
    if message.startswith("expected one argument"):
        (action,) = [action for action in parser._actions if flag in action.option_strings]
        unit = isinstance(action.metavar, str) and action.metavar[:1].isdigit()
        return f"{flag} needs a value{f', such as {action.metavar}' if unit else ''}"
    if message.startswith("ignored explicit argument"):
        return f"{flag} takes no value"
    return f"{flag}: {message}"


class VerbParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line with exit code 2."""

    def __init__(self, *, verb: str = "", examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(**options)
        self.verb = verb
        self.examples = examples

    def page(self) -> Page:
        """What the help says."""
        positionals = [action for action in self._actions if not action.option_strings]
        words = [action.dest.upper() + " ..." * (action.nargs in ("+", "*")) for action in positionals]
        optional = [
            word if action.nargs in (None, "+") else f"[{word.removesuffix(' ...')}]" + " ..." * word.endswith("...")
            for word, action in zip(words, positionals, strict=True)
        ]
        return Page(
            usage=self.usage or " ".join([self.prog, *optional, "[options]"]),
            purpose=self.description or "",
            examples=self.examples,
            arguments=[Option(action.dest.upper(), action.help or "") for action in positionals],
            options=[_option(flag) for flag in self._actions if flag.option_strings and not isinstance(flag, _Help)],
            more=f"in full: {self.prog} --help-all",
        )

    def format_help(self) -> str:
        return render(self.page())

    def error(self, message: str) -> NoReturn:
        if message.startswith(LEFT_OVER):
            words = message.removeprefix(LEFT_OVER)
            raise _refusal(self.verb, f"{words!r} is {'one word' if ' ' not in words else 'words'} too many")
        if message.startswith(MISSING):
            name = message.removeprefix(MISSING).partition(", ")[0]
            name = name if name.startswith("-") else name.upper()
            raise _refusal(self.verb, f"{name} is missing{self._example()}")
        raise _refusal(self.verb, message)

    def _example(self) -> str:
        return f", such as `{self.examples[0].partition('  #')[0]}`" if self.examples else ""


class _Help(argparse.Action):
    """Prints the help, and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> NoReturn:
        print(render(parser.page(), full=option_string == "--help-all"), end="")
        sys.exit(Exit.OK)


def _option(action: argparse.Action) -> Option:
    """A flag with what stands for its value."""
    value = f"{{{','.join(action.choices)}}}" if action.choices else action.metavar or action.dest.rstrip("_").upper()
    names = ", ".join(action.option_strings)
    text, _, default = (action.help or "").replace("%%", "%").partition(" (default: ")
    return Option(names if action.nargs == 0 else f"{names} {value}", text, default.rstrip(")"))


def _refusal(verb: str, message: str) -> CnnbenchError:
    command = f"cnnbench {verb}".rstrip()
    see = "" if "`cnnbench " in message else f" (see `{command} --help`)"
    return CnnbenchError(f"{verb}: {message}{see}".removeprefix(": "))


def _kind(annotation: Any) -> Kind:
    """How values of an annotation are read.

    Raises:
        TypeError: The command line has no form for it.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        (annotation,) = [part for part in inner if part is not type(None)]
        return _kind(annotation)
    if origin is Annotated:
        (unit,) = [part for part in inner[1:] if isinstance(part, Unit)]
        return Kind(unit.parse, unit.show, unit.metavar)
    if origin is Literal:
        return Kind(_choice(inner), choices=inner)
    if origin is list:
        item = _kind(inner[0])
        return replace(item, show=lambda values: ",".join(map(item.show, values)), several=True)
    if annotation is bool:
        return Kind(str, switch=True)
    if annotation not in PLAIN:
        raise TypeError(f"{annotation} has no form on the command line")
    return Kind(PLAIN[annotation], metavar={int: "N", float: "X"}.get(annotation))


def _choice(accepted: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in accepted:
            raise ValueError(f"{text!r} is unknown: {hint(text, list(accepted))}")
        return text

    return read


def _items(read: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Reads `a,b`; a comma inside brackets or braces belongs to its item."""

    def read_items(text: str) -> list[Any]:
        parts = re.split(r",(?![^\[]*\]|[^{]*\})", text)
        if "" in parts:
            raise ValueError(f"{text!r} has an empty item: expected values separated by commas, such as a,b")
        return [read(part) for part in parts]

    return read_items


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f"{text!r} is not a whole number: expected one such as 3")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise ValueError(f"{text!r} is not a number: expected one such as 0.5")
    return value


METAVARS = {
    **dict.fromkeys(("root", "folder", "runs_dir"), "FOLDER"),
    **dict.fromkeys(("out", "html", "picture"), "PATH"),
    **dict.fromkeys(("baseline", "against"), "PATH"),
    **dict.fromkeys(("arch", "dataset", "backend", "precision", "provider", "scenario", "remove", "pair"), "NAME"),
    **dict.fromkeys(("override", "executor_options"), "KEY=VALUE"),
    "compare": "NAME",
    "size": "HxWxC",
    "split": "PERCENT",
}
"""What stands for the value of a flag in the help, where its type does not say."""

PLAIN: dict[Any, Callable[[str], Any]] = {str: str, int: _whole, float: _number, Path: Path}


def _options(parameter: Parameter, kind: Kind, description: str) -> dict[str, Any]:
    """The arguments of argparse's `add_argument` for a flag."""
    default = parameter.default
    if default not in (Parameter.empty, None, False, "", []):
        description = f"{description} (default: {kind.show(default)})"
    options: dict[str, Any] = {"help": description.replace("%", "%%"), "dest": parameter.name}
    if kind.switch:
        return options | {"action": "store_true"}
    metavar = kind.metavar or (METAVARS.get(parameter.name) if not kind.choices else None)
    options |= {"metavar": metavar and metavar + ",..." * kind.several, "required": default is Parameter.empty}
    if kind.several:
        return options | {"type": _reported(_items(kind.read)), "action": "extend"}
    return options | {"type": _reported(kind.read), "choices": kind.choices or None}


def _positional_options(parameter: Parameter, kind: Kind, description: str) -> dict[str, Any]:
    """The arguments of argparse's `add_argument` for what comes without a flag; each word is one item of a list."""
    required = parameter.default is Parameter.empty
    count = {(True, True): "+", (True, False): "*", (False, True): None, (False, False): "?"}[kind.several, required]
    return {
        "help": description.replace("%", "%%"),
        "type": _reported(kind.read),
        "nargs": count,
        "default": None,
        "choices": kind.choices or None,
    }


def _reported(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """The same reader, its ValueError as the error whose text argparse shows."""

    def reported(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return reported


def _split(function: Verb) -> tuple[list[Parameter], list[Parameter]]:
    """The parameters that come without a flag, and the flags."""
    parameters = list(signature(function).parameters.values())
    flags = [parameter for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY]
    return [parameter for parameter in parameters if parameter not in flags], flags


def _flag(name: str) -> str:
    """The flag of a parameter; one that is a keyword of Python's is written with an underscore at its end, `for_`."""
    return "--" + name.removesuffix("_").replace("_", "-")
