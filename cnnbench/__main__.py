"""The command line: one table from verb to function, each imported only when it is called."""

from __future__ import annotations

import importlib
import inspect
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from cnnbench.types import CnnbenchError, Exit

LIGHTNING = ("fit", "validate", "test", "predict")
"""Verbs with the flags of a run; each takes its arguments as they are."""

VERBS: dict[str, tuple[str, str]] = {
    # verb: (function, what the front page says)
    "fit": ("cnnbench.cli.fit:main", "train a network: runs/<task>/seed<k>/"),
    "validate": ("cnnbench.cli.validate:main", "score a checkpoint on the validation images"),
    "test": ("cnnbench.cli.test:main", "score a run's best checkpoint on every test image, once"),
    "predict": ("cnnbench.cli.predict:main", "predict every test image of a dataset, to Parquet"),
    "sweep": ("cnnbench.cli.sweep:sweep", "many runs: every task with every seed, here, on Ray or under Slurm"),
    "explain": ("cnnbench.cli.explain:explain", "a network layer by layer: shapes, receptive field, weights, MACs"),
    "lab": ("cnnbench.cli.lab:lab", "why: lessons that compute, draw and check, from FC to Inception"),
    "list": ("cnnbench.cli.list:show", "architectures with their cost, datasets, or tasks"),
    "export": ("cnnbench.bundles.bundle:export", "turn a run into a proven ONNX bundle: exports/<task>/"),
    "verify": ("cnnbench.bundles.verify:verify", "prove a bundle again from disk, without torch"),
    "compare": ("cnnbench.cli.compare:compare", "one table and one picture of runs, bundles and latencies"),
    "choose": ("cnnbench.cli.choose:choose", "the cheapest network that meets your limits, and why the others lost"),
    "report": ("cnnbench.cli.report:report", "one self-contained page of everything that was measured"),
    "collect": ("cnnbench.cli.collect:collect", "the small records of runs and bundles, to keep in a repository"),
    "bench": ("cnnbench.cli.bench:bench", "latency, engine by engine; or whether one bundle is slower than another"),
    "robustness": ("cnnbench.cli.robustness:robustness", "score a run on shifted test images"),
    "doctor": ("cnnbench.cli.doctor:doctor", "versions, devices, providers and data, and what is wrong"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code. What the user can mend is one line on stderr, never a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _dispatch(arguments)
    except CnnbenchError as error:
        return _fail(str(error), error.code, debug)
    except KeyboardInterrupt:
        return _fail("interrupted", Exit.INTERRUPTED, debug)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into exit 1
            return _fail("interrupted", Exit.INTERRUPTED, debug)
        if isinstance(error.code, str):
            return _fail(error.code, Exit.BUG, debug)
        return error.code or Exit.OK
    except BrokenPipeError:  # `cnnbench list | head`
        sys.stderr.close()
        return Exit.OK
    except MemoryError:
        return _fail("out of memory: use a smaller --data.batch_size", Exit.ENVIRONMENT, debug)
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, known without importing it
            return _fail("the GPU is out of memory: use a smaller --data.batch_size", Exit.ENVIRONMENT, debug)
        return _unexpected(error, debug)
    finally:
        signal.signal(signal.SIGTERM, before)


def _dispatch(arguments: list[str]) -> int:
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    if not arguments or arguments[0].startswith("-") or verb is None:
        return _front(arguments)
    if verb not in VERBS:
        from cnnbench.registry import hint

        raise CnnbenchError(f"unknown verb {verb!r}: {hint(verb, list(VERBS))}")
    target = VERBS[verb][0]
    if verb in LIGHTNING:
        code: int = _load(target)(arguments[1:])
        return code
    return _call(verb, _load(target), arguments[1:])


def _load(target: str) -> Any:
    module, function = target.split(":")
    return getattr(importlib.import_module(module), function)


def _call(verb: str, function: Any, arguments: list[str]) -> int:
    """Parse a plain typed function's arguments from the command line, and call it."""
    from jsonargparse import ArgumentError

    parser = _parser(verb, function)
    known = [flag for action in parser._actions for flag in action.option_strings]
    arguments = [_underscored(argument, known) for argument in arguments]
    for flag in (argument.split("=")[0] for argument in arguments if argument.startswith("--")):
        if flag not in known:  # before argparse takes its value for something else
            from cnnbench.registry import hint

            raise CnnbenchError(f"{verb}: unknown option {flag}: {hint(flag, known)}")
    try:
        config = parser.parse_args(arguments)
    except ArgumentError as error:
        from cnnbench.registry import plain

        raise CnnbenchError(f"{verb}: {plain(str(error))} (see `cnnbench {verb} --help`)") from None
    result: int = function(**config.as_dict())
    return result


def _underscored(argument: str, known: list[str]) -> str:
    """`--min-accuracy=1` as `--min_accuracy=1`: both spellings are common, and ours is the second."""
    flag, equals, value = argument.partition("=")
    name = "--" + flag.removeprefix("--").replace("-", "_")
    return name + equals + value if flag.startswith("--") and name in known else argument


def _parser(verb: str, function: Any) -> Any:
    """A parser whose options are the function's parameters and whose help is its docstring."""
    from docstring_parser import parse
    from jsonargparse import ArgumentParser

    doc = parse(function.__doc__ or "")
    parser = ArgumentParser(
        prog=f"cnnbench {verb}", description=doc.short_description, exit_on_error=False, allow_abbrev=False
    )
    name, first = next(iter(inspect.signature(function).parameters.items()))
    if first.annotation != "bool":  # what a verb is about comes without a flag, even where it has a default
        kind = get_type_hints(function)[name]
        options: dict[str, Any] = {"type": kind}
        if kind == list[str]:
            many = "+" if first.default is inspect.Parameter.empty else "*"
            options = {"type": str, "nargs": many}  # jsonargparse would want [a,b]
            options |= {} if many == "+" else {"default": first.default}
        elif first.default is not inspect.Parameter.empty:
            options |= {"nargs": "?", "default": first.default}
        parser.add_argument(name, help=doc.params[0].description, **options)
    for param in doc.params[1:]:
        annotation = str(inspect.signature(function).parameters[param.arg_name].annotation)
        count = "+" if "list[str]" in annotation else 2 if "tuple[str, str]" in annotation else None
        if count:  # jsonargparse would want [a,b]
            parser.add_argument(f"--{param.arg_name}", type=str, nargs=count, help=param.description)
    for param in doc.params:
        if inspect.signature(function).parameters[param.arg_name].annotation == "bool":  # off unless it is named
            parser.add_argument(f"--{param.arg_name}", action="store_true", help=param.description)
    parser.add_function_arguments(function, as_group=False, skip={action.dest for action in parser._actions})
    return parser


def _front(arguments: list[str]) -> int:
    """`--help`, `--version`, `--print_completion` and whatever else comes without a verb."""
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    set_parsing_settings(add_print_completion_argument=True)
    complete = next((a for a in arguments if a.startswith("--print_completion")), None)
    parser = ArgumentParser(
        prog="cnnbench",
        description="Which network should I ship for my small images, and what does it cost me?",
        epilog="`cnnbench VERB --help` explains a verb. --debug shows the traceback of an error.",
        exit_on_error=False,
    )
    shown = "cnnbench"
    if "--version" in arguments:  # looking it up takes a while
        from importlib.metadata import version

        shown = f"cnnbench {version('cnnbench')}"
    if complete is None:
        parser.add_argument("--version", action="version", version=shown)
    subcommands = parser.add_subcommands(required=True, dest="verb", metavar="VERB")
    for verb, (target, summary) in VERBS.items():
        if complete is None:
            child = ArgumentParser(add_help=False)
        else:
            raw = verb in LIGHTNING
            child = _load("cnnbench.cli.lightning:parser")(verb) if raw else _parser(verb, _load(target))
        subcommands.add_subcommand(verb, child, help=summary)
    if not arguments:
        parser.print_help(sys.stderr)
        return Exit.USAGE
    try:
        parser.parse_args(arguments)
    except ArgumentError as error:
        raise CnnbenchError(f"{_one_line(str(error))} (see `cnnbench --help`)") from None
    return Exit.OK


def _terminate(*_: Any) -> NoReturn:
    sys.exit(Exit.TERMINATED)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"cnnbench: {message}", file=sys.stderr)
    return code


def _unexpected(error: Exception, debug: bool) -> int:
    """An exception nobody expected: say so in one line, and keep the traceback where it can be reported."""
    if debug:
        traceback.print_exc()
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    message = f"unexpected {type(error).__name__} at {place}: {_one_line(str(error))}"
    print(f"cnnbench: {message} (a bug of ours; run again with --debug and report the traceback)", file=sys.stderr)
    return Exit.BUG


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
