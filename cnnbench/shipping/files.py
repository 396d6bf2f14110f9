"""Which file to ship: those of the best networks, scored on validation images, and the rules of `choose`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cnnbench.bundles.quantise import PRECISIONS
from cnnbench.bundles.trial import TrialFile, try_files
from cnnbench.shipping.contest import Contest
from cnnbench.shipping.race import Race
from cnnbench.shipping.runs import Runs
from cnnbench.shipping.seeds import FINALISTS
from cnnbench.shipping.trial import Finished, Trial
from cnnbench.tables.candidates import Candidate, Score, baseline_of, compared
from cnnbench.tables.choose import Choice, choose_file
from cnnbench.tables.gather import Records
from cnnbench.tables.limits import Limits
from cnnbench.tables.rows import LatencyKey, Percentiles, row_of

MAX_ACCURACY_LOSS = 0.2
"""Points of validation accuracy that a file of lower precision may lose, as `export` has it."""


@dataclass(frozen=True)
class Selection:
    """The choice of a file, and which run each candidate is of."""

    choice: Choice
    trials: dict[str, Trial]
    """By task and seed, as `key` names them."""

    @property
    def trial(self) -> Trial | None:
        """Measurement of the chosen file."""
        chosen = self.choice.chosen
        return self.trials[key(chosen)] if chosen else None


def key(candidate: Candidate) -> str:
    """Names the run of a candidate."""
    record = candidate.row.runs[0].record
    return f"{record.task} seed {record.seed}"


def best_run(arch: str, contest: Contest) -> Finished | None:
    """The run of a network, trained with the usual split, that is best on validation; of equals the longest."""
    of_arch = [found for trial, found in contest.finished.items() if trial.arch == arch and trial.fold is None]
    return max(of_arch, key=lambda found: (found.accuracy, found.trial.epochs, -found.trial.seed), default=None)


def finalists(race: Race, contest: Contest, *, limits: Limits) -> list[str]:
    """Networks whose files are made: the leader, and those that could be chosen before it.

    Without a limit the most accurate file is shipped, so that others matter only where they are as accurate. With a
    limit of accuracy the cheapest that reach it could; with another limit, the next ones that were compared last.
    """
    leader = race.leader
    assert leader is not None
    accuracy = {arch: found.accuracy for arch in contest.macs if (found := best_run(arch, contest))}
    if limits.min_accuracy is not None:
        least = limits.min_accuracy
        others = sorted((arch for arch in accuracy if accuracy[arch] >= least), key=lambda arch: contest.macs[arch])
    elif limits == Limits():
        others = [arch for arch in accuracy if accuracy[arch] >= accuracy.get(leader, 0.0)]
    else:
        others = []
    if not others and limits != Limits():
        others = list(race.settled) or [arch for rung in reversed(race.rungs) for arch in rung.ranked]
    return list(dict.fromkeys([leader, *others]))[:FINALISTS]


def candidates_of(trial: Trial, runs: Runs) -> list[Candidate]:
    """The files of a run, scored on the validation images."""
    run = runs.run(trial)
    row = row_of([run], Records())
    baseline = baseline_of([run], run.record.class_names)
    files = try_files(run.folder, precisions=PRECISIONS, max_accuracy_loss=MAX_ACCURACY_LOSS)

    def candidate(file: TrialFile) -> Candidate:
        if file.refused:
            return Candidate(row=row, precision=file.precision, refused=file.refused, before_test=True)
        return Candidate(
            row=row,
            precision=file.precision,
            bytes=file.bytes,
            val=Score(file.correct, file.images),
            latency=LatencyKey(),
            percentiles=Percentiles.of(file.seconds),
            baseline=baseline,
            before_test=True,
        )

    return [candidate(file) for file in files]


def select(known: Sequence[Candidate], limits: Limits, *, entered: int) -> Choice:
    """The cheapest file that keeps the limits; without a limit of accuracy it has to be as accurate as the best.

    See `tables.choose.choose_file`; the best is that of the files that keep the other limits. The `entered` networks
    were compared by the same images.
    """
    among = entered + compared(known)
    if limits.min_accuracy is None:
        keeping = [each for each in known if choose_file([each], limits, among=among).chosen]
        best = max((each.val.accuracy for each in keeping if each.val), default=None)
        if best is not None:
            return choose_file(known, replace(limits, min_accuracy=best), among=among)
    return choose_file(known, limits, among=among)
