"""The figures of a row that weigh classes alike, and a run's mistakes as a list to review."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from cnnbench.tables.columns import Column
from cnnbench.tables.gather import Records, Run, class_names_of, groups, scored_predictions, tested_tally
from cnnbench.tables.text import percent_digits

if TYPE_CHECKING:
    from cnnbench.tables.rows import Row


def with_classes(row: Row, tested: Sequence[Run], *, names: Sequence[str]) -> Row:
    """With its figures by class, where the predictions or the records have them."""
    from cnnbench.analysis import per_class

    counts = [found for run in tested if (found := tested_tally(run))]
    if not counts:
        return row
    label, share = per_class.majority(counts[0])
    by_seed = [per_class.recalls(seed) for seed in counts]
    means = [fmean(recall.share for recall in of_class) for of_class in zip(*by_seed, strict=True)]
    lowest = min(range(len(means)), key=means.__getitem__)
    return replace(
        row,
        majority=share,
        majority_class=per_class.class_name(names, label),
        balanced_accuracy=fmean(map(per_class.balanced_accuracy, counts)),
        macro_f1=fmean(map(per_class.macro_f1, counts)),
        lowest_recall=means[lowest],
        lowest_recall_class=per_class.class_name(names, by_seed[0][lowest].label),
    )


@dataclass(frozen=True)
class Mistake:
    """A test image that the run answers wrongly."""

    task: str
    seed: int
    image: int
    """In its split."""
    file: str | None
    label: str
    predicted: str
    probability: float
    """Probability of the predicted class."""
    probability_of_label: float


MISTAKE_COLUMNS = (
    Column("task", "task"),
    Column("seed", "seed", right=True),
    Column("image", "test image", right=True),
    Column("file", "file"),
    Column("label", "label"),
    Column("predicted", "predicted"),
    Column("probability", "probability", percent_digits, unit="%", right=True),
    Column("probability_of_label", "of the label", percent_digits, unit="%", right=True),
)


def mistakes(gathered: Records) -> list[Mistake]:
    """Every mistake of the best run of each group by validation, the most confident of each group first.

    Raises:
        CnnbenchError: Predictions are damaged, or not the ones that were scored (exit 3).
    """
    found: list[Mistake] = []
    for runs in groups(gathered):
        tested = [run for run in runs if run.record.test and run.predictions.exists()]
        if tested:
            best = max(tested, key=lambda run: run.record.fit.val_accuracy)
            found += _of_run(best, class_names_of(best.record, gathered))
    return found


def _of_run(run: Run, names: Sequence[str]) -> list[Mistake]:
    from cnnbench.analysis.confidence import confident_mistakes
    from cnnbench.analysis.per_class import class_name

    given = scored_predictions(run)
    places = confident_mistakes(given.probabilities, given.labels, count=len(given.labels))
    return [
        Mistake(
            run.record.task,
            run.record.seed,
            place,
            given.files[place] if given.files else None,
            class_name(names, int(given.labels[place])),
            class_name(names, int(given.predictions[place])),
            float(given.probabilities[place, given.predictions[place]]),
            float(given.probabilities[place, given.labels[place]]),
        )
        for place in places.tolist()
    ]
