"""What is set against the file that a report names: the others that could ship, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cnnbench.page.material import Group, Material, interval
from cnnbench.page.section import Alternative
from cnnbench.records.bundle import PrecisionFile
from cnnbench.tables.candidates import Candidate
from cnnbench.tables.choose import Choice
from cnnbench.tables.pair import compare_runs
from cnnbench.tables.rows import LatencyKey
from cnnbench.tables.text import milliseconds, percent, plural, short_bytes
from cnnbench.types import CnnbenchError

SURE = 0.01
"""A mean confidence that is further than this from the accuracy is said to be too high or too low."""

FASTER = 1.05
"""A file that is faster by less is not named for it."""


def machine(material: Material, candidate: Candidate) -> str:
    """The processor on which a file was timed; empty where the record does not name it."""
    for case in material.records.latencies:
        same = (case.task, case.precision, LatencyKey.of(case)) == (
            candidate.row.task,
            candidate.precision,
            candidate.latency,
        )
        if same and case.machine:
            return case.machine.cpu or ""
    return ""


def precision_file(material: Material, candidate: Candidate) -> PrecisionFile | None:
    """What export recorded of a file; None where there is no file."""
    for bundle in material.records.bundles:
        for file in bundle.kept:
            if candidate.sha256 and bundle.files[file.file].sha256 == candidate.sha256:
                return file
    return None


def alternatives(
    material: Material, tested: Sequence[Group], *, best: Group, chosen: Group, choice: Choice
) -> list[Alternative]:
    """The most accurate other network, and the fastest and the smallest of the files that keep the limits."""
    assert choice.chosen is not None
    if len(tested) == 1 and not choice.others:
        return []
    return [*_most_accurate(tested, best, chosen), *_fastest(tested, choice), *_smallest(tested, choice)]


def called(tested: Sequence[Group], file: Candidate) -> str:
    """The network of a file as the page calls it, and its precision."""
    group = next(group for group in tested if group.row is file.row)
    return f"{group.name} {file.precision}".strip()


def _most_accurate(tested: Sequence[Group], best: Group, chosen: Group) -> Iterator[Alternative]:
    others = [group for group in tested if group is not chosen]
    if not others:
        return
    other = best if chosen is not best else max(others, key=lambda group: group.val_accuracy)
    rank = "the most accurate" if chosen is not best else f"the next in accuracy after {chosen.name}"
    text = (
        f"{percent(other.val_accuracy)} on validation, {percent(other.accuracy)} on test, "
        f"{_times(other.macs / chosen.macs)} MACs: {rank}"
    )
    yield Alternative(other.name, ". ".join([text, *_difference(other, chosen)]) + ".")


def _times(ratio: float) -> str:
    if 0.95 <= ratio < 1.05:
        return "as many"
    return f"{ratio:.2g} times as many" if ratio < 10 else f"{ratio:.0f} times as many"


def _difference(other: Group, chosen: Group) -> list[str]:
    """The paired comparison in one sentence, where the predictions of both are kept."""
    try:
        difference = compare_runs(other.runs, chosen.runs).difference
    except CnnbenchError:
        return []
    sentence: str = difference.sentence(other.name, chosen.name)
    return [f"{sentence[0].upper()}{sentence[1:]}" if sentence.startswith(("no ", "of these ")) else sentence]


def _fastest(tested: Sequence[Group], choice: Choice) -> Iterator[Alternative]:
    """The fastest of those that keep the limits, where it is another one."""
    timed = [(ms, place, file) for place, file in enumerate(_fitting(choice)) if (ms := _p50(file)) is not None]
    if not timed:
        return
    ms, _, file = min(timed)
    own = _p50(choice.chosen) if choice.chosen else None
    if file is not choice.chosen and (own is None or own > FASTER * ms):
        ratio = f", {own / ms:.2g} times as fast" if own else ""
        text = f"the fastest that keeps the limits, {milliseconds(ms)} ms for one image{ratio}{_on_validation(file)}."
        yield Alternative(called(tested, file), text)


def _smallest(tested: Sequence[Group], choice: Choice) -> Iterator[Alternative]:
    """The smallest file of those that keep the limits, where it is another one."""
    files = [(file.bytes, place, file) for place, file in enumerate(_fitting(choice)) if file.bytes is not None]
    if files:
        size, _, file = min(files)
        if file is not choice.chosen:
            yield Alternative(
                called(tested, file), f"the smallest file that keeps them, {short_bytes(size)}{_on_validation(file)}."
            )


def _fitting(choice: Choice) -> list[Candidate]:
    assert choice.chosen is not None
    return [choice.chosen, *(other.candidate for other in choice.others if other.keeps_limits)]


def _p50(file: Candidate) -> float | None:
    return file.percentiles.p50_ms if file.percentiles else None


def _on_validation(file: Candidate) -> str:
    return f"; {percent(file.val.accuracy)} on validation" if file.val else ""


def cautions(material: Material, tested: Sequence[Group], *, chosen: Group, file: Candidate) -> list[str]:
    """What a reader has to know before the file is shipped, the most important first."""
    row = chosen.row
    if row.seeds > 1:
        seeds = f"Trained again, {chosen.name} scores {percent(chosen.accuracy)} ({interval(row)})."
    else:
        seeds = f"One seed: another training may differ ({interval(row)}); `cnnbench sweep --seeds 5` trains more."
    found = [seeds, *_trained(tested, chosen), *_shifted(tested, chosen), *_confidence(material, chosen)]
    if row.is_unbalanced and row.majority is not None:
        found.append(f"Always answering {row.majority_class} is right on {percent(row.majority)} of the test images.")
    if len(tested) == 1:
        found.append("It is the only network that was tested: there is nothing to compare.")
    if file.path is None:
        found.append("It is not exported: there is no file yet.")
    elif not file.percentiles:
        found.append("Its latency was not measured (`cnnbench bench`).")
    return found


def _trained(tested: Sequence[Group], chosen: Group) -> Iterator[str]:
    """That the compared networks were not trained for equally many epochs."""
    others = {group.row.epochs for group in tested if group is not chosen} - {None}
    if chosen.row.epochs is not None and others - {chosen.row.epochs}:
        low, high = min(filter(None, others)), max(filter(None, others))
        of_others = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        yield (
            f"The networks were not trained equally long: {chosen.name} for {plural(chosen.row.epochs, 'epoch')}, "
            f"the others for {of_others}."
        )


def _shifted(tested: Sequence[Group], chosen: Group) -> Iterator[str]:
    """The worst shift of the chosen one, and of the one that a shift harms least."""
    if chosen.row.shift_worst is None:
        return
    others = [group for group in tested if group is not chosen and group.row.shift_worst is not None]
    best = max(others, key=lambda group: group.row.shift_worst or 0, default=None)
    beside = ""
    if best and (best.row.shift_worst or 0) > chosen.row.shift_worst:
        beside = f" ({best.name}: {percent(best.row.shift_worst or 0)})"
    yield f"Images shifted by up to 4 px: {percent(chosen.row.shift_worst)} at the worst shift{beside}."


def _confidence(material: Material, chosen: Group) -> Iterator[str]:
    """How far the mean confidence is from the accuracy, where it is far."""
    if not chosen.best_run.predictions.exists():
        return
    predictions = material.predictions(chosen.best_run)
    gap = float(predictions.probabilities.max(axis=1).mean() - predictions.correct.mean())
    if abs(gap) > SURE:
        side = "above" if gap > 0 else "below"
        yield (
            f"The mean confidence is {100 * abs(gap):.1f} points {side} the accuracy; Calibration has the error at "
            "each level of confidence, which is larger where too high and too low cancel here."
        )
