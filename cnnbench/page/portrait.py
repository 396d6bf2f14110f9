"""Pictures of one network: what its layers see, and what they weigh and cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cnnbench import pictures
from cnnbench.types import ImageSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SQUARES = 6
"""As many receptive fields as can be told apart on one image."""

COLOURS = {
    "convolution": pictures.COLOURS[0],
    "linear": pictures.COLOURS[1],
    "matrix product": pictures.COLOURS[3],
}


def receptive_fields(layers: list[dict[str, Any]], spec: ImageSpec) -> Figure:
    """The field of one unit in the middle, from the first layer to the last that does not join all positions."""
    from matplotlib.patches import Rectangle

    figure, (axes, growth) = pictures.new(11.5, 5.2, panels=2)
    figure.suptitle("What one unit sees: the receptive field grows with depth")
    axes.grid(visible=False)
    axes.imshow(_example(spec), extent=(0, spec.width, spec.height, 0))
    steps = [
        (place, layer) for place, layer in enumerate(layers, 1) if isinstance(layer["receptive_field"], list | tuple)
    ]
    growing = [step for before, step in zip([None, *steps], steps, strict=False) if _grows(before, step)]
    chosen = (
        [growing[i] for i in np.unique(np.linspace(0, len(growing) - 1, SQUARES).round().astype(int))]
        if growing
        else []
    )
    for colour, (place, layer) in zip(pictures.COLOURS, chosen, strict=False):
        rows, columns = layer["receptive_field"]
        corner = ((spec.width - columns) / 2, (spec.height - rows) / 2)
        label = f"layer {place}, {layer['kind']}: {rows}x{columns}"
        axes.add_patch(Rectangle(corner, columns, rows, fill=False, edgecolor=colour, linewidth=2, label=label))
    largest = max([spec.height, spec.width, *(max(layer["receptive_field"]) for _, layer in chosen)])
    reach = min(largest, 2 * max(spec.height, spec.width)) * 1.06 / 2  # beyond twice the image there is nothing to see
    axes.set_xlim(spec.width / 2 - reach, spec.width / 2 + reach)
    axes.set_ylim(spec.height / 2 + reach, spec.height / 2 - reach)
    axes.set_xlabel("pixels")
    if chosen:
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)
    _growth(growth, steps, layers, spec)
    return figure


def _grows(before: Any, step: Any) -> bool:
    return before is None or max(step[1]["receptive_field"]) > max(before[1]["receptive_field"])


def _growth(axes: Any, steps: list[Any], layers: list[dict[str, Any]], spec: ImageSpec) -> None:
    """Field against place in the network, by formula and as measured."""
    axes.set_xlabel("layer")
    axes.set_ylabel("receptive field, pixels high")
    if not steps:
        axes.text(0.5, 0.5, "every unit sees the whole image", ha="center", transform=axes.transAxes)
        return
    places = [place for place, _ in steps]
    axes.plot(
        places, [layer["receptive_field"][0] for _, layer in steps], color=pictures.COLOURS[0], label="by formula"
    )
    measured = [(p, layer["receptive_field_measured"]) for p, layer in steps]
    found = [(place, field[0]) for place, field in measured if isinstance(field, list | tuple)]
    if found:
        axes.plot(*zip(*found, strict=True), "o", ms=4, color=pictures.COLOURS[1], label="measured by gradient")
    axes.axhline(spec.height, color="#666666", linestyle="--", linewidth=1, label=f"the image: {spec.height}")
    whole = next((place for place, layer in enumerate(layers, 1) if layer["receptive_field"] == "image"), None)
    if whole:
        axes.axvline(whole, color="#666666", linestyle=":", linewidth=1, label="from here on: the whole image")
    axes.set_xlim(0.5, len(layers) + 0.5)
    axes.legend(fontsize=8)


def _example(spec: ImageSpec) -> np.ndarray:
    """A generated image, brought to the size of `spec`."""
    from PIL import Image

    from cnnbench.datasets.shapes import draw

    pixels = draw(1, np.random.RandomState(4)).images[0]
    image = Image.fromarray(pixels).resize((spec.width, spec.height), Image.Resampling.NEAREST)
    return np.asarray(image.getchannel("G").convert("RGB") if spec.channels == 1 else image)


def by_layer(layers: list[dict[str, Any]], key: str, label: str, total: int) -> Figure:
    """A bar a layer, coloured by kind; parameters come with what a fully connected layer would need."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure, (axes,) = pictures.new(11.5, 4.2)
    weighted = [(place, layer) for place, layer in enumerate(layers, 1) if layer[key]]
    places = [place for place, _ in weighted]
    kinds = [layer["kind"] for _, layer in weighted]
    for kind in dict.fromkeys(kinds):
        chosen = [(place, layer[key]) for place, layer in weighted if layer["kind"] == kind]
        axes.bar(*zip(*chosen, strict=True), color=COLOURS.get(kind, pictures.COLOURS[2]), label=kind)
    if key == "params":
        axes.set_yscale("log")
        needed = [layer["fully_connected_weights"] for _, layer in weighted]
        pairs = [(place, weights) for place, weights in zip(places, needed, strict=True) if weights]
        if pairs:
            axes.plot(*zip(*pairs, strict=True), "_", ms=8, color="#000000", label="a fully connected layer's")
    else:
        axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set_title(f"{label} by layer: {total:,} in all")
    axes.set_xlabel("layer")
    axes.set_ylabel(label)
    axes.set_xlim(0.4, len(layers) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8)
    return figure
