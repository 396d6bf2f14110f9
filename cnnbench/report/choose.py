"""`choose`: which network to ship under some limits, and why the others were not chosen."""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from typing import Any, Literal

from cnnbench.report.results import Case, cases, gather, latency_key, rows
from cnnbench.types import CnnbenchError, Exit

By = Literal["macs", "latency", "bytes", "params"]


@dataclass(frozen=True)
class Limit:
    """A figure that a row has to keep: at least or at most a value."""

    key: str
    name: str
    value: float
    least: bool
    measure: str
    """The command that measures the figure where it is missing."""

    def miss(self, row: dict[str, Any]) -> str:
        """Why a row does not keep it; empty where it does."""
        found = row.get(self.key)
        if found is None:
            return f"{self.name} not measured ({self.measure})"
        if found >= self.value if self.least else found <= self.value:
            return ""
        return (
            f"{self.name} {show(self.key, found)} is {'below' if self.least else 'above'} {show(self.key, self.value)}"
        )


def choose(
    paths: list[str], min_accuracy: float | None = None, max_latency_ms: float | None = None,
    max_bytes: int | None = None, max_macs: int | None = None, max_params: int | None = None, by: By = "macs",
    dataset: str | None = None, runtime: str = "onnxruntime", threads: int = 1, json: bool = False,
) -> int:  # fmt: skip
    """Name the cheapest network that keeps every limit, then the others, each with what it lost by.

    Args:
        paths: Folders of runs and bundles, and latency files of `bench`.
        min_accuracy: Mean test accuracy over seeds, a fraction such as 0.99.
        max_latency_ms: 90th percentile of one call with one image.
        max_bytes: Of the ONNX file.
        max_macs: Multiply-adds for one image.
        max_params: Parameters.
        by: What cheap means among those that keep the limits: macs, latency, bytes or params.
        dataset: Which one, where there are several.
        runtime: Whose latency counts: onnxruntime, torch or torch-compile.
        threads: Of the latency that counts.
        json: Print one JSON document.
    """
    if min_accuracy is not None and not 0 <= min_accuracy <= 1:
        raise CnnbenchError(f"--min_accuracy {min_accuracy:g}: expected a fraction such as 0.99")
    found = gather(paths)
    made = _of_one_dataset(rows(found), dataset)
    latency = _latency(cases(found), runtime, threads)
    limits = _limits(min_accuracy, max_latency_ms, max_bytes, max_macs, max_params, latency)
    cost = {"macs": "macs", "latency": latency, "bytes": "model_bytes", "params": "params"}[by]
    fitting = sorted((row for row in made if not _misses(row, limits)), key=lambda row: _order(row, cost))
    fitting = [row for row in fitting if row.get(cost) is not None]
    chosen = fitting[0] if fitting else None
    others = [(row, _why(row, chosen, limits, cost)) for row in made if row is not chosen]
    if json:
        lost = [{**row, "lost_by": why} for row, why in others]
        print(dumps({"chosen": chosen, "others": lost}, indent=2))
        return Exit.OK
    asked = ", ".join(
        f"{limit.name} {'>=' if limit.least else '<='} {show(limit.key, limit.value)}" for limit in limits
    )
    print(_answer(chosen, cost, latency, asked or "no limits"))
    for row, why in sorted(others, key=lambda pair: bool(_misses(pair[0], limits))):
        print(f"  {row['task']}: {why}")
    return Exit.OK


def _of_one_dataset(made: list[dict[str, Any]], dataset: str | None) -> list[dict[str, Any]]:
    names = sorted({row["dataset"] for row in made})
    if dataset is None and len(names) > 1:
        raise CnnbenchError(f"there are runs on {', '.join(names)}: name one with --dataset")
    if dataset is not None and dataset not in names:
        raise CnnbenchError(f"no runs on {dataset!r}; there are {', '.join(names) or 'none'}")
    return [row for row in made if dataset is None or row["dataset"] == dataset]


def _latency(measured: list[Case], runtime: str, threads: int) -> str:
    """The key of the latency that counts; where nothing was measured, of what would have been."""
    known = [case for case in measured if case[1] == 1]
    if known and (runtime, 1, threads) not in known:
        there = ", ".join(f"{case[0]} with {case[2]} thread(s)" for case in known)
        raise CnnbenchError(f"no latency of {runtime} with {threads} thread(s) and one image; measured: {there}")
    return latency_key((runtime, 1, threads), 90)


def _limits(
    accuracy: float | None, latency_ms: float | None, size: int | None, macs: int | None, params: int | None,
    latency: str,
) -> list[Limit]:  # fmt: skip
    given = [
        Limit("accuracy", "accuracy", accuracy or 0, True, "cnnbench test") if accuracy is not None else None,
        Limit(latency, "p90 latency", latency_ms, False, "cnnbench bench") if latency_ms is not None else None,
        Limit("model_bytes", "ONNX file", size, False, "cnnbench export") if size is not None else None,
        Limit("macs", "MACs", macs, False, "cnnbench fit") if macs is not None else None,
        Limit("params", "parameters", params, False, "cnnbench fit") if params is not None else None,
    ]
    return [limit for limit in given if limit]


def _misses(row: dict[str, Any], limits: list[Limit]) -> list[str]:
    missed = [limit.miss(row) for limit in limits]
    return [miss for miss in missed if miss] + ([] if row["accuracy"] is not None else ["it has no tested run"])


def _order(row: dict[str, Any], cost: str) -> tuple[float, float]:
    """Cheap first; of equals the more accurate."""
    return (float("inf") if row.get(cost) is None else row[cost], -row["accuracy"])


def _why(row: dict[str, Any], chosen: dict[str, Any] | None, limits: list[Limit], cost: str) -> str:
    """What a row lost by."""
    missed = _misses(row, limits)
    if missed:
        return "; ".join(missed)
    if row.get(cost) is None:
        return f"keeps the limits, but its {_name(cost)} was not measured"
    assert chosen is not None
    mine = f"keeps the limits with {show('accuracy', row['accuracy'])}"
    if row[cost] == chosen[cost]:
        return f"{mine} at the same {_name(cost)}, but is less accurate"
    return f"{mine}, but its {_name(cost)} are {show(cost, row[cost])}, {row[cost] / chosen[cost]:.2f} times as much"


def _answer(chosen: dict[str, Any] | None, cost: str, latency: str, asked: str) -> str:
    if chosen is None:
        return f"none: no network keeps {asked}"
    low, high, seeds = chosen["accuracy_low"], chosen["accuracy_high"], chosen["seeds"]
    sure = (
        f"95 % interval {show('accuracy', low)} to {show('accuracy', high)}, {seeds} seeds"
        if low is not None
        else "one seed"
    )
    figures = [f"{_name(key)} {show(key, chosen[key])}" for key in ("macs", "model_bytes", latency) if chosen.get(key)]
    return (
        f"{chosen['task']}: the least {_name(cost)} for {asked}; "
        f"accuracy {show('accuracy', chosen['accuracy'])} ({sure}), {', '.join(figures)}"
    )


def _name(key: str) -> str:
    return {"macs": "MACs", "model_bytes": "bytes", "params": "parameters"}.get(key, "p90 latency")


def show(key: str, value: float) -> str:
    """A figure with its unit."""
    if key == "accuracy":
        return f"{100 * value:.2f} %"
    return f"{value:.3g} ms" if key.endswith("_ms") else f"{value:,}"
