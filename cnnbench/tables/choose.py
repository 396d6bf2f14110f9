"""Which file to ship under some limits, and why the others were not chosen. Validation chooses; test is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Literal, get_args

from cnnbench.bench.record import mixed
from cnnbench.registry import hint
from cnnbench.tables.candidates import FILE_BACKENDS, Candidate, Score, candidates, compared
from cnnbench.tables.gather import Records
from cnnbench.tables.limits import Figure, Limit, Limits, evidence, figures_of, given_limits
from cnnbench.tables.results import Results, read_results
from cnnbench.tables.rows import LatencyKey, Row, latency_keys, other_images, rows_of_bundles
from cnnbench.tables.text import percent, plural
from cnnbench.types import CnnbenchError

By = Literal["macs", "latency", "bytes", "params", "lower"]


@dataclass(frozen=True)
class Rejected:
    """A file that was not chosen, and why."""

    candidate: Candidate
    reason: str
    keeps_limits: bool

    @property
    def row(self) -> Row:
        return self.candidate.row


@dataclass(frozen=True)
class Choice:
    """The cheapest file that keeps every limit, and the others."""

    chosen: Candidate | None
    others: tuple[Rejected, ...]
    """In the order of the rows."""
    nearest: Rejected | None
    """Where none keeps the limits: the one that misses the fewest, of these by the smallest share; None where no
    file that is better than chance has every figure measured."""
    relax: str
    """Which limits the nearest one would need, each `from` and `to`; empty where there is none."""
    answer: str
    """One sentence: what was chosen, and by which figures."""
    details: tuple[str, ...] = ()
    """Details of the chosen one: the file, its test accuracy, and what training again gives."""
    among: int = 1
    """Files that were compared by their accuracy: for all of them at once holds what the images are said to show."""
    note: str = ""
    """What a reader of the latencies has to know: they are of several runs of `bench`, or of several machines."""


def choose(
    results: Results | str | Path | Sequence[str | Path],
    *,
    min_accuracy: float | None = None,
    max_latency_ms: float | None = None,
    max_bytes: int | None = None,
    max_macs: int | None = None,
    max_params: int | None = None,
    by: By = "macs",
    dataset: str | None = None,
    backend: str | None = None,
    provider: str = "cpu",
    threads: int = 1,
) -> Choice:
    """The cheapest file that keeps every limit, and why the others were not chosen.

    Candidates are the files of all bundles, whether their runs are there or not, and networks that were not exported.
    Accuracy is that of the file on the validation images; the test images are scored and printed, and choose nothing.

    Args:
        results: From `read_results`, or the paths to read.
        min_accuracy, max_latency_ms, max_bytes, max_macs, max_params: See `Limits`.
        by: What cheap means: "macs", "latency", "bytes" or "params"; "lower" is "macs", and the limit of accuracy is
            met only where the lower end of the 95 % interval, which holds for all compared files at once, is not below.
        dataset: Which one, where there are several.
        backend, provider, threads: Of the latency that counts; by default every measured backend that runs the file.

    Returns:
        The choice; `chosen` is None where no file keeps the limits, and `nearest` the one that misses the fewest.

    Raises:
        CnnbenchError: A limit is impossible, the dataset is not named or unknown, or the latency was not measured
            (exit 2); there are no results (exit 3).
    """
    limits = Limits(
        min_accuracy=min_accuracy,
        max_latency_ms=max_latency_ms,
        max_bytes=max_bytes,
        max_macs=max_macs,
        max_params=max_params,
    )
    read = results if isinstance(results, Results) else read_results(results)
    rows = comparable_rows([*read.rows, *rows_of_bundles(read.records)], dataset)
    counts = max_latency_ms is not None or by == "latency"
    latency = LatencyKey(backend or FILE_BACKENDS[0], provider, threads=threads)
    if counts:
        check_measured(read.records, latency, all_backends=backend is None)
    known = candidates(rows, read.records, latency=latency, all_backends=counts and backend is None)
    choice = choose_file(known, limits, by=by)
    return replace(choice, note=_note(known, read.records)) if counts else choice


def choose_file(known: Sequence[Candidate], limits: Limits, *, by: By = "macs", among: int | None = None) -> Choice:
    """Choose the cheapest file that keeps every limit and is better than always giving one answer.

    Of equally cheap ones the more accurate on validation is chosen, of these the smaller file, then the first by name.

    Args:
        known: Candidates that compare: of one dataset, trained on equally many images of it.
        limits: What to keep.
        by: What cheap means; see `choose`.
        among: How many were compared by their accuracy, for what the images show of the one that is chosen; by
            default those that are known.

    Raises:
        CnnbenchError: `by` is none of those (exit 2).
    """
    if by not in get_args(By):
        raise CnnbenchError(f"cheap by {by!r}: {hint(by, list(get_args(By)))}")
    among = among or compared(known)
    figures = figures_of(strict=by == "lower", among=among)
    cost = figures["macs" if by == "lower" else by]
    given = given_limits(limits, figures)
    limited = [*given, Limit(cost, inf)]  # the cost itself has to be measured
    fitting = [candidate for candidate in known if not _misses(candidate, limited, among)]
    keeping = {id(candidate) for candidate in fitting}

    def order(candidate: Candidate) -> tuple[float, float, float, str]:
        accuracy = candidate.val.accuracy if candidate.val else 0.0
        return cost.value(candidate) or 0, -accuracy, candidate.bytes or 0, candidate.name

    chosen = min(fitting, key=order, default=None)
    others = tuple(
        Rejected(candidate, _reason(candidate, chosen, limited, among), id(candidate) in keeping)
        for candidate in known
        if candidate is not chosen
    )
    wanted = ", ".join(limit.text for limit in given)
    if chosen is None:
        nearest = _nearest(sorted(others, key=lambda other: order(other.candidate)), limited, among)
        relax = "; ".join(filter(None, (limit.relaxed(nearest.candidate) for limit in given))) if nearest else ""
        answer = _none(others, limited, wanted, among)
        if by == "lower" and limits.min_accuracy is not None and nearest and nearest.candidate.val:
            answer += f" ({evidence(nearest.candidate.val, limits.min_accuracy, among=among)})"
        return Choice(None, others, nearest, relax, answer, among=among)
    sure = "" if limits.min_accuracy is None else f", {evidence(_val(chosen), limits.min_accuracy, among=among)}"
    answer = _answer(chosen, cost, [figures[key] for key in ("macs", "bytes", "latency")], wanted, sure)
    return Choice(chosen, others, None, "", answer, tuple(_details(chosen, limits.min_accuracy)), among)


def _note(known: Sequence[Candidate], gathered: Records) -> str:
    """See `Choice.note`."""
    shown = {(candidate.row.task, candidate.latency) for candidate in known if candidate.percentiles}
    return mixed([case for case in gathered.latencies if (case.task, LatencyKey.of(case)) in shown])


def comparable_rows(rows: Sequence[Row], dataset: str | None) -> list[Row]:
    """The rows of one dataset that were trained on the most images of it, and its failures.

    Raises:
        CnnbenchError: There are several datasets and none is named, or the named one has no runs, or what was
            trained on it saw other images or splits of them (exit 2).
    """
    names = sorted({row.dataset for row in rows})
    if dataset is None and len(names) > 1:
        raise CnnbenchError(f"there are runs on {', '.join(names)}: name one with --dataset")
    if names and dataset is not None and dataset not in names:
        raise CnnbenchError(f"no runs on {dataset!r}; there are {', '.join(names)}")
    of_dataset = [row for row in rows if dataset in (None, row.dataset)]
    most = max((row.train_images or 0 for row in of_dataset), default=0)
    comparable = [row for row in of_dataset if row.train_images in (None, most)]
    if difference := other_images(comparable):
        raise CnnbenchError(f"{difference}; give the folders of one")
    return comparable


def check_measured(gathered: Records, latency: LatencyKey, *, all_backends: bool = False) -> None:
    """Refuse a latency that was not measured where others of one image were.

    Raises:
        CnnbenchError: Latencies of one image were measured, but not this one (exit 2).
    """
    known = [key for key in latency_keys(gathered) if key.batch == 1]
    names = FILE_BACKENDS if all_backends else (latency.backend,)
    wanted = [LatencyKey(name, latency.provider, latency.batch, latency.threads) for name in names]
    if known and not {*wanted} & {*known}:
        measured = ", ".join(f"{key.place} with {key.threads} thread(s)" for key in known)
        places = " or ".join(key.place for key in wanted)
        raise CnnbenchError(
            f"no latency of {places} with {latency.threads} thread(s) and one image; measured: {measured}"
        )


def _misses(candidate: Candidate, limits: Sequence[Limit], among: int) -> list[str]:
    """Why a file cannot be chosen; empty where it can."""
    if not candidate.is_scored:
        return list(candidate.row.failures) or ["it has no tested run (cnnbench test)"]
    if candidate.refused:
        return [f"refused by export: {candidate.refused}"]
    if candidate.val is None:
        return ["accuracy on validation not measured (cnnbench export)"]
    if candidate.is_at_chance(among):
        return [_chance(candidate)]
    return [miss for miss in dict.fromkeys(limit.miss(candidate) for limit in limits) if miss]


def _val(candidate: Candidate) -> Score:
    """Validation score of a candidate that keeps the limits."""
    assert candidate.val is not None
    return candidate.val


def _chance(candidate: Candidate) -> str:
    assert candidate.val is not None
    assert candidate.baseline is not None
    share = percent(candidate.baseline.share)
    return f"accuracy {candidate.val.text} is not shown to be better than {candidate.baseline.words} ({share})"


def _nearest(others: Sequence[Rejected], limits: Sequence[Limit], among: int) -> Rejected | None:
    """The tested file that misses the fewest limits, of these the one that misses them by the smallest share.

    Of several the first, so that `others` are in the order by which one would be chosen: validation, never test.
    """

    def distance(rejected: Rejected) -> tuple[int, float]:
        distances = [limit.distance(rejected.candidate) for limit in limits if limit.value < inf]
        return sum(share > 0 for share in distances), sum(distances)

    measured = [
        other
        for other in others
        if other.candidate.is_scored
        and other.candidate.val is not None
        and not other.candidate.is_at_chance(among)
        and all(limit.figure.value(other.candidate) is not None for limit in limits)
    ]
    return min(measured, key=distance, default=None)


def _reason(candidate: Candidate, chosen: Candidate | None, limits: Sequence[Limit], among: int) -> str:
    """Why a file is not the chosen one: the limits that it misses, or what the chosen one is better by.

    The last of the limits is of the cost.
    """
    misses = _misses(candidate, limits, among)
    if misses or chosen is None:
        return "; ".join(misses)
    cost = limits[-1].figure
    keeps = f"keeps the limits with {percent(_val(candidate).accuracy)}"
    value, least = cost.value(candidate) or 0, cost.value(chosen) or 0
    if value != least:
        return f"{keeps}, but has {value / least:.3g}x the {cost.name} ({cost.show(value)})"
    if _val(candidate).accuracy < _val(chosen).accuracy:
        return f"{keeps} at the same {cost.name}, but is less accurate"
    larger = candidate.bytes and chosen.bytes and candidate.bytes > chosen.bytes
    return f"{keeps} at the same {cost.name}, and is as accurate{', but has more ONNX bytes' if larger else ''}"


def _none(others: Sequence[Rejected], limits: Sequence[Limit], wanted: str, among: int) -> str:
    """Why no file was chosen; the last of the limits is of the cost."""
    cost = limits[-1].figure
    scored = [other.candidate for other in others if other.candidate.is_scored and not other.candidate.refused]
    if scored and all(candidate.is_at_chance(among) for candidate in scored):
        baseline = scored[0].baseline
        assert baseline is not None
        return f"none: no network is better than {baseline.words} ({percent(baseline.share)})"
    missing = [limit.figure for limit in limits if all(limit.figure.value(candidate) is None for candidate in scored)]
    if scored and missing:
        return f"none: no network has its {missing[0].name} measured ({missing[0].measured_by})"
    measured = "" if cost.name in ("MACs", "parameters") else f" and has its {cost.name} measured"
    return f"none: no network keeps {wanted or 'no limits'}{measured}"


def _answer(chosen: Candidate, cost: Figure, shown: Sequence[Figure], wanted: str, sure: str) -> str:
    values = [(figure, figure.value(chosen)) for figure in shown]
    figures = [f"{figure.name} {figure.show(value)}" for figure, value in values if value]
    accuracy = f"validation accuracy {_val(chosen).text}{sure}"
    cheapest = f"{'fewest' if cost.is_counted else 'lowest'} {cost.name}"
    asked = f"with {wanted}" if wanted else "(no limits given)"
    return f"{chosen.name}: {cheapest} {asked}; {'; '.join([accuracy, ', '.join(figures)])}"


def _details(chosen: Candidate, min_accuracy: float | None) -> list[str]:
    """The file, its test accuracy, and what training again gives; nothing before the test."""
    row, test = chosen.row, chosen.test
    if test is None or row.accuracy is None:
        return []
    lines = ["not exported: `cnnbench export` makes the file"]
    if chosen.path:
        there = "" if chosen.path.is_file() else " (its record alone is here)"
        lines = [f"file {chosen.path}{there}, SHA-256 {chosen.sha256}"]
    below = min_accuracy is not None and test.accuracy < min_accuracy
    lines.append(f"test accuracy {test.text}{f', below {percent(min_accuracy or 0)}' if below else ''}")
    if row.seeds < 2:
        return [*lines, "trained again: not known from one seed; `cnnbench sweep` trains more"]
    spread = row.accuracy_spread if row.accuracy_low is None else f"95 % interval {row.accuracy_spread}"
    seeds = plural(row.seeds, "seed")
    return [*lines, f"trained again: test accuracy {percent(row.accuracy)} ({spread}, {seeds}), in PyTorch"]
