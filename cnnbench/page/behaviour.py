"""Sections on what networks do with images: shifts, confusions, confident mistakes, calibration."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnbench.analysis import confidence
from cnnbench.page import charts
from cnnbench.page.answer import Group
from cnnbench.page.charts import Picture, Point, shortened
from cnnbench.page.parts import Block, Material, Mistake, Section
from cnnbench.tables.text import percent
from cnnbench.types import Dataset

if TYPE_CHECKING:
    from cnnbench.analysis.confidence import Predictions
    from cnnbench.records.schema import Robustness

LOOKED_AT = 6
"""Networks of a dataset whose single predictions are looked at."""
MAPS = 12
CLASSES = 30
"""Classes above which a confusion matrix is no longer readable."""
MISTAKES = 10


def shifts(material: Material) -> Section | None:
    """A map a network: accuracy when the test images are shifted."""
    blocks = []
    for dataset in material.datasets:
        measured = [(group, one) for group in material.of(dataset) if (one := _shifted(group))]
        if not measured:
            continue
        drawn = measured[:MAPS]
        notes = [f"The {MAPS} most accurate of {len(measured)} are drawn."] if len(measured) > MAPS else []
        values = [value for _, one in drawn for line in one.accuracy for value in line]
        domain = (min(values), max(values))
        pictures = [_shift_map(group, one, domain) for group, one in drawn]
        ramp = (percent(domain[0]), percent(domain[1]))
        blocks.append(Block(material.heading(dataset), notes, [], pictures, "many", ramp))
    lead = (
        "Accuracy when every test image is moved by up to four pixels; the middle of a map is no shift. One scale for "
        "all maps of a dataset."
    )
    return Section("shifts", "What a shift does", lead, blocks) if blocks else None


def _shifted(group: Group) -> Robustness | None:
    shown = group.shown.robustness
    return shown or next((run.robustness for run in group.runs if run.robustness), None)


def _shift_map(group: Group, measured: Robustness, domain: tuple[float, float]) -> Picture:
    points: list[Point] = [
        {"name": group.name, "dx": dx, "dy": dy, "value": value, "accuracy": percent(value)}
        for dy, line in zip(measured.shifts, measured.accuracy, strict=True)
        for dx, value in zip(measured.shifts, line, strict=True)
    ]
    figures = f"mean {percent(measured.mean)}, worst {percent(measured.worst)}"
    caption = f"{figures}; seed {measured.seed}, {measured.images:,} images"
    return charts.shift_map(points, domain, shortened(group.name), caption)


def confusions(material: Material, chosen: list[Group]) -> Section | None:
    """Which classes are taken for which, class by class, and the most confident mistakes."""
    blocks = []
    for dataset in material.datasets:
        looked = _looked_at(material, dataset)
        if looked:
            blocks += _confusion_blocks(material, dataset, looked)
            picked = next((group for group in chosen if group.row.dataset == dataset), looked[0][0])
            made = _mistakes(material, picked)
            blocks += [made] if made else []
    lead = (
        "Rows are what an image shows, columns what the network says. Right answers are grey; the stronger the orange, "
        "the larger the share of the class that went there."
    )
    return Section("mistakes", "What they get wrong", lead, blocks) if blocks else None


def _looked_at(material: Material, dataset: str) -> list[tuple[Group, Predictions]]:
    """The most accurate networks whose predictions are there."""
    groups = [group for group in material.of(dataset) if group.shown.predictions.is_file()]
    return [(group, _read(material, group.shown.predictions)) for group in groups[:LOOKED_AT]]


def _read(material: Material, path: Path) -> Predictions:
    if path not in material.read:
        material.read[path] = confidence.read_predictions(path)
    return material.read[path]


def _confusion_blocks(material: Material, dataset: str, looked: list[tuple[Group, Predictions]]) -> list[Block]:
    count = looked[0][1].probabilities.shape[1]
    heading = material.heading(dataset)
    if count > CLASSES:
        return [Block(heading, [f"{count} classes are too many for a matrix; predictions.parquet has every answer."])]
    classes = _class_names(material, looked[0][0], count)
    pictures = [_confusion(group, found, classes) for group, found in looked]
    order = [group.name for group, _ in looked]
    points = [point for group, found in looked for point in _by_class(group, found, classes)]
    caption = "Of each class the share that went wrong, in percent: a column that is coloured for all is a hard class."
    by_class = charts.per_class(points, classes, order, "Mistakes by class", caption)
    known = sum(group.shown.predictions.is_file() for group in material.of(dataset))
    notes = [f"The {len(looked)} most accurate of {known} are looked at."] if known > len(looked) else []
    return [Block(heading, notes, [], pictures), Block("", [], [], [by_class], "wide")]


def _class_names(material: Material, group: Group, count: int) -> list[str]:
    """Names of the classes from a bundle or from the images where either is there, else their numbers."""
    data = group.runs[0].record.data
    named = [each.class_names for each in material.found.bundles if each.data.sha256 == data.sha256]
    images = None if named else _images(material, group)
    names = named[0] if named else images.class_names if images else tuple(map(str, range(count)))
    made = [shortened(name, 14) for name in names]
    return made if len(set(made)) == count else [f"{place} {name}" for place, name in enumerate(made)]


def _confusion(group: Group, found: Predictions, classes: list[str]) -> Picture:
    counts = confidence.confusion(found.labels, found.predictions, classes=len(classes))
    images = counts.sum(axis=1)
    points: list[Point] = [
        {
            "name": group.name,
            "true": classes[true],
            "predicted": classes[predicted],
            "count": int(counts[true, predicted]),
            "share": float(counts[true, predicted] / images[true]),
            "told": percent(counts[true, predicted] / images[true]),
        }
        for true, predicted in zip(*counts.nonzero(), strict=True)
    ]
    wrong = int(counts.sum() - counts.trace())
    caption = (
        f"{wrong:,} of {int(counts.sum()):,} images wrong; seed {group.shown.record.seed}, the best by validation."
    )
    return charts.confusion(points, classes, shortened(group.name), caption)


def _by_class(group: Group, found: Predictions, classes: list[str]) -> list[Point]:
    accuracy = confidence.per_class_accuracy(
        confidence.confusion(found.labels, found.predictions, classes=len(classes))
    )
    return [
        {
            "name": group.name,
            "class": name,
            "share": 1 - float(value),
            "told": f"{100 * (1 - value):.1f}",
            "accuracy": percent(value),
        }
        for name, value in zip(classes, accuracy, strict=True)
        if not np.isnan(value)
    ]


def _mistakes(material: Material, group: Group) -> Block | None:
    """The images that the chosen network got wrong with most confidence."""
    if not group.shown.predictions.is_file():
        return None
    found = _read(material, group.shown.predictions)
    places = confidence.confident_mistakes(found.probabilities, found.labels, count=MISTAKES)
    heading = f"The most confident mistakes of {group.name} {material.heading(group.row.dataset)}".strip()
    if not len(places):
        return Block(heading, ["It makes none on the test images."])
    data = _images(material, group)
    if data is None:
        return Block(
            heading,
            ["Their images are not on this machine: `--root` or `--folder` of `cnnbench report` says where they lie."],
        )
    made = [
        Mistake(
            source=png(data.test.images[place]),
            true=data.class_names[found.labels[place]],
            predicted=data.class_names[found.predictions[place]],
            probability=f"{100 * found.probabilities[place].max():.1f} %",
            index=int(place),
        )
        for place in places
    ]
    note = "What the image shows, what the network says, and how sure it is. Look at them: would you have known?"
    return Block(heading, [note], mistakes=made)


def _images(material: Material, group: Group) -> Dataset | None:
    return material.images(group.runs[0].record.data)


def png(image: np.ndarray) -> str:
    """An image `(H, W, C)` uint8 as a data URI; large ones are made smaller, since ten stand in a row."""
    from PIL import Image

    drawn = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    drawn.thumbnail((160, 160))
    content = io.BytesIO()
    drawn.save(content, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def calibration(material: Material) -> Section | None:
    """Whether confidence can be believed."""
    blocks = []
    for dataset in material.datasets:
        looked = _looked_at(material, dataset)
        points = [point for group, found in looked for point in _bins(material, group, found)]
        if points:
            told = [f"{group.name} {percent(group.row.ece)}" for group, _ in looked if group.row.ece is not None]
            caption = (
                "Images by how sure the network was; on the dashed line it is right as often as it says. Above it, too "
                f"modest; below, too sure. Expected calibration error, mean over seeds: {', '.join(told)}."
            )
            legend = material.legend([group for group, _ in looked])
            drawn = charts.reliability(points, material.palette, "Confidence and accuracy", caption)
            blocks.append(Block(material.heading(dataset), [], legend, [drawn], "two"))
    lead = "A network that says 90 % should be right nine times of ten."
    return Section("calibration", "Whether to believe them", lead, blocks) if blocks else None


def _bins(material: Material, group: Group, found: Predictions) -> list[Point]:
    bins = confidence.reliability(found.probabilities, found.labels)
    return [
        {
            "run": group.name,
            "name": group.name,
            "group": material.palette.groups[group.row.arch],
            "confidence": float(sure),
            "accuracy": float(right),
            "images": int(images),
            "shown": f"{images:,}",
            "told": f"{percent(sure)} sure, {percent(right)} right",
        }
        for sure, right, images in zip(bins.confidence, bins.accuracy, bins.counts, strict=True)
        if images
    ]
