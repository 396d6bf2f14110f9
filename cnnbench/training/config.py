"""The configuration of a run, to and from command-line flags and YAML files.

There is one list of flags (`run_flags`). Its defaults stand where they are used: in the signature of `Classifier`, in
`records.schema.DataConfig`, and in Lightning's Trainer, except for the few trainer options in `TRAINER_FLAGS`. Options
that could name code are not flags, so a shared YAML file is data.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from cnnbench import records, tasks
from cnnbench.architectures import architecture
from cnnbench.arguments import refusal, shown, words
from cnnbench.datasets.choice import check_options, default_name
from cnnbench.records.schema import DataConfig, RunConfig, TrainerOption
from cnnbench.registry import hint
from cnnbench.training.precision import Precision
from cnnbench.training.spelling import SHORT, Expanded, expand, suggestion
from cnnbench.types import LARGEST_COUNT, CnnbenchError, check_name

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

OptionValue = str | bool | int | float | Path | None
"""A value of a flag."""

MODEL, DATA, TRAINER = "Network and recipe", "Data", "Trainer options (from Lightning)"

DECIDED_TRAINER_OPTIONS = frozenset(
    {
        "barebones",
        "callbacks",
        "default_root_dir",
        "enable_autolog_hparams",
        "enable_checkpointing",
        "inference_mode",
        "logger",
        "model_registry",
        "plugins",
        "reload_dataloaders_every_n_epochs",
        "use_distributed_sampler",
    }
)
"""Options of Lightning's Trainer that are no flags: they could name code, or `training.run` sets them."""


@dataclass(frozen=True)
class Flag:
    """One command-line flag, without its dashes. A switch takes no value."""

    name: str
    type: Any
    default: Any
    help: str
    group: str = ""
    switch: bool = False


TRAINER_FLAGS = (
    Flag("trainer.accelerator", str, "auto", "cpu, gpu, or auto: a CUDA device, else the CPU.", TRAINER),
    Flag("trainer.strategy", str, "auto", "ddp and the like, or auto.", TRAINER),
    Flag("trainer.max_epochs", int, 10, "Passes over the training images.", TRAINER),
    Flag(
        "trainer.max_time",
        str | dict[str, int] | None,
        None,
        "Stop training after this time: DD:HH:MM:SS, or a mapping such as {hours: 2}.",
        TRAINER,
    ),
    Flag(
        "trainer.val_check_interval",
        int | float | str | None,
        None,
        "How often to validate: a fraction of an epoch, a number of batches, or a time as DD:HH:MM:SS.",
        TRAINER,
    ),
    Flag("trainer.profiler", str | None, None, "simple, advanced or pytorch.", TRAINER),
    Flag("trainer.enable_model_summary", bool, False, "Print Lightning's table of layers before training.", TRAINER),
    Flag("trainer.num_sanity_val_steps", int, 0, "Validation batches run before training.", TRAINER),
    Flag(
        "trainer.precision",
        Precision,
        "auto",
        "Lightning's names, or auto: bf16-mixed where the hardware computes bfloat16, else 32-true.",
        TRAINER,
    ),
)
"""Trainer options with types, or defaults, that are not Lightning's."""


@functools.cache
def run_flags() -> tuple[Flag, ...]:
    """Every flag that configures a run. Imports torch and Lightning."""
    from lightning.pytorch import Trainer

    from cnnbench.training.classifier import Classifier

    narrowed = {flag.name.removeprefix("trainer.") for flag in TRAINER_FLAGS}
    skipped = DECIDED_TRAINER_OPTIONS | narrowed
    return (
        Flag("seed_everything", int, 1, "Seed of the run; it names the run's folder."),
        Flag("task", str | None, None, "Name of the task; by default <dataset>_<arch>."),
        *_flags_of_function(Classifier.__init__, "model", Classifier.__doc__, group=MODEL),
        *_data_flags(),
        *TRAINER_FLAGS,
        *_flags_of_function(Trainer.__init__, "trainer", Trainer.__init__.__doc__, group=TRAINER, skipped=skipped),
    )


