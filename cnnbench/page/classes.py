"""Tables by class: recall of each, the largest confusions, and mistakes to review for wrong labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnnbench.analysis import confidence, per_class
from cnnbench.analysis.confidence import Predictions
from cnnbench.page.section import Block, Table
from cnnbench.tables.columns import Column
from cnnbench.tables.text import interval, percent, percent_digits, plural

CONFUSIONS = 30
"""Pairs of classes in a table."""
REVIEWED = 50
"""Mistakes in a list."""


def recall_block(name: str, predictions: Predictions, *, classes: Sequence[str], heading: str) -> Block:
    """Recall of every class of a network, the lowest first, under the figures that weigh classes alike.

    Args:
        name: Name of the network.
        predictions: Predictions of its best run.
        classes: Names, in the order of the labels.
        heading: Heading of the block.
    """
    counts = per_class.tally(predictions.labels, predictions.predictions, classes=len(classes))
    label, share = per_class.majority(counts)
    balanced, f1 = percent(per_class.balanced_accuracy(counts)), percent(per_class.macro_f1(counts))
    note = (
        f"Always answering {classes[label]} would be right on {percent(share)} of the test images. "
        f"The best seed of {name} alone: balanced accuracy {balanced}, macro F1 {f1}."
    )
    if not per_class.beats_majority(counts):
        note += " It is not shown to be better than that answer."
    rows = [
        {
            "class": classes[recall.label],
            "images": recall.images,
            "correct": recall.correct,
            "recall": recall.share,
            "interval": interval(recall.interval.low, recall.interval.high),
            "predicted": counts.predicted[recall.label],
        }
        for recall in sorted(per_class.recalls(counts), key=lambda recall: recall.share)
    ]
    columns = [
        Column("class", "class"),
        Column("images", "test images", "{:,}".format, right=True),
        Column("correct", "right", "{:,}".format, right=True),
        Column("recall", "recall", percent_digits, unit="%", right=True),
        Column("interval", "95 % interval, new images", right=True),
        Column("predicted", "answered", "{:,}".format, right=True),
    ]
    return Block(heading, [note], table=Table(columns, rows, f"Recall of {name}", filtered=len(rows) > CONFUSIONS))


def confusion_table(name: str, predictions: Predictions, *, classes: Sequence[str]) -> Table:
    """The pairs of classes that a network confuses most often, by images."""
    counts = confidence.confusion(predictions.labels, predictions.predictions, classes=len(classes))
    images = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [divmod(place, len(classes)) for place in order.tolist() if counts.flat[place]]
    rows = [
        {
            "true": classes[true],
            "predicted": classes[answer],
            "count": int(counts[true, answer]),
            "share": counts[true, answer] / images[true],
        }
        for true, answer in pairs
    ]
    columns = [
        Column("true", "true class"),
        Column("predicted", "predicted"),
        Column("count", "images", "{:,}".format, right=True),
        Column("share", "of the class", percent_digits, unit="%", right=True),
    ]
    return Table(columns, rows, f"Largest confusions of {name}")


def review_block(name: str, predictions: Predictions, *, classes: Sequence[str]) -> Block | None:
    """The most confident mistakes by file: where the network is sure, the label may be wrong. None without any."""
    places = confidence.confident_mistakes(predictions.probabilities, predictions.labels, count=REVIEWED)
    if not len(places):
        return None
    rows = [
        {
            "file": predictions.files[place] if predictions.files else f"test image {place}",
            "true": classes[predictions.labels[place]],
            "predicted": classes[predictions.predictions[place]],
            "probability": float(predictions.probabilities[place].max()),
        }
        for place in places.tolist()
    ]
    columns = [
        Column("file", "file" if predictions.files else "image"),
        Column("true", "label"),
        Column("predicted", "predicted"),
        Column("probability", "probability", percent_digits, unit="%", right=True),
    ]
    wrong = int((~predictions.correct).sum())
    note = f"Review these labels first: {name} is wrong on {plural(wrong, 'test image')}, most confidently on these."
    return Block("", [note], table=Table(columns, rows, f"Mistakes of {name} to review", filtered=True))
