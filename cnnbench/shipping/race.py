"""The race: rungs of complete short schedules, of which at most half of the networks go on to the next, longer one.

Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943) with a factor of three in epochs. A rung trains each
network anew with a whole schedule: the first epochs of a long one-cycle schedule, whose learning rate still rises, rank
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log2

from cnnbench.shipping.contest import Contest
from cnnbench.shipping.seeds import FINALISTS, settle
from cnnbench.tables.text import plural

EPOCHS = (1, 3, 9, 27)
"""Epochs of each rung."""
PLANNED_RUNGS = 3
"""There has to be time for so many, each with half of the networks of the one before."""


@dataclass(frozen=True)
class Rung:
    """One rung that was trained."""

    epochs: int
    ranked: tuple[str, ...]
    """Best first; those that gave no result are missing."""
    accuracy: float
    """Accuracy of the leader, on validation images."""


@dataclass
class Race:
    """How the race went."""

    rungs: list[Rung] = field(default_factory=list)
    left: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By network: when it left, and why."""
    settled: tuple[str, ...] = ()
    """The last two or three, once their seeds were compared, best first."""
    ended: str = ""
    """Why there was no further step."""

    @property
    def leader(self) -> str | None:
        """None before the first result."""
        return self.order[0] if self.rungs else None

    @property
    def order(self) -> tuple[str, ...]:
        """The networks of the last rung, best first: over all their seeds, where these were compared."""
        last = self.rungs[-1].ranked
        compared = self.settled if {*self.settled} <= {*last} else ()
        return (*compared, *(arch for arch in last if arch not in compared))


def run(race: Race, entrants: Sequence[str], *, contest: Contest, min_accuracy: float | None = None) -> None:
    """Let networks compete until one is left at the longest schedule, or there is no reason or no time to go on.

    Args:
        race: An empty one, which the caller keeps: what is known survives Ctrl-C.
        entrants: The networks.
        contest: What is known of them, which grows.
        min_accuracy: The limit that the user gave; with it the race ends once the leader keeps it and is separated.
    """
    standing = _affordable(race, entrants, contest)
    for place in range(_first_rung(standing, contest), len(EPOCHS)):
        if not _train(race, standing, EPOCHS[place], contest):
            return
        last = race.rungs[-1]
        more = _seconds_of_leader(last, place, contest)
        if 1 < len(last.ranked) <= FINALISTS:
            race.settled = settle(last.ranked, last.epochs, contest=contest, more=more, left=race.left)
        race.ended = _reason_to_stop(race, contest, min_accuracy=min_accuracy)
        if race.ended or place + 1 == len(EPOCHS):
            break
        standing = _promoted(race, EPOCHS[place + 1], contest)
        if not standing:
            race.ended = f"no time for {EPOCHS[place + 1]} epochs"
            break
    race.ended = race.ended or "the longest schedule was reached"
    last = race.rungs[-1]
    if len(last.ranked) > FINALISTS:  # there was no time for a longer rung; there may be for more seeds of this one
        race.settled = settle(last.ranked[:FINALISTS], last.epochs, contest=contest, more=0.0, left=race.left)


def _affordable(race: Race, entrants: Sequence[str], contest: Contest) -> list[str]:
    """Without the slowest ones, until there is time for the first few rungs; one stays, and what was begun before."""
    standing, dropped = list(entrants), dict[str, float]()
    seconds = {arch: contest.trainer.forecast(contest.trials([arch], EPOCHS[0])) for arch in standing}
    new = [arch for arch in standing if all(contest.trainer.forecast(contest.trials([arch], e)) for e in EPOCHS)]

    def needed() -> float:
        rungs = [contest.trainer.forecast(contest.trials(standing, epochs)) for epochs in EPOCHS[:PLANNED_RUNGS]]
        return sum(rung * 0.5**place for place, rung in enumerate(rungs))

    while new and len(standing) > 1 and needed() > max(0.0, contest.clock.left - contest.reserved(standing)):
        slowest = max(new, key=lambda arch: (seconds[arch], arch))
        new.remove(slowest)
        standing.remove(slowest)
        dropped[slowest] = seconds[slowest]
    for arch, each in dropped.items():
        race.left[arch] = ("before training", f"no time: an epoch takes about {each:.0f} s here")
    return standing


