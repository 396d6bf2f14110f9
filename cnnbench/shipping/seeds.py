"""More seeds for the last two or three networks until one is separated, and other learning rates for the leader."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

from cnnbench.shipping.contest import Contest
from cnnbench.shipping.trial import Trial
from cnnbench.tables.text import plural

FINALISTS = 3
"""Networks at most whose seeds are compared."""
SEEDS = range(2, 6)
LR_FACTORS = (0.5, 2.0)
"""Times the learning rate of the task, which is the third value."""


def settle(
    ranked: Sequence[str],
    epochs: int,
    *,
    contest: Contest,
    left: MutableMapping[str, tuple[str, str]],
) -> tuple[str, ...]:
    """Compare networks over more and more seeds until the best is separated from all others, or there is no time.

    Args:
        ranked: The networks, best first.
        epochs: Epochs of their schedule.
        contest: What is known.
        left: By network when it left, and why; those that are separated are added.

    Returns:
        The networks, best first.
    """
    rivals = list(ranked)
    for seed in SEEDS:
        rivals = contest.ranked(rivals, epochs)
        separated = [arch for arch in rivals[1:] if contest.difference(rivals[0], arch, epochs=epochs).shown]
        for arch in separated:
            found = contest.difference(rivals[0], arch, epochs=epochs)
            ends = f"95 % interval {100 * found.low:.2f} to {100 * found.high:.2f}"
            why = f"{100 * found.mean:.2f} points behind {rivals[0]} over {plural(found.seeds, 'seed')} ({ends})"
            left[arch] = (f"seeds with {plural(epochs, 'epoch')}", why)
            rivals.remove(arch)
        trials = contest.trials(rivals, epochs, seed=seed)
        if len(rivals) < 2 or not contest.fits(trials, archs=rivals):
            break
        contest.train(trials, what=f"seed {seed} of {', '.join(rivals)}, {plural(epochs, 'epoch')}", archs=rivals)
        if not all(contest.has(arch, epochs, seed=seed) for arch in rivals):
            break
    rivals = contest.ranked(rivals, epochs)
    return (*rivals, *(arch for arch in ranked if arch not in rivals))


def tune(leader: str, epochs: int, *, contest: Contest) -> None:
    """Train the leader with half and twice its learning rate, with the usual split, where there is time."""
    trials = [Trial(leader, epochs, lr_factor=factor) for factor in LR_FACTORS]
    if contest.fits(trials, archs=[leader]):
        contest.train(trials, what=f"{leader} with half and twice the learning rate", archs=[leader])
