"""Drawings of one network: the receptive fields of its layers, and their parameters and multiply-adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from cnnbench import pictures
from cnnbench.types import ImageSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cnnbench.analysis.description import LayerDescription, NetworkDescription
    from cnnbench.analysis.layer import Sides

SQUARES = 6
"""Receptive fields that can be told apart on one image."""

COLOURS = {
    "convolution": pictures.COLOURS[0],
    "linear": pictures.COLOURS[1],
    "matrix product": pictures.COLOURS[3],
}


class Step(NamedTuple):
    """A layer whose units see a part of the image."""

    place: int
    """In the order of execution, from 1."""
    kind: str
    field: Sides
    """Rows and columns, by formula."""
    measured: Sides | None


def receptive_fields(description: NetworkDescription) -> Figure:
    """The field of one unit in the middle, from the first layer to the last that does not join all positions."""
    figure, (axes, growth) = pictures.new(11.5, 5.2, panels=2)
    figure.suptitle("The receptive field grows with depth")
    steps = _steps(description)
    _fields_over_image(axes, description.spec, _growing(steps))
    _growth(growth, description, steps)
    return figure


def _steps(description: NetworkDescription) -> list[Step]:
    from cnnbench.analysis.layer import pixels_of

    return [
        Step(place, described.layer.kind, field, pixels_of(described.measured_field))
        for place, described in enumerate(description.layers, 1)
        if (field := pixels_of(described.layer.field))
    ]


def _growing(steps: list[Step]) -> list[Step]:
    """Up to `SQUARES` of the layers that see more than the one before, evenly chosen, the first and last included."""
    growing = [step for before, step in zip([None, *steps], steps, strict=False) if not before or _larger(step, before)]
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
        label = f"layer {step.place}, {step.kind}: {rows}x{columns}"
        axes.add_patch(Rectangle(corner, columns, rows, fill=False, edgecolor=colour, linewidth=2, label=label))
    largest = max([spec.height, spec.width, *(max(step.field) for step in steps)])
    # half of what is shown; beyond twice the image nothing more can be seen
    reach = min(largest, 2 * max(spec.height, spec.width)) * 1.06 / 2
    axes.set_xlim(spec.width / 2 - reach, spec.width / 2 + reach)
    axes.set_ylim(spec.height / 2 + reach, spec.height / 2 - reach)
    axes.set_xlabel("pixels")
    if steps:
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)


def _growth(axes: Axes, description: NetworkDescription, steps: list[Step]) -> None:
    """Height of the field against the place in the network, by formula and as measured."""
    axes.set_xlabel("layer")
    axes.set_ylabel("receptive field, pixels high")
    if not steps:
        axes.text(0.5, 0.5, "every unit sees the whole image", ha="center", transform=axes.transAxes)
        return
    axes.plot(
        [step.place for step in steps],
        [step.field[0] for step in steps],
        color=pictures.COLOURS[0],
        label="by formula",
    )
    measured = [(step.place, step.measured[0]) for step in steps if step.measured]
    if measured:
        axes.plot(*zip(*measured, strict=True), "o", ms=4, color=pictures.COLOURS[1], label="measured by gradient")
    height, layers = description.spec.height, description.layers
    axes.axhline(height, color="#666666", linestyle="--", linewidth=1, label=f"the image: {height}")
    joining = next((place for place, described in enumerate(layers, 1) if described.layer.field == "image"), None)
    if joining:
        axes.axvline(joining, color="#666666", linestyle=":", linewidth=1, label="from here on: the whole image")
    axes.set_xlim(0.5, len(layers) + 0.5)
    axes.legend(fontsize=8)


def _example(spec: ImageSpec) -> np.ndarray:
    """A generated image `(H, W, 3)` uint8 of the size of `spec`."""
    from PIL import Image

    from cnnbench.datasets.shapes import draw

    pixels = draw(1, np.random.RandomState(4)).images[0]
    image = Image.fromarray(pixels).resize((spec.width, spec.height), Image.Resampling.NEAREST)
    return np.asarray(image.getchannel("G").convert("RGB") if spec.channels == 1 else image)


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
    _layer_axis(axes, len(description.layers))
    if figure_of == "params":
        _fully_connected(axes, bars)
    else:
        from matplotlib.ticker import EngFormatter

        axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.legend(fontsize=8)
    return figure


def _layer_axis(axes: Axes, count: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("layer")
    axes.set_xlim(0.4, count + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _fully_connected(axes: Axes, bars: list[tuple[int, LayerDescription]]) -> None:
    """A mark per layer at the weights of a fully connected layer in its place, on a logarithmic axis."""
    axes.set_yscale("log")
    marks = [(place, weights) for place, described in bars if (weights := described.layer.fully_connected)]
    if marks:
        axes.plot(*zip(*marks, strict=True), "_", ms=8, color="#000000", label="a fully connected layer's")
