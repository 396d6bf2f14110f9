"""The answer at the head of the page: of each dataset, the cheapest network that is accurate enough, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cnnbench.tables.gather import Run
from cnnbench.tables.pair import compare_runs
from cnnbench.tables.rows import LatencyKey, Row
from cnnbench.tables.text import interval as interval_text
from cnnbench.tables.text import percent, short, short_bytes
from cnnbench.types import CnnbenchError


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, their figures, and what the page calls them."""

    name: str
    runs: list[Run]
    row: Row

    @property
    def accuracy(self) -> float:
        """Of a tested group."""
        assert self.row.accuracy is not None
        return self.row.accuracy

    @property
    def macs(self) -> int:
        assert self.row.macs is not None
        return self.row.macs

    @property
    def params(self) -> int:
        assert self.row.params is not None
        return self.row.params

    @property
    def train_images(self) -> int:
        assert self.row.train_images is not None
        return self.row.train_images

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


def answer(dataset: str, groups: Sequence[Group], target: float | None, measured: Sequence[LatencyKey]) -> Answer:
    """The answer for one dataset.

    Args:
        dataset: Its name.
        groups: Those that compare: trained on equally many images of it.
        target: Mean test accuracy that is enough; by default the best one, rounded down.
        measured: What latencies were measured on.
    """
    tested = [group for group in groups if group.row.accuracy is not None]
    if not tested:
        return Answer(dataset, f"On {dataset}", "not tested", ["No run was tested; `cnnbench test` scores them."])
    best = max(tested, key=lambda group: (group.accuracy, -group.macs))
    # one lucky seed sets no standard where others were trained several times
    several = [group.accuracy for group in tested if group.row.seeds > 1]
    enough = within_reach(max(several, default=best.accuracy)) if target is None else target
    fitting = [group for group in tested if group.accuracy >= enough]
    if not fitting:
        said = [f"No network reaches {_short_percent(enough)} on {dataset}; the most accurate is {_described(best)}."]
        return Answer(dataset, f"For {_short_percent(enough)} on {dataset}", "none", said, [], best)
    chosen = min(fitting, key=lambda group: (group.macs, -group.accuracy))
    if len(tested) == 1:
        said = [f"{_described(chosen)}. It is the only network that was tested here: there is nothing to compare."]
        return Answer(dataset, f"On {dataset}", chosen.name, said, _figures(chosen, measured), chosen)
    next_best = max((group for group in tested if group is not best), key=lambda group: group.accuracy)
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
    if row.accuracy_low is None or row.accuracy_high is None:
        return "one seed, so no interval"
    return f"95 % interval {interval_text(row.accuracy_low, row.accuracy_high)}, {row.seeds} seeds"


def _described(group: Group) -> str:
    return f"{group.name} with {percent(group.accuracy)} ({interval(group.row)}) and {short(group.macs)} MACs"


def _first(chosen: Group, enough: float) -> str:
    row = chosen.row
    said = (
        f"{chosen.name} reaches {percent(chosen.accuracy)} ({interval(row)}) with {short(chosen.macs)} MACs an image."
    )
    if row.accuracy_low is not None and row.accuracy_low < enough:
        said += f" Its interval begins below {_short_percent(enough)}, so other seeds may miss it."
    return said


def _against_best(chosen: Group, best: Group, next_best: Group) -> list[str]:
    """What the most accurate other network costs in comparison, and whether a difference is shown at all."""
    other = next_best if chosen is best else best
    reached = f"{other.name}, reaches {percent(other.accuracy)} ({interval(other.row)})"
    needs = f"needs {_times(other.macs / chosen.macs)} MACs."
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
    try:
        difference = compare_runs(best.runs, chosen.runs).difference
    except CnnbenchError:  # without predictions the page has less to say, and says nothing
        return []
    said: str = difference.sentence(best.name, chosen.name)
    return [f"{said[0].upper()}{said[1:]}." if said.startswith("no ") else f"{said}."]


def _others(chosen: Group, fitting: Sequence[Group], measured: Sequence[LatencyKey]) -> list[str]:
    """Who is smaller or faster among those that are accurate enough, where it is another one."""
    said = []
    smallest = min(fitting, key=lambda group: (group.params, -group.accuracy))
    if smallest.params < chosen.params:
        said.append(f"The smallest is {smallest.name} with {short(smallest.params)} parameters.")
    key = fastest(measured)
    if key is None:
        return said
    timed = [(ms, group.name, group) for group in fitting if (ms := group.row.latency_ms(key, 50)) is not None]
    if timed and min(timed)[2] is not chosen:
        milliseconds, name, _ = min(timed)
        said.append(f"The fastest that was timed is {name} with {milliseconds:.3g} ms an image.")
    return said


def fastest(measured: Sequence[LatencyKey]) -> LatencyKey | None:
    """The latency of one image by which networks are called fast, by its median: in ONNX Runtime if measured."""
    single = [key for key in measured if key.batch == 1]
    return min(single, key=lambda key: (key.place != "onnxruntime", key.threads), default=None)


def _figures(group: Group, measured: Sequence[LatencyKey]) -> list[tuple[str, str]]:
    row, key = group.row, fastest(measured)
    found = [
        (percent(group.accuracy), "mean test accuracy" if row.seeds > 1 else "test accuracy, one seed"),
        (short(group.macs), "multiply-adds an image"),
        (short(group.params), "parameters"),
    ]
    if key and (milliseconds := row.latency_ms(key, 50)) is not None:
        found.append((f"{milliseconds:.3g} ms", f"median, {key.place}, 1 image"))
    if row.model_bytes is not None:
        found.append((short_bytes(row.model_bytes), "ONNX file"))
    return found
