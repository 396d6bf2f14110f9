"""What fit, validate, test and predict share on the command line: the flags of a run, and a few of each verb."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from cnnbench.cli import hints
from cnnbench.cli.help import Option, Page, render
from cnnbench.records.schema import DataConfig, RunConfig
from cnnbench.training import config, process
from cnnbench.types import Exit

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Format = Literal["text", "json"]
METAVARS = {"runs-dir": "FOLDER", "checkpoint": "PATH"}

RUNS_DIR = config.Flag("runs-dir", str, "runs", "Folder of the runs.")
FORMAT = config.Flag("format", Format, "text", "How to print the result.")
CHECKPOINT = config.Flag(
    "ckpt_path", str | None, None, "Checkpoint: a file, a run folder, best or last; by default the run's best."
)
LOGGER = config.Flag(
    "logger",
    str,
    "tensorboard",
    "Any of csv, tensorboard, mlflow, wandb, as csv,mlflow; metrics.csv is always written.",
)
SCORING = (CHECKPOINT, RUNS_DIR, FORMAT)


@dataclass(frozen=True)
class Verb:
    """What is its own of one of the four verbs."""

    purpose: str
    examples: tuple[str, ...]
    flags: tuple[config.Flag, ...]
    options: tuple[str, ...]
    """The short flags in its short help, besides its own."""


NAMES = ("arch", "dataset", "folder")
RECIPE = ("epochs", "lr", "batch-size", "seed", "weight-decay", "train-images")
VERBS: dict[str, Verb] = {
    "fit": Verb(
        "Train a network on the training images; writes <runs-dir>/<task>/seed<k>/.",
        (
            "cnnbench fit lenet5                       # on mnist5k, which is included",
            "cnnbench fit resnet20 --dataset cifar10 --download --epochs 30",
            "cnnbench fit lenet5 --folder FOLDER       # your own images",
            "cnnbench fit runs/mnist5k_lenet5/seed1    # resume a run that was stopped",
        ),
        (
            config.Flag("test", bool, False, "Then score the best checkpoint on every test image, once.", switch=True),
            RUNS_DIR,
            config.Flag("overwrite", bool, False, "Replace an earlier run of the same task and seed.", switch=True),
            config.Flag("ckpt_path", str | None, None, "Checkpoint of this run to resume from; last is the newest."),
            config.Flag(
                "skip-checks",
                bool,
                False,
                "Leave out the trial steps of a network that is not cnnbench's.",
                switch=True,
            ),
            LOGGER,
            FORMAT,
        ),
        (*NAMES, "download", *RECIPE, "precision", "devices"),
    ),
    "validate": Verb(
        "Score a run's best checkpoint, or --checkpoint, on the validation images.",
        ("cnnbench validate runs/mnist5k_lenet5/seed1", "cnnbench validate lenet5 --seed 2"),
        SCORING,
        (*NAMES, "seed"),
    ),
    "test": Verb(
        "Score a run's best checkpoint, or --checkpoint, on every test image, once.",
        (
            "cnnbench test runs/mnist5k_lenet5/seed1",
            "cnnbench test lenet5 --dataset mnist --seed 2",
            "cnnbench test runs/mnist5k_lenet5/seed1 --checkpoint last",
        ),
        SCORING,
        (*NAMES, "seed"),
    ),
    "predict": Verb(
        "Write the predictions of a run's best checkpoint, or of --checkpoint, for every test image.",
        ("cnnbench predict runs/mnist5k_lenet5/seed1",),
        SCORING,
        (*NAMES, "seed"),
    ),
}

SHOWN: dict[str, tuple[str, str, str]] = {
    # short flag: (what stands for its value, what it is, its default); what Lightning and torch know is not asked
    "arch": ("NAME", "Architecture, if no task or run is named; `cnnbench list` names them.", ""),
    "dataset": ("NAME", "Data set; `cnnbench list datasets` names them.", DataConfig().dataset),
    "folder": ("FOLDER", "Your own images, FOLDER/<class>/*.jpg or another layout, instead of --dataset.", ""),
    "epochs": ("N", "Passes over the training images, by default the task's.", ""),
    "lr": ("X", "Peak learning rate, by default the task's.", ""),
    "batch-size": ("N", "Images per training step, by default the task's.", ""),
    "seed": ("N", "Seed of the run, which names its folder.", "1"),
    "download": ("", "First fetch the data set, if it is not there.", ""),
    "weight-decay": ("X", "L2 penalty on the weights.", ""),
    "train-images": ("N", "Train on this many of the training images.", ""),
    "precision": ("NAME", "auto, 32-true, bf16-mixed, ...", "auto"),
    "devices": ("N", "GPUs, or processes on the CPU.", "auto"),
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The values of a verb's own flags."""

    runs_dir: str
    format: Format
    ckpt_path: str | None
    overwrite: bool = False
    test: bool = False
    skip_checks: bool = False
    logger: str = "tensorboard"


def parse(verb: str, arguments: Sequence[str]) -> tuple[RunConfig, Options]:
    """The run's configuration and the verb's own options. Prepares the process for training, so call it first.

    Args:
        verb: fit, validate, test or predict.
        arguments: The command line after the verb.

    Raises:
        CnnbenchError: A flag, a key of a YAML file, or a value is not accepted (exit 2).
    """
    process.prepare()
    if {"-h", "--help"} & {*arguments}:
        print(render(help_page(verb)), end="")
        sys.exit(Exit.OK)
    description, flags = VERBS[verb].purpose, VERBS[verb].flags
    arguments = ["--help" if argument == "--help-all" else argument for argument in arguments]
    expanded = config.written_out(flags, arguments, verb=verb)
    if expanded.said:
        print(expanded.said, file=sys.stderr)
    sys.argv[1:] = [verb, *expanded.flags]  # what DDP starts its other processes with
    configured, values = config.parse_with(flags, expanded.flags, verb=verb, description=description)
    return configured, msgspec.convert(values, Options)


def parser(verb: str) -> ArgumentParser:
    """The parser of one of the four verbs, without running anything: for shell completion."""
    return config.run_parser(VERBS[verb].flags, verb=verb, description=VERBS[verb].purpose)


def help_page(verb: str) -> Page:
    """The short help of one of the four verbs, without importing torch."""
    shown = VERBS[verb]
    options = [Option(f"--{name} {SHOWN[name][0]}", SHOWN[name][1], SHOWN[name][2]) for name in shown.options]
    for flag in shown.flags:
        name = "checkpoint" if flag.name == "ckpt_path" else flag.name
        value = "" if flag.switch else " {text,json}" if flag is FORMAT else f" {METAVARS.get(name, 'NAME')}"
        options.append(Option(f"--{name}{value}", flag.help, "" if flag.switch else str(flag.default or "")))
    return Page(
        usage=f"cnnbench {verb} [NAME] [options]",
        purpose=shown.purpose,
        examples=shown.examples,
        arguments=[Option("NAME", "An architecture, a task, a YAML file, or a run: its folder or checkpoint.")],
        options=options,
        more=f"all options of the recipe, the data and Lightning's Trainer: cnnbench {verb} --help-all",
    )


def say_next(*words: object, options: Options) -> None:
    """Print the command that comes next. Of several processes the first one prints."""
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only(hints.say_next)(*words, format=options.format)


def show(text: str, *, document: object, format: Format) -> None:
    """Print a result: the text, or the document as JSON. Of several processes the first one prints."""
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only(print)(json.dumps(msgspec.to_builtins(document), indent=2) if format == "json" else text)
