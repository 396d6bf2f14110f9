"""`choose`: which network to ship under some limits, and why the others were not chosen."""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from math import inf
from typing import Any, Literal

from cnnbench.tables.gather import Case, cases, gather, latency_key, nothing, rows
from cnnbench.types import CnnbenchError, Exit

By = Literal["macs", "latency", "bytes", "params"]
BENCH = "cnnbench bench; a p90 needs 64 calls"


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
        mine, theirs = show(self.key, found), show(self.key, self.value)
        if mine == theirs:  # 0.97996 is below 0.98, though both are 98.00 %
            mine, theirs = f"{found:.8g}", f"{self.value:.8g}"
        return f"{self.name} {mine} is {'below' if self.least else 'above'} {theirs}"


def choose(
    paths: list[str],
    min_accuracy: float | None = None,
    max_latency_ms: float | None = None,
    max_bytes: int | None = None,
    max_macs: int | None = None,
    max_params: int | None = None,
    by: By = "macs",
    dataset: str | None = None,
    runtime: str = "onnxruntime",
    threads: int = 1,
    json: bool = False,
) -> int:
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
    for name, value in (
        ("latency_ms", max_latency_ms),
        ("bytes", max_bytes),
        ("macs", max_macs),
        ("params", max_params),
    ):
        if value is not None and not value > 0:
            raise CnnbenchError(f"--max_{name} {value:g}: expected more than 0")
    found = gather(paths)
    made = _of_one_dataset(rows(found), dataset)
    if not made:
        raise CnnbenchError(nothing(paths), Exit.DATA)
    counts = max_latency_ms is not None or by == "latency"
    latency = _latency(cases(found) if counts else [], runtime, threads)
    asked = _limits(min_accuracy, max_latency_ms, max_bytes, max_macs, max_params, latency)
    cost = {"macs": "macs", "latency": latency, "bytes": "model_bytes", "params": "params"}[by]
    measure = {"macs": "cnnbench fit", "params": "cnnbench fit", "model_bytes": "cnnbench export"}.get(cost, BENCH)
    limits = [*asked, Limit(cost, _name(cost), inf, False, measure)]  # the least of it needs it measured
    fitting = [row for row in made if not _misses(row, limits)]
    chosen = min(fitting, key=lambda row: _order(row, cost)) if fitting else None
    others = [(row, _why(row, chosen, limits, cost)) for row in made if row is not chosen]
    if json:
        lost = [{**row, "lost_by": why} for row, why in others]
        print(dumps({"chosen": chosen, "others": lost}, indent=2))
        return Exit.OK
    kept = ", ".join(f"{limit.name} {'>=' if limit.least else '<='} {show(limit.key, limit.value)}" for limit in asked)
    print(_answer(chosen, cost, latency, kept or "no limits"))
    for row, why in sorted(others, key=lambda pair: bool(_misses(pair[0], limits))):
        print(f"  {row['task']}: {why}")
    return Exit.OK


def _of_one_dataset(made: list[dict[str, Any]], dataset: str | None) -> list[dict[str, Any]]:
    names = sorted({row["dataset"] for row in made})
    if dataset is None and len(names) > 1:
        raise CnnbenchError(f"there are runs on {', '.join(names)}: name one with --dataset")
    if names and dataset is not None and dataset not in names:
        raise CnnbenchError(f"no runs on {dataset!r}; there are {', '.join(names)}")
    kept = [row for row in made if dataset is None or row["dataset"] == dataset]
    most = max((row["train_images"] or 0 for row in kept), default=0)
    return [row for row in kept if row["train_images"] in (None, most)]  # fewer images are another question


def _latency(measured: list[Case], runtime: str, threads: int) -> str:
    """The key of the latency that counts; where nothing was measured, of what would have been."""
    known = [case for case in measured if case[1] == 1]
    if known and (runtime, 1, threads) not in known:
        there = ", ".join(f"{case[0]} with {case[2]} thread(s)" for case in known)
        raise CnnbenchError(f"no latency of {runtime} with {threads} thread(s) and one image; measured: {there}")
    return latency_key((runtime, 1, threads), 90)


def _limits(
    accuracy: float | None,
    latency_ms: float | None,
    size: int | None,
    macs: int | None,
    params: int | None,
    latency: str,
) -> list[Limit]:
    given = [
        Limit("accuracy", "accuracy", accuracy or 0, True, "cnnbench test") if accuracy is not None else None,
        Limit(latency, "p90 latency", latency_ms, False, BENCH) if latency_ms is not None else None,
        Limit("model_bytes", "ONNX bytes", size, False, "cnnbench export") if size is not None else None,
        Limit("macs", "MACs", macs, False, "cnnbench fit") if macs is not None else None,
        Limit("params", "parameters", params, False, "cnnbench fit") if params is not None else None,
    ]
    return [limit for limit in given if limit]


def _misses(row: dict[str, Any], limits: list[Limit]) -> list[str]:
    if row["accuracy"] is None:
        return row["failures"] or ["it has no tested run (cnnbench test)"]
    return [miss for miss in dict.fromkeys(limit.miss(row) for limit in limits) if miss]


def _order(row: dict[str, Any], cost: str) -> tuple[float, float, str]:
    """Cheap first; of equals the more accurate; of these the first by name."""
    return (row[cost], -row["accuracy"], row["task"])


def _why(row: dict[str, Any], chosen: dict[str, Any] | None, limits: list[Limit], cost: str) -> str:
    """What a row lost by."""
    missed = _misses(row, limits)
    if missed:
        return "; ".join(missed)
    assert chosen is not None
    mine = f"keeps the limits with {show('accuracy', row['accuracy'])}"
    if row[cost] == chosen[cost]:
        less = "but is less accurate" if row["accuracy"] < chosen["accuracy"] else "and is as accurate"
        return f"{mine} at the same {_name(cost)}, {less}"
    verb = "is" if cost.endswith("_ms") else "are"
    ratio = f"{row[cost] / chosen[cost]:.2f} times as much"
    return f"{mine}, but its {_name(cost)} {verb} {show(cost, row[cost])}, {ratio}"


def _answer(chosen: dict[str, Any] | None, cost: str, latency: str, asked: str) -> str:
    if chosen is None:
        measured = "" if cost in ("macs", "params") else f" and has its {_name(cost)} measured"
        return f"none: no network keeps {asked}{measured}"
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
    return {"macs": "MACs", "model_bytes": "ONNX bytes", "params": "parameters"}.get(key, "p90 latency")


def show(key: str, value: float) -> str:
    """A figure with its unit."""
    if key == "accuracy":
        return f"{100 * value:.2f} %"
    return f"{value:.3g} ms" if key.endswith("_ms") else f"{value:,}"
