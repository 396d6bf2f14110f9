"""`test`: score a run's best checkpoint on every test image, once."""

from __future__ import annotations

from collections.abc import Sequence

from cnnbench.analysis.per_class import (
    Recall,
    balanced_accuracy,
    beats_majority,
    class_name,
    macro_f1,
    majority,
    recalls,
)
from cnnbench.analysis.statistics import proportion_interval
from cnnbench.cli import lightning
from cnnbench.records.schema import ClassTally, RunRecord
from cnnbench.tables.text import interval, percent
from cnnbench.types import Exit, one_line

WORST = 3
"""Classes of which the recall is printed."""


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
        lightning.say_next("export", f"{options.runs_dir}/{record.task}/seed{record.seed}", options=options)
    return Exit.OK


def text(record: RunRecord) -> str:
    """The test result of a record: accuracy, and where it is known by class, what it is worth."""
    test = record.test
    assert test is not None
    ends = proportion_interval(test.accuracy, test.images)
    right = f"{test.correct} of {test.images} images; 95 % interval for new images {interval(ends.low, ends.high)} %"
    line = f"{record.task} seed {record.seed}: test accuracy {test.accuracy:.2%} ({right}), loss {test.loss:.4f}"
    return f"{line}\n{_by_class(test.by_class, record.class_names)}" if test.by_class else line


def _by_class(counts: ClassTally, names: Sequence[str]) -> str:
    """The constant answer to beat, figures that weigh classes alike, and the classes with the lowest recall."""
    label, share = majority(counts)
    worst = sorted(recalls(counts), key=lambda recall: recall.share)[:WORST]
    doubt = "" if beats_majority(counts) else " (this network is not shown to be better)"
    return (
        f"always answering {one_line(class_name(names, label))}: {percent(share)}{doubt}; balanced accuracy "
        f"{percent(balanced_accuracy(counts))}; macro F1 {percent(macro_f1(counts))}\n"
        f"lowest recall: {'; '.join(one_line(_recall(recall, names)) for recall in worst)}"
    )


def _recall(recall: Recall, names: Sequence[str]) -> str:
    ends = interval(recall.interval.low, recall.interval.high)
    return f"{class_name(names, recall.label)}: {percent(recall.share)} ({recall.correct} of {recall.images}; {ends} %)"
