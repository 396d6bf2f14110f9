"""`ship`: from images to a proven network within a time budget. Every choice is made on validation images."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cnnbench import progress, records
from cnnbench.arguments import checked
from cnnbench.progress import in_words
from cnnbench.shipping import commands, finish, race
from cnnbench.shipping.candidates import Entrant, entrants, small_networks
from cnnbench.shipping.clock import Clock, Now
from cnnbench.shipping.contest import Contest, on_stderr
from cnnbench.shipping.decide import decision_of
from cnnbench.shipping.files import Selection, best_run, candidates_of, finalists, key, select
from cnnbench.shipping.images import ShipImages, majority, of_dataset, of_folder
from cnnbench.shipping.page import write_page
from cnnbench.shipping.record import Decision, Request
from cnnbench.shipping.runs import Runs
from cnnbench.shipping.seeds import FINALISTS, tune
from cnnbench.shipping.trial import FOLDS, Trial
from cnnbench.sweeps.executors import Executor, Option
from cnnbench.sweeps.warm import Start, WarmParent
from cnnbench.tables.candidates import Candidate
from cnnbench.tables.limits import Limits
from cnnbench.types import CnnbenchError

DECISION = "decision.json"


@dataclass
class State:
    """What is known while it goes on."""

    request: Request
    images: ShipImages
    out: Path
    contest: Contest
    runs: Runs
    entered: list[Entrant]
    race: race.Race = field(default_factory=race.Race)
    known: list[Candidate] = field(default_factory=list)
    selection: Selection | None = None
    interrupted: bool = False

    def keep(self, decision: Decision | None = None) -> Decision:
        """Write decision.json."""
        found = decision or decision_of(self)
        records.write(self.out / DECISION, found)
        return found


@checked
def ship(
    folder: str | Path | None = None,
    *,
    dataset: str | None = None,
    budget_seconds: float = 1800.0,
    min_accuracy: float | None = None,
    max_latency_ms: float | None = None,
    max_bytes: int | None = None,
    arch: str | Sequence[str] = (),
    out: str | Path | None = None,
    seed: int = 1,
    executor: Executor = "local",
    jobs: int | None = None,
    options: Mapping[str, Option] | None = None,
    say: Callable[[str], None] = on_stderr,
    now: Now = time.monotonic,
    began: float | None = None,
) -> Decision:
    """From images to a verified file: an audit, a race of small networks, a choice, one test, a bundle and a page.

    The folder `out` holds runs/, exports/<task>/, latency.json, report.html, decision.json and commands.sh. The same
    call goes on where it was stopped, and gives back its decision once it has ended.

    Args:
        folder: Your own images; see `DataConfig.folder`.
        dataset: A registered data set, in place of a folder.
        budget_seconds: Wall clock for all of it, earlier attempts of the same call included.
        min_accuracy, max_latency_ms, max_bytes: See `Limits`.
        arch: Networks that compete; by default the registered small ones, at most 12.
        out: By default shipped/<name of the images>.
        seed: Seed of the first run of each network; further ones follow it.
        executor, options: Where runs are done; see `executors.execute`.
        jobs: Runs at a time on this machine; by default one per core.
        say: Called with a line for each step.
        now: The clock.
        began: When the time begins, by the clock; by default with the call.

    Returns:
        The decision; `chosen` is None where no file keeps the limits.

    Raises:
        CnnbenchError: A name, a limit or `out` cannot be used, or the budget is too short (exit 2); there is nothing to
            learn from (exit 3); the file is not the trained network (exit 4); the executor cannot be used (exit 6).
    """
    if (folder is None) == (dataset is None):
        raise CnnbenchError("ship: name a folder of images, or a data set with --dataset, such as --dataset mnist5k")
    if not budget_seconds > 0:
        raise CnnbenchError(f"budget of {budget_seconds:g} s: expected more than 0")
    named = (arch,) if isinstance(arch, str) else tuple(arch)
    began = now() if began is None else began
    say(f"{folder or dataset}: reading and checking the images; {in_words(budget_seconds)} left")
    progress.doing("reading and checking the images", left=budget_seconds - (now() - began))
    Limits(min_accuracy=min_accuracy, max_latency_ms=max_latency_ms, max_bytes=max_bytes)  # refused before any work
    with WarmParent() as parent:
        if executor == "local":
            parent.prepare(_places(jobs))
        images = of_folder(folder) if folder is not None else of_dataset(str(dataset))
        place = Path(out) if out is not None else Path("shipped") / images.data.name
        request = Request(
            dataset=images.config.dataset,
            folder=images.config.folder,
            archs=named,
            budget_seconds=float(budget_seconds),
            min_accuracy=min_accuracy,
            max_latency_ms=max_latency_ms,
            max_bytes=max_bytes,
            seed=seed,
        )
        earlier = _earlier(place / DECISION, request, images, say)
        if earlier and earlier.finished and earlier.request.budget_seconds >= budget_seconds:
            say(f"{place} holds the decision already")
            return earlier
        records.require_writable(place / DECISION)
        clock = Clock(float(budget_seconds), began, earlier.seconds if earlier else 0.0, now)
        for line in images.found:
            say(line)
        runs = _runs(images, place, seed=seed, executor=executor, jobs=jobs, options=options, start=parent.start)
        state = _state(request, images, out=place, runs=runs, clock=clock, say=say)
        return _go(state, limits_of(request), start=parent.start)


def limits_of(request: Request) -> Limits:
    """What a file has to keep."""
    return Limits(min_accuracy=request.min_accuracy, max_latency_ms=request.max_latency_ms, max_bytes=request.max_bytes)


def _earlier(path: Path, request: Request, images: ShipImages, say: Callable[[str], None]) -> Decision | None:
    """What an earlier attempt of the same call on the same images left."""
    if not path.exists():
        return None
    try:
        found = records.read(path, Decision)
    except CnnbenchError as error:
        say(f"{error}; the budget begins anew, and runs that are done stay")
        return None
    same = records.replace(found.request, budget_seconds=request.budget_seconds) == request
    return found if same and found.images.sha256 == images.data.sha256 else None


def _runs(
    images: ShipImages,
    out: Path,
    *,
    seed: int,
    executor: Executor,
    jobs: int | None,
    options: Mapping[str, Option] | None,
    start: Start,
) -> Runs:
    return Runs(
        name=images.data.name,
        dataset=images.config.dataset,
        flags=images.flags,
        recipe=images.recipe,
        folder=(out / "runs").resolve(),
        executor=executor,
        options=options,
        jobs=_places(jobs),
        first_seed=seed,
        start=start,
    )


def _places(jobs: int | None) -> int:
    """Runs at a time on this machine."""
    if jobs is not None and jobs < 1:
        raise CnnbenchError(f"--jobs {jobs}: expected at least 1")
    return jobs or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _state(
    request: Request, images: ShipImages, *, out: Path, runs: Runs, clock: Clock, say: Callable[[str], None]
) -> State:
    """Everything before the first run: the networks that compete, and the reserve for what comes after them."""
    spec, limits = images.data.spec, limits_of(request)
    entered = entrants(request.archs or small_networks(), spec, limits=limits, named=bool(request.archs))
    folds: tuple[str | None, ...] = FOLDS if images.few else (None,)
    files = 1 if limits == Limits() else FINALISTS

    def reserve(arch: str) -> float:
        after = finish.seconds(arch, runs, images=images, files=files)
        if images.few:  # the shipped network is trained with the usual split
            after += files * runs.forecast([Trial(arch, race.EPOCHS[-1])])
        return after

    macs = {entrant.arch: entrant.cost.macs for entrant in entered if not entrant.dropped}
    holder: list[State] = []
    contest = Contest(
        trainer=runs,
        clock=clock,
        macs=macs,
        reserve=reserve,
        majority=majority(images.ranking_labels, images.data.class_names)[1],
        folds=folds,
        say=say,
        note=lambda: _noted(holder),
    )
    state = State(request, images, out, contest, runs, entered)
    holder.append(state)
    for entrant in entered:
        if entrant.dropped:
            say(f"{entrant.arch} is left out: {entrant.dropped}")
            state.race.left[entrant.arch] = ("before training", entrant.dropped)
    return state


def _noted(holder: Sequence[State]) -> None:
    holder[0].keep()


def _go(state: State, limits: Limits, *, start: Start) -> Decision:
    contest, standing = state.contest, list(state.contest.macs)
    if not standing:
        state.race.ended = "no network can keep the limits"
        return _without(state)
    _require_time(contest, standing)
    try:
        race.run(state.race, standing, contest=contest, min_accuracy=limits.min_accuracy)
        if state.race.leader and state.race.rungs:
            tune(state.race.leader, state.race.rungs[-1].epochs, contest=contest)
    except KeyboardInterrupt:
        state.interrupted, state.race.ended = True, "interrupted"
        if not state.race.leader:
            raise
        _heed_ctrl_c()
        contest.say(f"interrupted: shipping {state.race.leader}, the best so far; again to stop")
    if not state.race.leader:
        reasons = "; ".join(dict.fromkeys(contest.failed.values())) or state.race.ended
        raise CnnbenchError(f"no network could be trained: {reasons}")
    _choose(state, limits)
    assert state.selection is not None
    if state.selection.trial is None:
        return _without(state)
    state.keep()
    chosen = finish.ship_file(
        state.selection, out=state.out, runs=state.runs, images=state.images, contest=contest, start=start
    )
    _write_commands(state)
    contest.begin("page")
    write_page(decision_of(state, chosen=chosen, finished=True), state.out)
    return state.keep(decision_of(state, chosen=chosen, finished=True))


def _heed_ctrl_c() -> None:
    """Let a second Ctrl-C end it: a verb ignores those that follow the first."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _require_time(contest: Contest, standing: Sequence[str]) -> None:
    """Refuse a budget in which not even the cheapest network can be trained and shipped.

    Raises:
        CnnbenchError: As said (exit 2).
    """
    if contest.clock.before:
        return  # it was long enough for what is there
    least = min(
        contest.reserve(arch) + contest.trainer.forecast(contest.trials([arch], race.EPOCHS[0])) for arch in standing
    )
    if least > contest.clock.left:
        raise CnnbenchError(
            f"a budget of {in_words(contest.clock.budget)} is too short: training, export, verification, latency and "
            f"page of one network take about {in_words(least + contest.clock.used)}"
        )