def run_parser(
    flags: Sequence[Flag] = (), *, verb: str = "fit", description: str = "Train a network."
) -> ArgumentParser:
    """The parser of a run's flags, `--config` and `--print_config`, and of some more `flags`. It has no side effects.

    Errors of the parser are raised as jsonargparse.ArgumentError; `parse_with` turns them into one line.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog=f"cnnbench {verb}", description=description, exit_on_error=False, allow_abbrev=False, default_env=False
    )
    parser.add_argument("--config", action="config", help="YAML file, or a task's name; flags override it.")
    groups: dict[str, Any] = {"": parser}
    for flag in (*flags, *run_flags()):
        group = groups.setdefault(flag.group, None) or parser.add_argument_group(flag.group)
        groups[flag.group] = group
        if flag.switch:
            parser.add_argument(f"--{flag.name}", action="store_true", help=flag.help)
        else:
            group.add_argument(f"--{flag.name}", type=flag.type, default=flag.default, help=flag.help)
    return parser


def parse(flags: Sequence[str], *, verb: str = "fit") -> RunConfig:
    """The configuration that the flags of a run give.

    Args:
        flags: Such as `["--config", "mnist5k_lenet5", "--model.lr", "0.1"]`.
        verb: The verb that errors name.

    Raises:
        CnnbenchError: A flag, a key of a YAML file, or a value is not accepted (exit 2).
    """
    return parse_with((), flags, verb=verb)[0]


def configure(task: str | Path | None = None, /, **options: OptionValue) -> RunConfig:
    """The configuration of a run, from Python.

    Args:
        task: A task's name, an architecture (on mnist5k, or `dataset=`), `<dataset>_<architecture>` of registered ones,
            a YAML file, or the folder of a run.
        options: Values of flags by their last part, or by their short spelling with underscores, such as
            `arch="lenet5"`, `dataset="mnist5k"`, `epochs=2`, `lr=0.1`; `seed` is the run's seed, `name` the data's,
            `task_name` the task's.

    Raises:
        CnnbenchError: An option, a key of the file, or a value is not accepted, or no architecture is named (exit 2).
    """
    names = {flag.name.rpartition(".")[2]: flag.name for flag in reversed(run_flags())}
    names |= {short.replace("-", "_"): flag for short, flag in SHORT.items() if flag in names.values()}
    names |= {flag.name: flag.name for flag in run_flags()} | {"seed": "seed_everything", "task_name": "task"}
    if not isinstance(task, str | Path | None):
        raise CnnbenchError(
            f"{shown(task)} is not a task: expected its name, a YAML file or a configuration; a network of yours has a "
            "name once its builder is registered with @cnnbench.register_architecture"
        )
    flags = [] if task is None else [str(task)]
    for key, value in options.items():
        if key not in names:
            raise CnnbenchError(f"unknown option {key!r}: {hint(key, sorted(names))}")
        if value is not None:
            flags.append(f"--{names[key]}={_text(names[key], value)}")
    return parse(flags)


def _text(name: str, value: Any) -> str:
    """The value of a flag as it is written.

    Raises:
        CnnbenchError: It cannot be, such as a network where the name of one is expected (exit 2).
    """
    if isinstance(value, str | Path):
        return str(value)
    if name == "model.arch":
        architecture.require_text(value)
    try:
        return json.dumps(value, default=operator.methodcaller("item"))  # of numpy's numbers
    except (AttributeError, TypeError, ValueError):
        kind = next(flag.type for flag in run_flags() if flag.name == name)
        raise CnnbenchError(refusal(name, value, kind=kind)) from None


def parse_with(
    more: Sequence[Flag], arguments: Sequence[str], *, verb: str = "fit", description: str = "Train a network."
) -> tuple[RunConfig, dict[str, OptionValue]]:
    """The configuration in the arguments of a verb, and the values of its own flags by name (with underscores).

    Raises:
        CnnbenchError: A flag, a key of a YAML file, or a value is not accepted (exit 2).
    """
    from jsonargparse import ArgumentError

    parser = run_parser(more, verb=verb, description=description)
    flags = {flag.name: flag for flag in (*more, *run_flags())}
    arguments = _with_task_files(written_out(more, arguments, verb=verb).flags)
    shows = any(argument.split("=")[0] in ("-h", "--help", "--print_config") for argument in arguments)
    given = [] if shows else list(_given(arguments, flags, verb))
    if not shows and "model.arch" not in {name for name, _ in given}:
        raise CnnbenchError(
            f"{verb}: name an architecture, a task or a run, such as `cnnbench {verb} lenet5` "
            "(`cnnbench list` names the architectures)"
        )
    options = {name for name, value in given if value is not None}
    implied = ["--data.dataset=folder"] if "data.folder" in options and "data.dataset" not in options else []
    try:
        values = parser.parse_args([*arguments, *implied]).as_dict()
    except ArgumentError as error:
        raise _refusal(parser, flags, given, verb) or CnnbenchError(f"{verb}: {' '.join(str(error).split())}") from None
    config = msgspec.convert(values, RunConfig)
    _check_values(config)
    check_options(config.data)
    if not 0 <= config.seed_everything < 2**32:
        raise CnnbenchError(
            f"seed_everything is {config.seed_everything}: a run is named by its seed, "
            "a whole number from 0 to 2**32 - 1"
        )
    return config, {flag.name.replace("-", "_"): values[flag.name.replace("-", "_")] for flag in more}


def _check_values(config: RunConfig) -> None:
    """Refuse numbers that nothing can be trained with, whatever reads the configuration.

    Raises:
        CnnbenchError: A number is out of range (exit 2).
    """
    if not 0 <= config.model.lr < math.inf:
        raise CnnbenchError(f"model.lr is {config.model.lr}: expected a number from 0 on")
    if not 0 <= config.model.weight_decay < math.inf:
        raise CnnbenchError(f"model.weight_decay is {config.model.weight_decay}: expected a number from 0 on")
    if not 1 <= config.data.batch_size <= LARGEST_COUNT:
        raise CnnbenchError(f"data.batch_size is {str(config.data.batch_size)[:20]}: expected at least 1")
    for name, value in config.trainer.items():
        if isinstance(value, int | float) and not -LARGEST_COUNT <= value <= LARGEST_COUNT:
            raise CnnbenchError(f"trainer.{name} is out of range: expected at most 2**53")


def written_out(more: Sequence[Flag], arguments: Sequence[str], *, verb: str) -> Expanded:
    """The arguments of a verb with short flags and bare names as the flags of a run; see `training.spelling`.

    Raises:
        CnnbenchError: A bare word names nothing (exit 2), or no run (exit 3).
    """
    switches = {flag.name: flag.switch for flag in (*more, *run_flags())}
    return expand(arguments, switches, verb=verb)


def flags_of(config: RunConfig) -> list[str]:
    """The flags that give a configuration again: all that are not the defaults, and the seed.

    Options that are None are left out, and trainer options that this version does not have.
    """
    defaults = {flag.name: flag.default for flag in run_flags()}
    flags: list[str] = []
    for part, values in (("model", config.model), ("data", config.data), ("trainer", config.trainer)):
        for key, value in msgspec.to_builtins(values).items():
            name = f"{part}.{key}"
            if value is not None and name in defaults and value != defaults[name]:
                flags += _flag(name, value if isinstance(value, str) else json.dumps(value))
    flags += _flag("task", config.task) if config.task else []
    return [*flags, "--seed_everything", str(config.seed_everything)]


def _flag(name: str, text: str) -> list[str]:
    """A flag with its value, which alone would be taken for a flag where it begins with a dash."""
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]


def portable(config: RunConfig) -> RunConfig:
    """The configuration without what depends on the machine: a folder of images is named FOLDER."""
    folder = "FOLDER" if config.data.folder else None
    return records.replace(config, data=records.replace(config.data, root=None, download=False, folder=folder))


def task_name(config: RunConfig) -> str:
    """The task's name: as configured, else `<data>_<architecture>`.

    Raises:
        CnnbenchError: It cannot name a folder (exit 2).
    """
    if config.task is not None:
        return check_name(config.task)
    data = config.data.name or default_name(config.data.dataset, config.data.split)
    return check_name(f"{data}_{config.model.arch}".replace("/", "-"))  # of torchvision/<name>


def trainer_options(config: RunConfig) -> dict[str, TrainerOption]:
    """Arguments for Lightning's Trainer: the configured ones over our defaults.

    Raises:
        CnnbenchError: An option is not a flag of the trainer (exit 2).
    """
    accepted = [flag.name.removeprefix("trainer.") for flag in run_flags() if flag.group == TRAINER]
    for name in config.trainer:
        if name not in accepted:
            raise CnnbenchError(f"unknown trainer option {name!r}: {hint(name, accepted)}")
    return {**{flag.name.removeprefix("trainer."): flag.default for flag in TRAINER_FLAGS}, **config.trainer}


def _flags_of_function(
    function: Callable[..., Any],
    prefix: str,
    documentation: str | None,
    *,
    group: str,
    skipped: frozenset[str] | set[str] = frozenset(),
) -> list[Flag]:
    """A flag for each parameter of a function, with its type, its default and its line of the documentation."""
    types, helps = get_type_hints(function), _argument_help(documentation)
    parameters = list(inspect.signature(function).parameters.values())[1:]  # without self
    return [
        Flag(
            f"{prefix}.{parameter.name}",
            whole_numbers_first(types[parameter.name]),
            None if parameter.default is parameter.empty else parameter.default,
            helps.get(parameter.name, ""),
            group,
        )
        for parameter in parameters
        if parameter.name not in skipped
    ]


def whole_numbers_first(kind: Any) -> Any:
    """A type of numbers as "1" is to be read by: the whole number, one batch, and not 1.0, all of them.

    Python gives `Optional[Union[int, float]]` the order in which it was first asked for, so that the order of a
    library's types depends on what was imported before.
    """
    parts = [*get_args(kind)] if get_origin(kind) in (Union, UnionType) else []
    if int not in parts or float not in parts or (first := parts.index(float)) > (second := parts.index(int)):
        return kind
    parts[first], parts[second] = int, float
    return functools.reduce(operator.or_, parts)


def _data_flags() -> list[Flag]:
    helps: dict[str, str] = {}
    for part in DataConfig.__mro__:
        helps |= _argument_help(part.__doc__)
    return [
        Flag(f"data.{field.name}", field.type, field.default, helps[field.name], DATA)
        for field in msgspec.structs.fields(DataConfig)
    ]


def _argument_help(documentation: str | None) -> dict[str, str]:
    import docstring_parser

    parsed = docstring_parser.parse(documentation or "")
    return {argument.arg_name: " ".join((argument.description or "").split()) for argument in parsed.params}


def _with_task_files(arguments: Sequence[str]) -> list[str]:
    """Replace a task's name after --config by the path of its file."""
    resolved = list(arguments)
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag != "--config":
            continue
        if equals:
            resolved[index] = f"{flag}={tasks.find(value)}"
        elif index + 1 < len(arguments):
            resolved[index + 1] = str(tasks.find(arguments[index + 1]))
    return resolved


