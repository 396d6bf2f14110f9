"""What fit, validate, test and predict share on the command line: the flags of a run, and a few of each verb."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from cnnbench.records.schema import RunConfig
from cnnbench.training import config, process

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Format = Literal["text", "json"]

RUNS_DIR = config.Flag("runs-dir", str, "runs", "Folder of the runs.")
FORMAT = config.Flag("format", Format, "text", "How to print the result.")
CHECKPOINT = config.Flag(
    "ckpt_path", str | None, None, "Checkpoint: a file, a run folder, best or last; by default the run's best."
)
SCORING = (RUNS_DIR, CHECKPOINT, FORMAT)

VERBS: dict[str, tuple[str, tuple[config.Flag, ...]]] = {
    # verb: (what its help says, its own flags)
    "fit": (
        "Train a network on the training images; writes <runs-dir>/<task>/seed<k>/.",
        (
            RUNS_DIR,
            config.Flag("overwrite", bool, False, "Replace an earlier run of the same task and seed.", switch=True),
            config.Flag("ckpt_path", str | None, None, "Checkpoint of this run to resume from; last is the newest."),
            config.Flag("test", bool, False, "Then score the best checkpoint on every test image, once.", switch=True),
            config.Flag(
                "skip-checks", bool, False, "Do not try a network of others before its first epoch.", switch=True
            ),
            FORMAT,
        ),
    ),
    "validate": ("Score the run's best checkpoint, or --ckpt_path, on the validation images.", SCORING),
    "test": ("Score the run's best checkpoint, or --ckpt_path, on every test image, once.", SCORING),
    "predict": (
        "Write the predictions of the run's best checkpoint, or of --ckpt_path, for every test image.",
        SCORING,
    ),
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The values of a verb's own flags."""

    runs_dir: str
    format: Format
    ckpt_path: str | None
    overwrite: bool = False
    test: bool = False
    skip_checks: bool = False


def parse(verb: str, arguments: Sequence[str]) -> tuple[RunConfig, Options]:
    """The run's configuration and the verb's own options. Prepares the process for training, so call it first.

    Args:
        verb: fit, validate, test or predict.
        arguments: The command line after the verb.

    Raises:
        CnnbenchError: A flag, a key of a YAML file, or a value is not accepted (exit 2).
    """
    process.prepare()
    sys.argv[1:] = [verb, *arguments]  # what DDP starts its other processes with
    description, flags = VERBS[verb]
    configured, values = config.parse_with(flags, arguments, verb=verb, description=description)
    return configured, msgspec.convert(values, Options)


def parser(verb: str) -> ArgumentParser:
    """The parser of one of the four verbs, without running anything: for shell completion."""
    description, flags = VERBS[verb]
    return config.run_parser(flags, verb=verb, description=description)


def show(text: str, *, document: object, format: Format) -> None:
    """Print a result: the text, or the document as JSON. Of several processes the first one prints."""
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only(print)(json.dumps(msgspec.to_builtins(document), indent=2) if format == "json" else text)
