"""The answer at the head of a report: per dataset the cheapest file that keeps the limits, others, and cautions."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cnnbench.page import weighing
from cnnbench.page.charts import accuracy as charts
from cnnbench.page.charts.base import Point, error
from cnnbench.page.material import Group, Material
from cnnbench.page.section import Answer, Fact, Picture
from cnnbench.tables.candidates import Candidate, Score, candidates, compared
from cnnbench.tables.choose import Choice, choose_file
from cnnbench.tables.limits import Figure, Limits, evidence, figures_of, given_limits
from cnnbench.tables.rows import LatencyKey
from cnnbench.tables.text import interval, milliseconds, percent, short, short_bytes


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
    known = candidates([group.row for group in tested], material.records, latency=material.fastest_key or LatencyKey())
    limits, origin = _limits(material, tested, best)
    choice = choose_file(known, limits)
    wanted = ", ".join(limit.text for limit in given_limits(limits, figures_of(strict=False)))
    picture = _quadrant(material, tested, known, choice, limits)
    if choice.chosen is None:
        return Recommendation(replace(_none(choice, dataset, wanted, best), picture=picture), best)
    chosen = next(group for group in tested if group.row is choice.chosen.row)
    question = f"To ship on {dataset}, the cheapest with {wanted}:" if len(known) > 1 else f"On {dataset}:"
    answer = Answer(
        dataset,
        question,
        weighing.called(tested, choice.chosen),
        [*_reached(tested, choice.chosen, limits, among=compared(known)), *origin],
        _facts(material, chosen, choice.chosen),
        file=_file(choice.chosen),
        alternatives=weighing.alternatives(material, tested, best=best, chosen=chosen, choice=choice),
        cautions=[*weighing.cautions(material, tested, chosen=chosen, file=choice.chosen), *others],
        command=_command(chosen, choice.chosen),
        picture=picture,
    )
    return Recommendation(answer, chosen)


def _limits(material: Material, tested: Sequence[Group], best: Group) -> tuple[Limits, list[str]]:
    """The limits that were given; where no accuracy was, the best one on validation rounded down, with a sentence.

    A single seed does not count where others have several.
    """
    if material.limits.min_accuracy is not None:
        return material.limits, []
    if material.target is not None:
        return replace(material.limits, min_accuracy=material.target), []
    several = [group.val_accuracy for group in tested if group.row.seeds > 1]
    enough = within_reach(max(several, default=best.val_accuracy))
    origin = f"No --min-accuracy was given: {percent(enough)} is the best on validation, rounded down."
    return replace(material.limits, min_accuracy=enough), [origin]


def within_reach(best: float) -> float:
    """The best accuracy, rounded down to a step no larger than the remaining error: 0.9924 to 0.99, 0.976 to 0.97."""
    left = 100 * (1 - best)
    step = next((step for step in (5.0, 1.0, 0.5, 0.1, 0.05) if step <= left and (step < 5 or left >= 20)), 0.01)
    steps = int(100 * best / step + 1e-9)  # 99.5 is not 99.4999
    return min(round(steps * step / 100, 6), best)


def _none(choice: Choice, dataset: str, wanted: str, best: Group) -> Answer:
    """No file keeps the limits, or none is better than one answer for all images."""
    if choice.nearest is None:
        return Answer(dataset, f"On {dataset}", "none", [f"N{choice.answer.removeprefix('none: n')} on {dataset}."])
    reason = (
        f"No file on {dataset} keeps {wanted}; the most accurate network is {best.name} with "
        f"{percent(best.val_accuracy)} on validation and {short(best.macs)} MACs."
    )
    nearest = f"The nearest is {choice.nearest.candidate.name}: relax {choice.relax}."
    return Answer(dataset, f"To ship on {dataset}, with {wanted}:", "none", [reason, nearest])


def _reached(tested: Sequence[Group], candidate: Candidate, limits: Limits, *, among: int) -> list[str]:
    """What it scores on validation, by which it was chosen, and whether the test images agree."""
    assert candidate.val is not None
    assert candidate.test is not None
    assert limits.min_accuracy is not None
    val, test, target = candidate.val, candidate.test, limits.min_accuracy
    sure = evidence(val, target, among=among)
    met = "met" if test.accuracy >= target else "missed"
    shown = f" ({evidence(test, target)})" if test.accuracy >= target else ""
    cost = f"{short(candidate.row.macs or 0)} MACs per image and {short(candidate.row.params or 0)} parameters"
    return [
        f"{weighing.called(tested, candidate)} reaches {percent(val.accuracy)} on the validation images "
        f"({val.right:,} of {val.images:,}; {percent(target)} is met, {sure}) with {cost}.",
        f"The test images were not used to choose; on them {percent(target)} is {met}{shown}.",
    ]


def _facts(material: Material, group: Group, candidate: Candidate) -> list[Fact]:
    assert candidate.test is not None
    whose = "this file" if candidate.path else "the run"
    facts = [
        Fact(
            percent(candidate.test.accuracy),
            f"of the test images by {whose}: {candidate.test.right:,} of {candidate.test.images:,}; 95 % interval "
            f"{_wilson(candidate.test)}",
        )
    ]
    key, measured = material.fastest_key, candidate.percentiles
    if key is not None and measured is not None and measured.p50_ms is not None:
        times = [measured.p50_ms, *([measured.p90_ms] if measured.p90_ms is not None else [])]
        machine = weighing.machine(material, candidate)
        setting = f"{key.place}, 1 image, {key.threads} thread{'s' if key.threads > 1 else ''}"
        name = "median" if len(times) == 1 else "p50 / p90"
        value = f"{' / '.join(map(milliseconds, times))} ms"
        facts.append(Fact(value, f"{name}, {setting}{f', on {machine}' if machine else ''}"))
    if candidate.bytes is not None:
        facts.append(Fact(short_bytes(candidate.bytes), "ONNX file"))
    if file := weighing.precision_file(material, candidate):
        flips = max((part.flips + part.rounding_flips for part in file.passes), default=0)
        lost = f"{file.lost_points + 0.0:.2f} points"
        facts.append(Fact(lost, f"lost against PyTorch on validation; {flips:,} test predictions changed"))
    if not candidate.path:
        facts += [Fact(short(group.macs), "MACs per image"), Fact(short(group.params), "parameters")]
    return facts


def _file(candidate: Candidate) -> str:
    """Path and the start of the hash; empty where there is no file."""
    return f"{candidate.path} (SHA-256 {candidate.sha256[:12]})" if candidate.path else ""


def _wilson(score: Score) -> str:
    """The 95 % interval for new images."""
    from cnnbench.analysis.statistics import proportion_interval

    found = proportion_interval(score.accuracy, score.images)
    return interval(found.low, found.high)


def _command(group: Group, candidate: Candidate) -> str:
    """What verifies the file, or makes it."""
    if candidate.path is None:
        return f"cnnbench export {shlex.quote(str(group.best_run.folder))}"
    return f"cnnbench verify {shlex.quote(str(candidate.path.parent))} --rescore"


def _quadrant(
    material: Material, tested: Sequence[Group], known: Sequence[Candidate], choice: Choice, limits: Limits
) -> Picture | None:
    """Every file by its accuracy on validation and the cost that is limited, else by latency, size or MACs."""
    scored = [candidate for candidate in known if candidate.val]
    figures = figures_of(strict=False)
    limited = {limit.figure.name: limit for limit in given_limits(limits, figures)}
    order = sorted(("latency", "bytes", "macs", "params"), key=lambda key: figures[key].name not in limited)
    cost = next((figures[key] for key in order if sum(bool(figures[key].value(each)) for each in scored) > 1), None)
    if cost is None or limits.min_accuracy is None:
        return None
    names = {id(group.row): group for group in tested}
    points: list[Point] = [
        _file_point(material, names[id(candidate.row)], candidate, cost, chosen=candidate is choice.chosen)
        for candidate in scored
        if cost.value(candidate)
    ]
    limit = limited.get(cost.name)
    place = f" ({material.fastest_key.place})" if cost.name == figures["latency"].name and material.fastest_key else ""
    unit = ", ms" if place else ""
    missing = len(known) - len(points)
    caption = "Up and to the left is better. The accuracy axis is logarithmic in the error."
    if missing:
        caption += f" Not drawn, because not measured: {missing} of {len(known)}."
    return charts.quadrant(
        points,
        material.palette,
        axis=f"{cost.name}{place}{unit}",
        min_accuracy=limits.min_accuracy,
        max_cost=limit.value if limit else None,
        limits=[limited[figures["accuracy"].name].text, *([limit.text] if limit else [])],
        caption=caption,
    )


def _file_point(material: Material, group: Group, candidate: Candidate, cost: Figure, *, chosen: bool) -> Point:
    assert candidate.val is not None
    value = cost.value(candidate) or 0.0
    return {
        "name": f"{group.name} {candidate.precision}".strip(),
        "arch": group.row.arch,
        "group": material.palette.groups[group.row.arch],
        "error": error(candidate.val.accuracy),
        "accuracy": candidate.val.text,
        "cost": value,
        "figure": f"{cost.name} {cost.show(value)}",
        "chosen": chosen,
    }
