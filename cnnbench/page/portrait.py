"""Drawings of one network: the receptive fields of its layers, and their parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from cnnbench import pictures
from cnnbench.types import ImageSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cnnbench.analysis.description import LayerDescription, NetworkDescription
    from cnnbench.analysis.layer import Sides

DIGIT = 0
"""Place of a test image of mnist5k."""
REACH = 3
"""Fields of more than so many times the image are not drawn over it: the image could not be seen."""
SQUARES = 6
"""Receptive fields that can be told apart on one image."""

MOST_NAMED = 16
"""Layers whose names fit below the bars of a wide chart."""

COLOURS = {
    "convolution": pictures.COLOURS[0],
    "linear": pictures.COLOURS[1],
    "matrix product": pictures.COLOURS[3],
}


class Step(NamedTuple):
    """A layer whose units see a part of the image."""

    place: int
    """In the order of execution, from 1."""
    name: str
    field: Sides
    """Rows and columns, by formula."""
    measured: Sides | None


def receptive_fields(description: NetworkDescription) -> Figure:
    """The field of one unit in the middle, from the first layer to the last that does not join all positions."""
    figure, (axes, growth) = pictures.new(11.5, 5.2, panels=2)
    figure.suptitle("The receptive field grows with depth")
    steps = _steps(description)
    reach = REACH * max(description.spec.height, description.spec.width)
    shown = [step for step in steps if max(step.field) <= reach]
    _fields_over_image(axes, description.spec, _growing(shown))
    if len(shown) < len(steps):
        largest = max(steps, key=lambda step: max(step.field))
        axes.set_title(f"larger than shown, up to {_size(largest)}: {len(steps) - len(shown)} layers", fontsize=9)
    _growth(growth, description, steps)
    return figure


def _size(step: Step) -> str:
    return f"{step.field[0]}x{step.field[1]}"


def _steps(description: NetworkDescription) -> list[Step]:
    from cnnbench.analysis.layer import pixels_of

    return [
        Step(place, described.label, field, pixels_of(described.measured_field))
        for place, described in enumerate(description.layers, 1)
        if (field := pixels_of(described.layer.field))
    ]


def _growing(steps: list[Step]) -> list[Step]:
    """Up to `SQUARES` of the layers that see more than any before, evenly chosen, the first and last included."""
    growing: list[Step] = []
    for step in steps:
        if not growing or _larger(step, growing[-1]):
            growing.append(step)
    if not growing:
        return []
    return [growing[i] for i in np.unique(np.linspace(0, len(growing) - 1, SQUARES).round().astype(int))]


def _larger(step: Step, before: Step) -> bool:
    return max(step.field) > max(before.field)


def _fields_over_image(axes: Axes, spec: ImageSpec, steps: list[Step]) -> None:
    """Fields as squares around the middle of an example image."""
    from matplotlib.patches import Rectangle

    axes.grid(visible=False)
    axes.imshow(_example(spec), extent=(0, spec.width, spec.height, 0))
    for colour, step in zip(pictures.COLOURS, steps, strict=False):
        rows, columns = step.field
        corner = ((spec.width - columns) / 2, (spec.height - rows) / 2)
        label = f"{step.name}: {_size(step)}"
        axes.add_patch(Rectangle(corner, columns, rows, fill=False, edgecolor=colour, linewidth=2, label=label))
    reach = max([spec.height, spec.width, *(max(step.field) for step in steps)]) * 1.06 / 2  # half of what is shown
    axes.set_xlim(spec.width / 2 - reach, spec.width / 2 + reach)
    axes.set_ylim(spec.height / 2 + reach, spec.height / 2 - reach)
    axes.set_xlabel("pixels")
    if steps:
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)


def _growth(axes: Axes, description: NetworkDescription, steps: list[Step]) -> None:
    """Height of the field against the place in the network, by formula and as measured."""
    axes.set_ylabel("receptive field, pixels high")
    if not steps:
        axes.text(0.5, 0.5, "every unit sees the whole image", ha="center", transform=axes.transAxes)
        return
    path = _longest(steps)
    axes.plot(
        [step.place for step in path], [step.field[0] for step in path], color=pictures.COLOURS[0], label="by formula"
    )
    beside = [(step.place, step.field[0]) for step in steps if step not in path]
    if beside:
        axes.plot(*zip(*beside, strict=True), "x", ms=4, color="#666666", label="on a shorter path beside it")
    measured = [(step.place, step.measured[0]) for step in steps if step.measured]
    if measured:
        axes.plot(*zip(*measured, strict=True), "o", ms=4, color=pictures.COLOURS[1], label="measured by gradient")
    height, layers = description.spec.height, description.layers
    axes.axhline(height, color="#666666", linestyle="--", linewidth=1, label=f"the image: {height}")
    joining = next((place for place, described in enumerate(layers, 1) if described.layer.field == "image"), None)
    if joining:
        axes.axvline(joining, color="#666666", linestyle=":", linewidth=1, label="from here on: the whole image")
    _layer_axis(axes, [described.label for described in layers], most=MOST_NAMED // 2)
    axes.legend(fontsize=8)


def _longest(steps: Sequence[Step]) -> list[Step]:
    """Those whose field is not smaller than any before: without shortcuts and the short branches of a block."""
    found: list[Step] = []
    for step in steps:
        if not found or step.field[0] >= found[-1].field[0]:
            found.append(step)
    return found


def _example(spec: ImageSpec) -> np.ndarray:
    """A real image `(H, W, 3)` uint8 of the size of `spec`: a handwritten digit, in colour a photograph.

    The photograph is matplotlib's (Grace Hopper, by the United States Navy, in the public domain).
    """
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    if spec.channels == 1:
        from cnnbench.datasets.choice import open_choice
        from cnnbench.records.schema import DataChoice

        image = Image.fromarray(open_choice(DataChoice(dataset="mnist5k")).test.images[DIGIT][..., 0])
    else:
        image = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
        image = image.crop((0, 0, image.width, image.width))
    return np.asarray(image.convert("RGB").resize((spec.width, spec.height), Image.Resampling.BILINEAR))


def by_layer(description: NetworkDescription, figure_of: Literal["params", "macs"]) -> Figure:
    """One bar per layer, coloured by kind; parameters with what a fully connected layer would need."""
    figure, (axes,) = pictures.new(11.5, 4.2)
    bars = [
        (place, described)
        for place, described in enumerate(description.layers, 1)
        if getattr(described.layer, figure_of)
    ]
    for kind in dict.fromkeys(described.layer.kind for _, described in bars):
        heights = [
            (place, getattr(described.layer, figure_of)) for place, described in bars if described.layer.kind == kind
        ]
        axes.bar(*zip(*heights, strict=True), color=COLOURS.get(kind, pictures.COLOURS[2]), label=kind)
    label = {"params": "parameters", "macs": "MACs"}[figure_of]
    axes.set_title(f"{label} by layer: {getattr(description.cost, figure_of):,} in all")
    axes.set_ylabel(label)
    _layer_axis(axes, [described.label for described in description.layers])
    if figure_of == "params":
        _fully_connected(axes, bars)
    else:
        from matplotlib.ticker import EngFormatter

        axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)  # beside the bars
    return figure


def _layer_axis(axes: Axes, labels: Sequence[str], *, most: int = MOST_NAMED) -> None:
    """Layers by name, where there are at most so many, else by number."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("layer")
    axes.set_xlim(0.4, len(labels) + 0.6)
    if len(labels) <= most:
        axes.set_xticks(range(1, len(labels) + 1), labels)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _fully_connected(axes: Axes, bars: list[tuple[int, LayerDescription]]) -> None:
    """A mark per layer at the weights of a fully connected layer in its place, on a logarithmic axis."""
    axes.set_yscale("log")
    marks = [(place, weights) for place, described in bars if (weights := described.layer.fully_connected)]
    if marks:
        axes.plot(*zip(*marks, strict=True), "_", ms=8, color="#000000", label="a fully connected layer's")
