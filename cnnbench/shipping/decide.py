"""The decision as a record, from what is known, at any moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.shipping import race
from cnnbench.shipping.candidates import Entrant
from cnnbench.shipping.record import Chosen, Competitor, Decision, File, Images, Rung, Scored
from cnnbench.tables.candidates import Candidate, Score

if TYPE_CHECKING:
    from cnnbench.shipping.ship import State


def decision_of(state: State, *, chosen: Chosen | None = None, finished: bool = False) -> Decision:
    """What is known now.

    Args:
        state: All that is known.
        chosen: What was shipped.
        finished: Whether there is nothing left to do.
    """
    contest, images = state.contest, state.images
    choice = state.selection.choice if state.selection else None
    return Decision(
        request=state.request,
        images=Images(
            name=images.data.name,
            sha256=images.data.sha256,
            train=len(images.data.train),
            val=len(images.data.val),
            test=len(images.data.test),
            size=images.data.spec.size,
            classes=images.data.spec.num_classes,
            folds=len(contest.folds) if images.few else 0,
            found=images.found,
        ),
        finished=finished and not state.interrupted,
        interrupted=state.interrupted,
        ended=state.race.ended,
        seconds=contest.clock.used,
        competitors=tuple(_competitor(entrant, state) for entrant in state.entered),
        rungs=tuple(_rung(rung, state) for rung in state.race.rungs),
        files=_files(state),
        answer=choice.answer if choice else "",
        chosen=chosen,
        nearest=choice.nearest.candidate.name if choice and choice.nearest else "",
        relax=choice.relax if choice else "",
    )


def _competitor(entrant: Entrant, state: State) -> Competitor:
    contest, arch = state.contest, entrant.arch
    finished = [found for trial, found in contest.finished.items() if trial.arch == arch]
    schedules = [epochs for epochs in race.EPOCHS if contest.has(arch, epochs)]
    left, why = _left(arch, state)
    return Competitor(
        arch=arch,
        params=entrant.cost.params,
        macs=entrant.cost.macs,
        untrained_ms=entrant.latency_ms,
        left=left,
        why=why,
        epochs=schedules[-1] if schedules else None,
        val=_scored(contest.score(arch, schedules[-1])) if schedules else None,
        seeds=len(contest.seeds(arch, schedules[-1])) if schedules else 0,
        runs=len(finished),
        seconds=sum(found.seconds for found in finished),
    )


def _left(arch: str, state: State) -> tuple[str, str]:
    """When a network left, and why."""
    chosen = state.selection.trial if state.selection else None
    if chosen and chosen.arch == arch:
        assert state.selection is not None
        return "chosen", state.selection.choice.answer
    if arch in state.race.left:
        return state.race.left[arch]
    files = [other for other in (state.selection.choice.others if state.selection else ()) if other.row.arch == arch]
    if files:
        return "choice of the file", "; ".join(f"{other.candidate.precision}: {other.reason}" for other in files)
    leader, contest = state.race.leader, state.contest
    common = [epochs for epochs in race.EPOCHS if leader and contest.has(leader, epochs) and contest.has(arch, epochs)]
    if state.selection and leader and common and leader != arch:
        return "end of the race", race.behind(arch, leader, epochs=common[-1], contest=contest)
    return "", "still competes"


def _rung(rung: race.Rung, state: State) -> Rung:
    first = [state.contest.correct(arch, rung.epochs) for arch in rung.ranked]
    return Rung(
        epochs=rung.epochs,
        archs=rung.ranked,
        val=tuple(Scored(int(correct.sum()), correct.size) for correct in first),
        returned=rung.returned,
    )


def _files(state: State) -> tuple[File, ...]:
    if state.selection is None:
        return ()
    reasons = {other.candidate.name: other.reason for other in state.selection.choice.others}
    return tuple(_file(candidate, reasons.get(candidate.name, ""), state) for candidate in state.known)


def _file(candidate: Candidate, why: str, state: State) -> File:
    assert state.selection is not None
    return File(
        task=candidate.row.task,
        seed=candidate.row.runs[0].record.seed,
        precision=candidate.precision,
        bytes=candidate.bytes,
        val=_scored(candidate.val) if candidate.val else None,
        p90_ms=candidate.percentiles.p90_ms if candidate.percentiles else None,
        why=why,
    )


def _scored(score: Score) -> Scored:
    return Scored(score.right, score.images)