def _given(arguments: Sequence[str], flags: Mapping[str, Flag], verb: str) -> Iterator[tuple[str, Any]]:
    """Every flag in the arguments, and every key in their YAML files, with its value.

    Raises:
        CnnbenchError: One is unknown, has no value, or is not a flag (exit 2).
    """
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if not argument.startswith("--"):
            raise CnnbenchError(f"{verb}: unknown option {argument} (see `cnnbench {verb} --help`)")
        name, equals, value = argument.removeprefix("--").partition("=")
        if name not in flags and name != "config":
            raise CnnbenchError(
                f"{verb}: unknown option --{name}: {suggestion(name, [*flags, 'config', 'print_config'], verb=verb)}"
            )
        if name in flags and flags[name].switch:
            yield name, True
            continue
        if not equals:
            if not waiting:
                raise CnnbenchError(f"{verb}: --{name} needs a value (see `cnnbench {verb} --help`)")
            value = waiting.pop(0)
        yield from _in_file(Path(value), flags, verb) if name == "config" else [(name, value)]


def _in_file(path: Path, flags: Mapping[str, Flag], verb: str) -> Iterator[tuple[str, Any]]:
    """Every dotted key of a YAML file with its value."""
    names = {name.replace("-", "_"): name for name in flags}

    def walk(content: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in content.items():
            name = f"{prefix}{key}"
            if name in names:
                yield names[name], value
            elif isinstance(value, dict) and any(known.startswith(f"{name}.") for known in names):
                yield from walk(value, f"{name}.")
            else:
                raise CnnbenchError(f"{verb}: {path} has an unknown key {name!r}: {_nearest(name, names)}")

    yield from walk(tasks.read(path), "")


def _nearest(name: str, accepted: Mapping[str, Any]) -> str:
    """What to say about an unknown name: the nearest one, else where all are listed."""
    import difflib

    near = difflib.get_close_matches(name, accepted, n=1)
    return f"did you mean {near[0]}?" if near else "`cnnbench fit --help-all` lists all options"


def _refusal(
    parser: ArgumentParser, flags: Mapping[str, Flag], given: Sequence[tuple[str, Any]], verb: str
) -> CnnbenchError | None:
    """An error for the first value that the parser refuses by itself."""
    from jsonargparse import ArgumentError

    for name, value in given:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        try:
            parser.parse_args([f"--{name}"] if flags[name].switch else [f"--{name}={text}"])
        except ArgumentError:
            return CnnbenchError(f"{verb}: {name} is {text}: expected {words(flags[name].type)}")
    return None
