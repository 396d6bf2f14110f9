"""The race: rungs of complete short schedules, of which at most half of the networks go on to the next, longer one.

Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943) with a factor of three in epochs. A rung trains each
network anew with a whole schedule: the first epochs of a long one-cycle schedule, whose learning rate still rises, rank
nothing. The first rung is as long as the time allows: a short schedule ranks networks by how fast they start. With the
time that is left after the last rung, networks that had left although nothing showed them to be worse get its schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cnnbench.progress import in_words
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
    returned: tuple[str, ...] = ()
    """Those that had left before, and got this schedule with the time that was left; then no longer one follows."""


@dataclass
class Race:
    """How the race went."""

    rungs: list[Rung] = field(default_factory=list)
    left: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By network: when it left, and why."""
    undecided: list[str] = field(default_factory=list)
    """Those that left for lack of time, before they had learnt anything, or although not separable from the last that
    went on."""
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
    """Let networks compete until the longest schedule is reached, or there is no reason or no time to go on.

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
        race.ended = _reason_to_stop(race, contest, min_accuracy=min_accuracy)
        if race.ended:
            return
        if place + 1 == len(EPOCHS):
            race.ended = "the longest schedule was reached"
            break
        standing = _promoted(race, EPOCHS[place + 1], contest)
        if not standing:
            race.ended = f"no time for {EPOCHS[place + 1]} epochs"
            break
    _second_chance(race, contest)
    last = race.rungs[-1]
    if len(last.ranked) > 1:
        race.settled = settle(last.ranked[:FINALISTS], last.epochs, contest=contest, left=race.left)
    for arch in last.returned:
        if arch not in race.left and arch != race.leader:
            told = behind(arch, race.order[0], epochs=last.epochs, contest=contest)
            race.left[arch] = (f"second chance with {plural(last.epochs, 'epoch')}", told)


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
        race.undecided.append(arch)
    return standing


def _first_rung(standing: Sequence[str], contest: Contest) -> int:
    """Where to begin: with the longest schedule that all have time for, but the last one, which only one begins with.

    Forecasts of what was never trained here are generous, so that time for the next rung is likely to be left.
    """
    place = len(EPOCHS) - (1 if len(standing) == 1 else 2)
    while place and not contest.fits(contest.trials(standing, EPOCHS[place]), archs=standing):
        place -= 1
    return place


def _train(race: Race, archs: Sequence[str], epochs: int, contest: Contest, *, returned: bool = False) -> bool:
    """Train a rung, or networks that return to the last one; False where nothing gave a result."""
    trials = contest.trials(archs, epochs)
    about = in_words(contest.trainer.forecast(trials))
    what = f"{plural(epochs, 'epoch')}: {', '.join(archs)}{', too' * returned}, about {about}"
    before = race.rungs[-1].ranked if returned else ()
    contest.train(trials, what=what, archs=[*before, *archs])
    for arch in archs:
        if not contest.has(arch, epochs):
            reasons = [contest.failed[trial] for trial in contest.trials([arch], epochs) if trial in contest.failed]
            race.left[arch] = (plural(epochs, "epoch"), f"no result: {reasons[0] if reasons else 'stopped'}")
    ranked = contest.ranked([*before, *archs], epochs)
    there = [arch for arch in ranked if arch in archs]
    if not there:
        race.ended = race.ended or f"no network gave a result with {plural(epochs, 'epoch')}"
        return False
    score = contest.score(ranked[0], epochs)
    race.rungs.append(Rung(epochs, tuple(ranked), score.accuracy, tuple(there) if returned else ()))
    contest.say(f"{plural(epochs, 'epoch')}: {ranked[0]} leads with {score.text} on validation; {contest.time_left}")
    contest.note()
    return True


def _promoted(race: Race, epochs: int, contest: Contest) -> list[str]:
    """The networks of the last rung that go on: at most half, the best first, but those that there is no time for."""
    last = race.rungs[-1]
    half = max(1, len(last.ranked) // 2)
    promoted, late = list[str](), list[str]()
    for arch in last.ranked:
        if len(promoted) == half:
            break
        chosen = [*promoted, arch]
        (promoted if contest.fits(contest.trials(chosen, epochs), archs=chosen) else late).append(arch)
    if not promoted:
        return []
    for arch in last.ranked:
        if arch in promoted:
            continue
        begun = contest.has_begun(arch, last.epochs)
        whys = [f"no time for {epochs} epochs"] * (arch in late) + ["it has learnt nothing yet"] * (not begun)
        if last.ranked.index(arch) > last.ranked.index(promoted[-1]):
            whys.append(behind(arch, promoted[-1], epochs=last.epochs, contest=contest))
        race.left[arch] = (plural(last.epochs, "epoch"), "; ".join(whys))
        if arch in late or not begun or not contest.difference(promoted[-1], arch, epochs=last.epochs).shown:
            race.undecided.append(arch)
    return promoted


def _second_chance(race: Race, contest: Contest) -> None:
    """Train networks that left undecided with the schedule of the last rung, as many as there is time for.

    Those that got further come first, then the more accurate ones; last those that were never trained.
    """
    last = race.rungs[-1]
    furthest = {
        arch: max((epochs for epochs in EPOCHS if contest.has(arch, epochs)), default=0) for arch in race.undecided
    }

    def order(arch: str) -> tuple[int, float]:
        epochs = furthest[arch]
        return -epochs, -contest.score(arch, epochs).accuracy if epochs else race.undecided.index(arch)

    back = list[str]()
    for arch in sorted(race.undecided, key=order):
        chosen = [*back, arch]
        if contest.fits(contest.trials(chosen, last.epochs), archs=[*last.ranked, *chosen]):
            back = chosen
    if back and _train(race, back, last.epochs, contest, returned=True):
        for arch in race.rungs[-1].returned:
            race.left.pop(arch)


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