def _first_rung(standing: Sequence[str], contest: Contest) -> int:
    """Where to begin: few networks need few rungs, of which the longer ones say more, if there is time for them."""
    place = max(0, len(EPOCHS) - 1 - int(log2(len(standing))))
    while place > 0:
        trials = contest.trials(standing, EPOCHS[place])
        if contest.clock.fits(contest.trainer.forecast(trials) * 2, reserved=contest.reserved(standing)):
            break
        place -= 1
    return place


def _train(race: Race, standing: Sequence[str], epochs: int, contest: Contest) -> bool:
    """Train a rung; False where it gave no result."""
    trials = contest.trials(standing, epochs)
    about = contest.trainer.forecast(trials)
    what = f"{plural(epochs, 'epoch')}: {', '.join(standing)}, about {about:.0f} s"
    contest.train(trials, what=what, archs=standing)
    ranked = contest.ranked(standing, epochs)
    for arch in standing:
        if arch not in ranked:
            reasons = [contest.failed[trial] for trial in contest.trials([arch], epochs) if trial in contest.failed]
            race.left[arch] = (plural(epochs, "epoch"), f"no result: {reasons[0] if reasons else 'stopped'}")
    if not ranked:
        race.ended = f"no network gave a result with {plural(epochs, 'epoch')}"
        return False
    score = contest.score(ranked[0], epochs)
    race.rungs.append(Rung(epochs, tuple(ranked), score.accuracy))
    contest.say(f"{plural(epochs, 'epoch')}: {ranked[0]} leads with {score.text} on validation; {contest.time_left}")
    contest.note()
    return True


def _seconds_of_leader(rung: Rung, place: int, contest: Contest) -> float:
    """What the next rung of the leader alone will take, where it fits at all."""
    if place + 1 == len(EPOCHS):
        return 0.0
    leader = rung.ranked[:1]
    trials = contest.trials(leader, EPOCHS[place + 1])
    return contest.trainer.forecast(trials) if contest.fits(trials, archs=leader) else 0.0


def _promoted(race: Race, epochs: int, contest: Contest) -> list[str]:
    """The networks of the last rung that go on: at most half, as many as there is time for, the best first."""
    last, ranked = race.rungs[-1], list(race.order)
    half = max(1, len(ranked) // 2)
    count = half
    while count and not contest.fits(contest.trials(ranked[:count], epochs), archs=ranked[:count]):
        count -= 1
    if not count:
        return []
    stage = plural(last.epochs, "epoch")
    for arch in ranked[count:]:
        if arch not in race.left:
            late = arch in ranked[count:half]
            why = f"no time to train more than {count} with {epochs} epochs" if late else ""
            race.left[arch] = (
                stage,
                "; ".join(filter(None, [why, behind(arch, ranked[count - 1], epochs=last.epochs, contest=contest)])),
            )
    return ranked[:count]


def behind(arch: str, other: str, *, epochs: int, contest: Contest) -> str:
    """By how much a network is behind another one, and whether that is shown."""
    difference = contest.difference(other, arch, epochs=epochs)
    text = f"{100 * difference.mean:.2f} points behind {other}"
    ends = f"95 % interval {100 * difference.low:.2f} to {100 * difference.high:.2f}"
    return f"{text} ({ends})" if difference.shown else f"{text}, from which it is not separable ({ends})"


def _reason_to_stop(race: Race, contest: Contest, *, min_accuracy: float | None) -> str:
    """Why no longer schedule is tried; empty where one is."""
    last = race.rungs[-1]
    leader, *others = race.order
    kept = min_accuracy is not None and contest.score(leader, last.epochs).accuracy >= min_accuracy
    if kept and all(contest.difference(leader, other, epochs=last.epochs).shown for other in others):
        return f"{leader} keeps the limit of accuracy{' and is separated from the others' if others else ''}"
    if len(race.rungs) > 2 and max(rung.accuracy for rung in race.rungs[-2:]) <= race.rungs[-3].accuracy:
        return "validation accuracy has not risen over two rungs"
    return ""