def _choose(state: State, limits: Limits) -> None:
    """Make and score the files of the finalists, and choose one."""
    contest, epochs = state.contest, state.race.rungs[-1].epochs
    archs = finalists(state.race, contest, limits=limits)
    if state.interrupted:
        archs = archs[:1]
    missing = [Trial(arch, epochs) for arch in archs if best_run(arch, contest) is None]
    if missing:  # a cross-validation ranked
        contest.train(missing, what=f"the usual split, {', '.join(archs)}", archs=[])
    trials: dict[str, Trial] = {}
    for arch in archs:
        best = best_run(arch, contest)
        if best is None:
            continue
        contest.begin(f"files of {arch}, scored on validation images")
        made = candidates_of(best.trial, state.runs)
        state.known += made
        trials |= {key(candidate): best.trial for candidate in made}
    state.selection = Selection(select(state.known, limits, entered=len(state.entered)), trials)


def _without(state: State) -> Decision:
    """Nothing keeps the limits: what is known is written, no test image is read."""
    _write_commands(state)
    if state.race.rungs:
        write_page(decision_of(state, finished=True), state.out)
    return state.keep(decision_of(state, finished=True))


def _write_commands(state: State) -> None:
    trial = state.selection.trial if state.selection else None
    chosen = state.selection.choice.chosen if state.selection else None
    commands.write(
        state.out / "commands.sh",
        [state.runs.record(each) for each in state.contest.finished],
        chosen=state.runs.planned(trial).config if trial else None,
        task=state.runs.planned(trial).task if trial else "",
        precision=chosen.precision if chosen else "",
        command="cnnbench ship",
    )
