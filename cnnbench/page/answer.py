"""The answer at the head of a report: per dataset the cheapest network that is accurate enough, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnbench.page.material import Group, Material, interval
from cnnbench.page.section import Answer, Fact
from cnnbench.tables.pair import compare_runs
from cnnbench.tables.text import percent, short, short_bytes
from cnnbench.types import CnnbenchError


@dataclass(frozen=True)
class Recommendation:
    """The answer for one dataset, and the network that it names or that comes closest; None where none was tested."""

    answer: Answer
    group: Group | None = None


def recommend(material: Material, dataset: str) -> Recommendation:
    """Recommend a network for a dataset, among those trained on equally many images."""
    tested = material.comparable(dataset)
    if not tested:
        sentences = ["No run was tested; `cnnbench test` scores them."]
        return Recommendation(Answer(dataset, f"On {dataset}", "not tested", sentences))
    best = max(tested, key=lambda group: (group.accuracy, -group.macs))
    target = _target(tested, best) if material.target is None else material.target
    fitting = [group for group in tested if group.accuracy >= target]
    if not fitting:
        reason = f"No network reaches {_short_percent(target)} on {dataset}; the most accurate is {_described(best)}."
        return Recommendation(Answer(dataset, f"For {_short_percent(target)} on {dataset}", "none", [reason]), best)
    chosen = min(fitting, key=lambda group: (group.macs, -group.accuracy))
    question = f"For {_short_percent(target)} on {dataset}, the cheapest is"
    if len(tested) == 1:
        question = f"On {dataset}"
        sentences = [f"{_described(chosen)}. It is the only network that was tested: there is nothing to compare."]
    else:
        other = max((group for group in tested if group is not best), key=lambda group: group.accuracy)
        sentences = [
            _reached(chosen, target),
            *_against_best(chosen, best, other),
            *_smaller_or_faster(material, chosen, fitting),
        ]
    return Recommendation(Answer(dataset, question, chosen.name, sentences, _facts(material, chosen)), chosen)


def _target(tested: Sequence[Group], best: Group) -> float:
    """The best accuracy, rounded down; that of a single seed does not count where others were trained several times."""
    several = [group.accuracy for group in tested if group.row.seeds > 1]
    return within_reach(max(several, default=best.accuracy))


def within_reach(best: float) -> float:
    """The best accuracy, rounded down to a step no larger than the remaining error: 0.9924 to 0.99, 0.976 to 0.97."""
    left = 100 * (1 - best)
    step = next((step for step in (5.0, 1.0, 0.5, 0.1, 0.05) if step <= left and (step < 5 or left >= 20)), 0.01)
    steps = int(100 * best / step + 1e-9)  # 99.5 is not 99.4999
    return min(round(steps * step / 100, 6), best)


def _short_percent(value: float) -> str:
    digits = f"{100 * value:.4f}".rstrip("0")
    return f"{digits}0 %" if digits.endswith(".") else f"{digits} %"


def _described(group: Group) -> str:
    return f"{group.name} with {percent(group.accuracy)} ({interval(group.row)}) and {short(group.macs)} MACs"


def _reached(chosen: Group, target: float) -> str:
    accuracy = f"{percent(chosen.accuracy)} ({interval(chosen.row)})"
    sentence = f"{chosen.name} reaches {accuracy} with {short(chosen.macs)} MACs per image."
    if chosen.row.accuracy_low is not None and chosen.row.accuracy_low < target:
        sentence += f" Its interval begins below {_short_percent(target)}, so others may miss it."
    return sentence


def _against_best(chosen: Group, best: Group, next_best: Group) -> list[str]:
    """The cost of the most accurate other network in comparison, and whether the difference in accuracy is shown."""
    other = next_best if chosen is best else best
    reached = f"{other.name}, reaches {percent(other.accuracy)} ({interval(other.row)})"
    needs = f"needs {_times(other.macs / chosen.macs)} MACs."
    if chosen is best:
        return [
            "It is also the most accurate one.",
            f"The next, {reached} and {needs}",
            *_difference(best, next_best),
        ]
    return [f"The most accurate, {reached} and {needs}", *_difference(best, chosen)]


def _times(ratio: float) -> str:
    if 0.95 <= ratio < 1.05:
        return "as many"
    return f"{ratio:.2g} times as many" if ratio < 10 else f"{ratio:.0f} times as many"


def _difference(best: Group, other: Group) -> list[str]:
    """The paired comparison in one sentence, where the predictions of both are kept."""
    try:
        difference = compare_runs(best.runs, other.runs).difference
    except CnnbenchError:
        return []
    sentence: str = difference.sentence(best.name, other.name)
    return [f"{sentence[0].upper()}{sentence[1:]}." if sentence.startswith("no ") else f"{sentence}."]


def _smaller_or_faster(material: Material, chosen: Group, fitting: Sequence[Group]) -> list[str]:
    """The smallest and the fastest of those that are accurate enough, where it is another one."""
    sentences = []
    smallest = min(fitting, key=lambda group: (group.params, -group.accuracy))
    if smallest.params < chosen.params:
        sentences.append(f"The smallest is {smallest.name} with {short(smallest.params)} parameters.")
    timed = [(ms, group.name) for group in fitting if (ms := _fast_ms(material, group)) is not None]
    if timed and min(timed)[1] != chosen.name:
        milliseconds, name = min(timed)
        sentences.append(f"The fastest measured is {name} with {milliseconds:.3g} ms per image.")
    return sentences


def _fast_ms(material: Material, group: Group) -> float | None:
    """Median milliseconds of one image, by which networks are called fast; None where it was not measured."""
    key = material.fastest_key
    return None if key is None else group.row.latency_ms(key, 50)


def _facts(material: Material, group: Group) -> list[Fact]:
    row, key = group.row, material.fastest_key
    facts = [
        Fact(percent(group.accuracy), "mean test accuracy" if row.seeds > 1 else "test accuracy, one seed"),
        Fact(short(group.macs), "multiply-adds per image"),
        Fact(short(group.params), "parameters"),
    ]
    milliseconds = _fast_ms(material, group)
    if key is not None and milliseconds is not None:
        facts.append(Fact(f"{milliseconds:.3g} ms", f"median, {key.place}, 1 image"))
    if row.model_bytes is not None:
        facts.append(Fact(short_bytes(row.model_bytes), "ONNX file"))
    return facts
