"""The answer at the head of a report: per dataset the cheapest file that is accurate enough on validation, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnbench.page.material import Group, Material, interval
from cnnbench.page.section import Answer, Fact
from cnnbench.tables.candidates import Candidate, candidates, compared
from cnnbench.tables.choose import Choice, choose_file
from cnnbench.tables.limits import Limits, evidence
from cnnbench.tables.pair import compare_runs
from cnnbench.tables.rows import LatencyKey
from cnnbench.tables.text import percent, short, short_bytes
from cnnbench.types import CnnbenchError


@dataclass(frozen=True)
class Recommendation:
    """The answer for one dataset, and the network that it names or that comes closest; None where none was tested."""

    answer: Answer
    group: Group | None = None


def recommend(material: Material, dataset: str) -> Recommendation:
    """Recommend a file for a dataset, of a network among those trained on equally many images."""
    tested, others = material.on_the_same_images(dataset)
    if not tested:
        sentences = ["No run was tested; `cnnbench test` scores them."]
        return Recommendation(Answer(dataset, f"On {dataset}", "not tested", sentences))
    best = max(tested, key=lambda group: (group.val_accuracy, -group.macs))
    known = _candidates(material, tested)
    target = _target(tested, best) if material.target is None else material.target
    choice = choose_file(known, Limits(min_accuracy=target))
    if choice.chosen is None:
        return _none(choice, dataset, target, best)
    chosen = next(group for group in tested if group.row is choice.chosen.row)
    keeping = {id(other.row) for other in choice.others if other.keeps_limits} | {id(chosen.row)}
    fitting = [group for group in tested if id(group.row) in keeping]
    question = f"For {_short_percent(target)} on {dataset}, the cheapest is"
    sentences = [_reached(chosen, choice.chosen, target, among=compared(known)), *_of_the_file(choice.chosen, target)]
    if len(tested) == 1:
        question = f"On {dataset}"
        sentences.append("It is the only network that was tested: there is nothing to compare.")
    else:
        other = max((group for group in tested if group is not best), key=lambda group: group.val_accuracy)
        sentences += [*_against_best(chosen, best, other), *_smaller_or_faster(material, chosen, fitting)]
    sentences += others
    facts = _facts(material, chosen, choice.chosen)
    return Recommendation(Answer(dataset, question, _name(chosen, choice.chosen), sentences, facts), chosen)


def _candidates(material: Material, tested: Sequence[Group]) -> list[Candidate]:
    """The files of the networks."""
    latency = material.fastest_key or LatencyKey()
    return candidates([group.row for group in tested], material.records, latency=latency)


def _none(choice: Choice, dataset: str, target: float, best: Group) -> Recommendation:
    """No file is accurate enough, or none is better than one answer for all images."""
    if choice.nearest is None:
        reason = f"N{choice.answer.removeprefix('none: n')} on {dataset}."
        return Recommendation(Answer(dataset, f"On {dataset}", "none", [reason]), best)
    reason = f"No network reaches {_short_percent(target)} on {dataset}; the most accurate is {_described(best)}."
    return Recommendation(Answer(dataset, f"For {_short_percent(target)} on {dataset}", "none", [reason]), best)


def _name(group: Group, candidate: Candidate) -> str:
    """The network, and the precision where it is not the usual one."""
    return group.name if candidate.precision in ("", "fp32") else f"{group.name} {candidate.precision}"


def _target(tested: Sequence[Group], best: Group) -> float:
    """The best accuracy on validation, rounded down; a single seed does not count where others have several."""
    several = [group.val_accuracy for group in tested if group.row.seeds > 1]
    return within_reach(max(several, default=best.val_accuracy))


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
    return f"{group.name} with {percent(group.val_accuracy)} on validation and {short(group.macs)} MACs"


def _reached(group: Group, candidate: Candidate, target: float, *, among: int) -> str:
    assert candidate.val is not None
    sure = f"{candidate.val.right:,} of {candidate.val.images:,}; {evidence(candidate.val, target, among=among)}"
    return (
        f"{_name(group, candidate)} reaches {percent(candidate.val.accuracy)} on the validation images ({sure}) with "
        f"{short(group.macs)} MACs per image."
    )


def _of_the_file(candidate: Candidate, target: float) -> list[str]:
    """Which file, what it scores on the test images, and what training again gives."""
    assert candidate.test is not None
    row, test = candidate.row, candidate.test
    below = f", below {_short_percent(target)}" if test.accuracy < target else ""
    what = (
        f"The file {candidate.path} (SHA-256 {candidate.sha256[:12]})" if candidate.path else "It is not exported; it"
    )
    again = f"; trained again, {percent(row.accuracy or 0)}" if row.seeds > 1 else ""
    return [f"{what} scores {test.text} on the test images{below}{again} ({interval(row)})."]


def _against_best(chosen: Group, best: Group, next_best: Group) -> list[str]:
    """The cost of the most accurate other network in comparison, and whether the difference in accuracy is shown."""
    other = next_best if chosen is best else best
    reached = f"{other.name}, reaches {percent(other.val_accuracy)} on validation, {percent(other.accuracy)} on test"
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
    return [f"{sentence[0].upper()}{sentence[1:]}." if sentence.startswith(("no ", "of these ")) else f"{sentence}."]


def _smaller_or_faster(material: Material, chosen: Group, fitting: Sequence[Group]) -> list[str]:
    """The smallest and the fastest of those that are accurate enough, where it is another one."""
    sentences = []
    smallest = min(fitting, key=lambda group: (group.params, -group.val_accuracy))
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


def _facts(material: Material, group: Group, candidate: Candidate) -> list[Fact]:
    assert candidate.val is not None
    assert candidate.test is not None
    facts = [
        Fact(percent(candidate.val.accuracy), "validation accuracy"),
        Fact(percent(candidate.test.accuracy), "test accuracy of this file" if candidate.path else "test accuracy"),
        Fact(short(group.macs), "multiply-adds per image"),
        Fact(short(group.params), "parameters"),
    ]
    key, measured = material.fastest_key, candidate.percentiles
    if key is not None and measured is not None and measured.p50_ms is not None:
        facts.append(Fact(f"{measured.p50_ms:.3g} ms", f"median, {key.place}, 1 image"))
    if candidate.bytes is not None:
        facts.append(Fact(short_bytes(candidate.bytes), "ONNX file"))
    return facts
