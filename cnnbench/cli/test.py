"""`test`: score a run's best checkpoint on every test image, once."""

from __future__ import annotations

from cnnbench.cli import lightning
from cnnbench.records.schema import RunRecord
from cnnbench.types import Exit


def main(arguments: list[str]) -> int:
    """Score a checkpoint, and print the result.

    Args:
        arguments: The command line after the verb.
    """
    config, options = lightning.parse("test", arguments)
    from cnnbench.training import run

    record = run.test(config, runs_dir=options.runs_dir, checkpoint=options.ckpt_path)
    if record:
        lightning.show(text(record), document=record, format=options.format)
    return Exit.OK


def text(record: RunRecord) -> str:
    """The test result of a record, in one line."""
    test = record.test
    assert test is not None
    accuracy = f"test accuracy {test.accuracy:.2%} ({test.correct} of {test.images} images), loss {test.loss:.4f}"
    return f"{record.task} seed {record.seed}: {accuracy}"
