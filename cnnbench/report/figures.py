"""Pictures, as SVG for documents and PNG for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench import records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#3366aa", "#cc5533", "#338855", "#886699", "#aa8822", "#447788", "#994455", "#666666")


def accuracy_against_cost(rows: list[dict[str, Any]], stem: Path, batch: int) -> list[Path]:
    """Two panels of the rows of `compare`: accuracy against MACs and against ONNX Runtime's median latency.

    A disc's area grows with the square root of the parameters; bars are one standard deviation over seeds.

    Returns:
        The files written: `stem` with .svg and .png.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # not pyplot, which keeps every figure open and wants a display

    rows = [row for row in rows if row["accuracy"] is not None]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, rows, "macs", "MACs for one image")
    _panel(right, rows, f"onnxruntime_batch{batch}_p50_ms", f"median latency in ms, ONNX Runtime, batch {batch}")
    left.set_ylabel("test accuracy, %")
    datasets = sorted({row["dataset"] for row in rows})
    figure.suptitle(f"Accuracy against cost on {', '.join(datasets)}  (disc: parameters)", fontsize=12)
    paths = []
    for suffix in (".svg", ".png"):
        target = stem.with_name(stem.name + suffix)
        # the salt makes the same rows give the same bytes
        with records.replacing(target) as partial, rc_context({"svg.hashsalt": "cnnbench"}):
            figure.savefig(partial, dpi=150, metadata={"Date": None} if suffix == ".svg" else None)
        paths.append(target)
    return paths


def _panel(axes: Axes, rows: list[dict[str, Any]], key: str, label: str) -> None:
    """Accuracy against one cost, on a logarithmic axis."""
    points = [row for row in rows if row.get(key)]
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if not points:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color="#666666")
        return
    axes.set_xscale("log")
    lowest, highest = min(row[key] for row in points), max(row[key] for row in points)
    room = max(2, (highest / lowest) ** 0.25)  # for the names beside the outermost discs
    axes.set_xlim(lowest / room, highest * room)
    axes.margins(y=0.2)
    names = sorted({row["arch"] for row in rows})
    for row in points:
        colour = COLOURS[names.index(row["arch"]) % len(COLOURS)]
        spread = 100 * row["accuracy_std"] if row["accuracy_std"] else None
        axes.errorbar(row[key], 100 * row["accuracy"], yerr=spread, color=colour, capsize=3)
        axes.scatter(
            row[key], 100 * row["accuracy"], s=0.5 * row["params"] ** 0.5, color=colour, alpha=0.6, linewidths=0
        )
        label = row["arch"] if len({r["dataset"] for r in rows}) == 1 else row["task"]
        axes.annotate(
            f"{label}\n{row['params']:,} parameters", (row[key], 100 * row["accuracy"]), xytext=(0, 14),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip
