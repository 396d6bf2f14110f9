"""`test`: score a run's best checkpoint on every test image, once."""

from __future__ import annotations

from cnnbench.analysis.statistics import proportion_interval
from cnnbench.cli import lightning
from cnnbench.records.schema import RunRecord
from cnnbench.tables.text import interval
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
    ends = proportion_interval(test.accuracy, test.images)
    right = f"{test.correct} of {test.images} images; 95 % interval for new images {interval(ends.low, ends.high)} %"
    return f"{record.task} seed {record.seed}: test accuracy {test.accuracy:.2%} ({right}), loss {test.loss:.4f}"
