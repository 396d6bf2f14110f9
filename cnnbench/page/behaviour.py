"""Sections on what networks do with images: shifts, confusions, confident mistakes, calibration."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cnnbench.analysis import confidence
from cnnbench.page import classes as classes_page
from cnnbench.page.charts import behaviour as charts
from cnnbench.page.charts.base import Point, error, shortened
from cnnbench.page.material import Group, Material
from cnnbench.page.section import Block, Mistake, Picture, Ramp, Section
from cnnbench.tables.gather import class_names_of
from cnnbench.tables.text import count, percent
from cnnbench.types import Dataset

if TYPE_CHECKING:
    from cnnbench.analysis.confidence import Predictions
    from cnnbench.records.schema import Robustness

NETWORKS = 6
"""Networks of a dataset whose predictions are shown."""
MAPS = 12
CLASSES = 30
"""Classes above which a confusion matrix is not readable."""
TABLES = 2
"""Networks of which the largest confusions are listed where a matrix is not readable."""
MISTAKES = 10


class Predicted(NamedTuple):
    """A network and the predictions of its best run."""

    group: Group
    predictions: Predictions


def shifts(material: Material) -> Section | None:
    """One map per network: accuracy when the test images are shifted."""
    blocks = []
    for dataset in material.datasets:
        measured = [(group, shifted) for group in material.comparable(dataset) if (shifted := _shifted(group))]
        if measured:
            shown = measured[:MAPS]
            notes = [f"The {MAPS} most accurate of {len(measured)} are drawn."] if len(measured) > MAPS else []
            values = [value for _, shifted in shown for line in shifted.accuracy for value in line]
            low, high = min(values), max(values)
            pictures = [_shift_map(group, shifted, (_halvings(low), _halvings(high))) for group, shifted in shown]
            ramp = Ramp(percent(low), percent(high))
            blocks.append(Block(material.heading(dataset), notes, pictures=pictures, layout="many", ramp=ramp))
    lead = (
        "Accuracy in percent when every test image is moved by up to four pixels; the middle of a map is unshifted. "
        "The colour shows the error on a logarithmic scale, which all maps of a dataset share."
    )
    return Section("shifts", "Robustness to shifts", lead, blocks, "Shifts") if blocks else None


def _shifted(group: Group) -> Robustness | None:
    """Robustness of the best run, or of the first that was measured."""
    return group.best_run.robustness or next((run.robustness for run in group.runs if run.robustness), None)


def _shift_map(group: Group, measured: Robustness, domain: tuple[float, float]) -> Picture:
    reach = max(measured.shifts)
    points: list[Point] = [
        {
            "name": group.name,
            "dx": dx,
            "dy": dy,
            "value": _halvings(value),
            "accuracy": percent(value),
            "shown": f"{100 * value:.0f}" if abs(dx) in (0, reach) and abs(dy) in (0, reach) else "",
        }
        for dy, line in zip(measured.shifts, measured.accuracy, strict=True)
        for dx, value in zip(measured.shifts, line, strict=True)
    ]
    figures = f"mean {percent(measured.mean)}, worst {percent(measured.worst)}"
    caption = f"{figures}; seed {measured.seed}, {measured.images:,} images"
    return charts.shift_map(points, domain=domain, title=shortened(group.name), caption=caption)


def _halvings(accuracy: float) -> float:
    """How often the error was halved from 1: the scale of the colours, on which 98 and 99 % differ as 50 and 75 %."""
    return -math.log2(error(accuracy))


def errors(material: Material, chosen: Sequence[Group]) -> Section | None:
    """Confusions, errors by class, and the most confident mistakes of the chosen network of each dataset."""
    blocks = []
    for dataset in material.datasets:
        predicted = _predicted(material, dataset)
        if predicted:
            shown = next((group for group in chosen if group.row.dataset == dataset), predicted[0].group)
            blocks += [*_confusions(material, dataset, predicted), *_by_file(material, shown)]
            blocks += _mistakes(material, shown)
    lead = (
        "Rows are true classes, columns predicted ones. Correct predictions are grey; the stronger the orange, the "
        "larger the share of the class."
    )
    return Section("mistakes", "Errors", lead, blocks) if blocks else None


def _predicted(material: Material, dataset: str) -> list[Predicted]:
    """The most accurate networks whose predictions are kept."""
    groups = [group for group in material.comparable(dataset) if group.best_run.predictions.exists()]
    return [Predicted(group, material.predictions(group.best_run)) for group in groups[:NETWORKS]]


def _confusions(material: Material, dataset: str, predicted: Sequence[Predicted]) -> list[Block]:
    """The confusion matrix of each network, and their errors by class."""
    number = predicted[0].predictions.probabilities.shape[1]
    heading = material.heading(dataset)
    classes = _class_names(material, predicted[0].group, number)
    if number > CLASSES:
        note = f"{number} classes are too many for a matrix; predictions.parquet has every answer."
        tables = [
            classes_page.confusion_table(group.name, found, classes=classes) for group, found in predicted[:TABLES]
        ]
        return [Block(heading, [note]), *(Block(table=table) for table in tables)]
    known = sum(group.best_run.predictions.exists() for group in material.comparable(dataset))
    notes = [f"The {len(predicted)} most accurate of {known} are shown."] if known > len(predicted) else []
    full = _full_colour(predicted, number)
    matrices = [_confusion(network, classes, full=full) for network in predicted]
    return [
        Block(heading, notes, pictures=matrices, layout="two" if number > charts.READABLE else "three"),
        Block(pictures=[_by_class(predicted, classes)], layout="wide"),
    ]


def _by_file(material: Material, group: Group) -> list[Block]:
    """Recall of each class of the chosen network, and its mistakes as a list to review."""
    if not group.best_run.predictions.exists():
        return []
    predictions = material.predictions(group.best_run)
    classes = _class_names(material, group, predictions.probabilities.shape[1])
    heading = f"Classes of {group.name} {material.heading(group.row.dataset)}".strip()
    recalls = classes_page.recall_block(group.name, predictions, classes=classes, heading=heading)
    review = classes_page.review_block(group.name, predictions, classes=classes)
    return [recalls, review] if review else [recalls]


def _class_names(material: Material, group: Group, number: int) -> list[str]:
    """Names of the classes from a record, a bundle or the images where one is there, else their numbers."""
    named = class_names_of(group.runs[0].record, material.records)
    images = None if named else _images(material, group)
    full = named or (images.class_names if images else tuple(map(str, range(number))))
    names = [shortened(name, length=14) for name in full]
    return names if len(set(names)) == number else [f"{place} {name}" for place, name in enumerate(names)]


FULL = 5
"""Errors of one kind, in the class with the fewest images, that have the full colour if none is more frequent."""


def _full_colour(predicted: Sequence[Predicted], number: int) -> float:
    """The share of a class with the full colour in all matrices of a dataset: one error is paler than three."""
    shares = []
    for _, predictions in predicted:
        counts = confidence.confusion(predictions.labels, predictions.predictions, classes=number)
        images = np.maximum(counts.sum(axis=1), 1)
        wrong = counts / images[:, None]
        np.fill_diagonal(wrong, 0)
        shares += [float(wrong.max()), min(1.0, FULL / float(images.max()))]
    return max(shares)


def _confusion(predicted: Predicted, classes: Sequence[str], *, full: float) -> Picture:
    group, predictions = predicted
    counts = confidence.confusion(predictions.labels, predictions.predictions, classes=len(classes))
    images = counts.sum(axis=1)
    points: list[Point] = [
        {
            "name": group.name,
            "true": classes[true],
            "predicted": classes[answer],
            "count": int(counts[true, answer]),
            "share": float(counts[true, answer] / images[true]),
            "percent": percent(counts[true, answer] / images[true]),
        }
        for true, answer in zip(*counts.nonzero(), strict=True)
    ]
    wrong = int(counts.sum() - counts.trace())
    seed = group.best_run.record.seed
    caption = f"{wrong:,} of {int(counts.sum()):,} images wrong; seed {seed}, the best by validation accuracy."
    return charts.confusion(points, classes, full=full, title=shortened(group.name), caption=caption)


def _by_class(predicted: Sequence[Predicted], classes: Sequence[str]) -> Picture:
    points = [point for network in predicted for point in _class_errors(network, classes)]
    caption = "The share of each class that was classified wrongly, in percent: a hard class is coloured in every row."
    networks = [network.group.name for network in predicted]
    return charts.per_class(points, classes, networks=networks, title="Errors by class", caption=caption)


def _class_errors(predicted: Predicted, classes: Sequence[str]) -> list[Point]:
    group, predictions = predicted
    counts = confidence.confusion(predictions.labels, predictions.predictions, classes=len(classes))
    accuracy = confidence.per_class_accuracy(counts)
    return [
        {
            "name": group.name,
            "class": name,
            "share": 1 - float(value),
            "percent": f"{100 * (1 - value):.1f}",
            "accuracy": percent(value),
        }
        for name, value in zip(classes, accuracy, strict=True)
        if not np.isnan(value)
    ]


def _mistakes(material: Material, group: Group) -> list[Block]:
    """The images that a network classified wrongly with most confidence."""
    if not group.best_run.predictions.exists():
        return []
    predictions = material.predictions(group.best_run)
    places = confidence.confident_mistakes(predictions.probabilities, predictions.labels, count=MISTAKES)
    heading = f"The most confident mistakes of {group.name} {material.heading(group.row.dataset)}".strip()
    if not len(places):
        return [Block(heading, ["No mistakes on the test images."])]
    data = _images(material, group)
    if data is None:
        note = "The images are not on this machine: give cnnbench report their folder with --root or --folder."
        return [Block(heading, [note])]
    mistakes = [
        Mistake(
            source=png(data.test.images[place]),
            true=data.class_names[predictions.labels[place]],
            predicted=data.class_names[predictions.predictions[place]],
            probability=f"{100 * predictions.probabilities[place].max():.1f} %",
            place=predictions.files[place] if predictions.files else f"image {place}",
        )
        for place in places
    ]
    note = "The true class, the predicted one, and the probability that the network gave it."
    return [Block(heading, [note], mistakes=mistakes)]


def _images(material: Material, group: Group) -> Dataset | None:
    return material.images(group.runs[0].record.data)


def png(image: np.ndarray) -> str:
    """An image `(H, W, C)` uint8 as a data URI, at most 160 pixels a side, since ten stand in a row."""
    from PIL import Image

    thumbnail = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    thumbnail.thumbnail((160, 160))
    content = io.BytesIO()
    thumbnail.save(content, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def calibration(material: Material) -> Section | None:
    """Accuracy against confidence."""
    blocks = []
    for dataset in material.datasets:
        predicted = _predicted(material, dataset)
        points = [point for network in predicted for point in _bins(material, network)]
        if points:
            groups = [network.group for network in predicted]
            known = [_calibration_error(group) for group in groups if group.row.ece is not None]
            caption = (
                "Images by the confidence of the network; on the dashed line it is right as often as its confidence "
                "says. Above it, underconfident; below, overconfident. Expected calibration error, mean over seeds, "
                f"and what a calibrated network stays below in 95 %: {', '.join(known)}."
            )
            title = "Confidence and accuracy"
            picture = charts.reliability(points, material.palette, title=title, caption=caption)
            legend = material.legend(groups)
            blocks.append(Block(material.heading(dataset), legend=legend, pictures=[picture], layout="two"))
    lead = "A network that is 90 % confident should be right nine times of ten."
    return Section("calibration", "Calibration", lead, blocks) if blocks else None


def _calibration_error(group: Group) -> str:
    return f"{group.name} {percent(group.row.ece or 0)} ({percent(group.row.ece_null or 0)})"


def _bins(material: Material, predicted: Predicted) -> list[Point]:
    group, predictions = predicted
    bins = confidence.reliability(predictions.probabilities, predictions.labels)
    return [
        {
            "run": group.name,
            "name": group.name,
            "group": material.palette.groups[group.row.arch],
            "confidence": float(sure),
            "accuracy": float(right),
            "images": int(images),
            "count": count(images),
            "bin": f"{percent(sure)} confident, {percent(right)} right",
        }
        for sure, right, images in zip(bins.confidence, bins.accuracy, bins.counts, strict=True)
        if images
    ]
