"""The answer at the head of the page: of each dataset, the cheapest network that is accurate enough, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnbench.page.charts import percent, short
from cnnbench.tables.gather import Case, Run, latency_key
from cnnbench.types import CnnbenchError

Row = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, their figures, and what the page calls them."""

    name: str
    runs: list[Run]
    row: Row

    @property
    def shown(self) -> Run:
        """The run whose predictions are looked at: a choice among seeds is by validation accuracy."""
        tested = [run for run in self.runs if run.record.test]
        return max(tested or self.runs, key=lambda run: run.record.fit.val_accuracy)


@dataclass(frozen=True)
class Answer:
    """What the page says of one dataset."""

    dataset: str
    question: str
    name: str
    sentences: list[str]
    figures: list[tuple[str, str]] = field(default_factory=list)
    """(figure, what it is)."""
    chosen: Group | None = None


def answer(dataset: str, groups: Sequence[Group], target: float | None, measured: Sequence[Case]) -> Answer:
    """The answer for one dataset.

    Args:
        dataset: Its name.
        groups: Those that compare: trained on equally many images of it.
        target: Mean test accuracy that is enough; by default the best one, rounded down.
        measured: What latencies were measured on.
    """
    tested = [group for group in groups if group.row["accuracy"] is not None]
    if not tested:
        return Answer(dataset, f"On {dataset}", "not tested", ["No run was tested; `cnnbench test` scores them."])
    best = max(tested, key=lambda group: (group.row["accuracy"], -group.row["macs"]))
    # one lucky seed sets no standard where others were trained several times
    several = [group.row["accuracy"] for group in tested if group.row["seeds"] > 1]
    enough = within_reach(max(several, default=best.row["accuracy"])) if target is None else target
    fitting = [group for group in tested if group.row["accuracy"] >= enough]
    if not fitting:
        said = [f"No network reaches {_short_percent(enough)} on {dataset}; the most accurate is {_described(best)}."]
        return Answer(dataset, f"For {_short_percent(enough)} on {dataset}", "none", said, [], best)
    chosen = min(fitting, key=lambda group: (group.row["macs"], -group.row["accuracy"]))
    if len(tested) == 1:
        said = [f"{_described(chosen)}. It is the only network that was tested here: there is nothing to compare."]
        return Answer(dataset, f"On {dataset}", chosen.name, said, _figures(chosen, measured), chosen)
    next_best = max((group for group in tested if group is not best), key=lambda group: group.row["accuracy"])
    said = [_first(chosen, enough), *_against_best(chosen, best, next_best), *_others(chosen, fitting, measured)]
    question = f"For {_short_percent(enough)} on {dataset}, the cheapest is"
    return Answer(dataset, question, chosen.name, said, _figures(chosen, measured), chosen)


def within_reach(best: float) -> float:
    """The best accuracy, rounded down to a step no larger than the error left: 0.9924 to 0.99, 0.976 to 0.97."""
    left = 100 * (1 - best)
    step = next((step for step in (5.0, 1.0, 0.5, 0.1, 0.05) if step <= left and (step < 5 or left >= 20)), 0.01)
    steps = int(100 * best / step + 1e-9)  # 99.5 is not 99.4999
    return min(round(steps * step / 100, 6), best)


def _short_percent(value: float) -> str:
    digits = f"{100 * value:.4f}".rstrip("0")
    return f"{digits}0 %" if digits.endswith(".") else f"{digits} %"


def interval(row: Row) -> str:
    """The interval of a row's accuracy in words, or why there is none."""
    if row["accuracy_low"] is None:
        return "one seed, so no interval"
    low, high = 100 * row["accuracy_low"], 100 * row["accuracy_high"]
    return f"95 % interval {low:.2f} to {high:.2f}, {row['seeds']} seeds"


def _described(group: Group) -> str:
    row = group.row
    return f"{group.name} with {percent(row['accuracy'])} ({interval(row)}) and {short(row['macs'])} MACs"


def _first(chosen: Group, enough: float) -> str:
    row = chosen.row
    said = (
        f"{chosen.name} reaches {percent(row['accuracy'])} ({interval(row)}) with {short(row['macs'])} MACs an image."
    )
    if row["accuracy_low"] is not None and row["accuracy_low"] < enough:
        said += f" Its interval begins below {_short_percent(enough)}, so other seeds may miss it."
    return said


def _against_best(chosen: Group, best: Group, next_best: Group) -> list[str]:
    """What the most accurate other network costs in comparison, and whether a difference is shown at all."""
    other = next_best if chosen is best else best
    reached = f"{other.name}, reaches {percent(other.row['accuracy'])} ({interval(other.row)})"
    needs = f"needs {_times(other.row['macs'] / chosen.row['macs'])} MACs."
    if chosen is best:
        said = ["It is also the most accurate one.", f"The next, {reached} and {needs}"]
    else:
        said = [f"The most accurate, {reached} and {needs}"]
    return [*said, *_verdict(best, next_best if chosen is best else chosen)]


def _times(ratio: float) -> str:
    if 0.95 <= ratio < 1.05:
        return "as many"
    return f"{ratio:.2g} times as many" if ratio < 10 else f"{ratio:.0f} times as many"


def _verdict(best: Group, chosen: Group) -> list[str]:
    """The paired comparison in one sentence, where the predictions of both are there."""
    from cnnbench.tables.pair import measured

    try:
        _, difference = measured(best.runs, chosen.runs)
    except CnnbenchError:  # without predictions the page has less to say, and says nothing
        return []
    said: str = difference.sentence(best.name, chosen.name)
    return [f"{said[0].upper()}{said[1:]}." if said.startswith("no ") else f"{said}."]


def _others(chosen: Group, fitting: Sequence[Group], measured: Sequence[Case]) -> list[str]:
    """Who is smaller or faster among those that are accurate enough, where it is another one."""
    said = []
    smallest = min(fitting, key=lambda group: (group.row["params"], -group.row["accuracy"]))
    if smallest.row["params"] < chosen.row["params"]:
        said.append(f"The smallest is {smallest.name} with {short(smallest.row['params'])} parameters.")
    key = fastest_key(measured)
    if key is None:
        return said
    timed = [(group.row[key], group.name, group) for group in fitting if group.row.get(key) is not None]
    if timed and min(timed)[2] is not chosen:
        milliseconds, name, _ = min(timed)
        said.append(f"The fastest that was timed is {name} with {milliseconds:.3g} ms an image.")
    return said


def fastest_key(measured: Sequence[Case]) -> str | None:
    """Key of the latency by which networks are called fast: the median of one image, in ONNX Runtime if measured."""
    single = sorted((case for case in measured if case[1] == 1), key=lambda case: (case[0] != "onnxruntime", case[2]))
    return latency_key(single[0], 50) if single else None


def _figures(group: Group, measured: Sequence[Case]) -> list[tuple[str, str]]:
    row, key = group.row, fastest_key(measured)
    found = [
        (percent(row["accuracy"]), "mean test accuracy" if row["seeds"] > 1 else "test accuracy, one seed"),
        (short(row["macs"]), "multiply-adds an image"),
        (short(row["params"]), "parameters"),
    ]
    if key and row.get(key) is not None:
        found.append((f"{row[key]:.3g} ms", f"median, {key.split('_')[0]}, 1 image"))
    if row["model_bytes"] is not None:
        found.append((f"{short(row['model_bytes'])}B", "ONNX file"))
    return found
