"""Whatever a file holds, the verbs that read it say one line, with the right exit code, and do nothing else."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import hostile_checkpoints
import hostile_images
import hostile_records
import hostile_ship
import hostile_tasks
import pages
import pytest
from hostile import Case, Outcome, done_by, fault

from cnnbench import pictures
from cnnbench.page.charts import base
from cnnbench.sweeps.warm import WarmParent

QUICK = [*hostile_records.cases(), *hostile_tasks.cases()]
OF_PREDICTIONS = hostile_ship.predictions()
OF_NETWORKS = hostile_checkpoints.cases()
"""In the place of the checkpoint of a run, or of the ONNX file of a bundle."""
OF_DECISIONS = hostile_ship.decisions()
OF_IMAGES = [*hostile_images.images()]
OF_ARCHIVES = [*hostile_images.archives()]


@pytest.fixture(autouse=True)
def _pictures_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_save", pages.sketch)
    monkeypatch.setattr(base, "svg_of", lambda spec: pages.SKETCH)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; nothing may be written above it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return folder


def outcomes(case: Case, work: Path, *, every: bool) -> Iterator[Outcome]:
    """What the verbs say: each of them, or one, which differs from case to case."""
    case.make()
    there = sorted(work.parent.iterdir())
    commands = case.commands if every else [case.commands[len(case.id) % len(case.commands)]]
    for command in commands:
        outcome = done_by(command)
        assert not fault(outcome, case, work.parent, there), command
        yield outcome


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.id)
def test_a_verb_says_one_line_and_does_nothing_else(case: Case, work: Path) -> None:
    assert list(outcomes(case, work, every=False))


@pytest.mark.slow
@pytest.mark.parametrize("case", [*QUICK, *OF_PREDICTIONS], ids=lambda case: case.id)
def test_every_verb_says_one_line_and_does_nothing_else(
    case: Case, work: Path, told: list[tuple[Case, Outcome]]
) -> None:
    told += [(case, outcome) for outcome in outcomes(case, work, every=True)]


@pytest.mark.slow
@pytest.mark.parametrize("case", OF_NETWORKS, ids=lambda case: case.id)
def test_every_verb_that_reads_a_network_does(
    case: Case, work: Path, run: Path, bundle: Path, told: list[tuple[Case, Outcome]]
) -> None:
    shutil.copytree(run.parent.parent, "runs")
    shutil.copytree(bundle.parent, "exports")
    told += [(case, outcome) for outcome in outcomes(case, work, every=True)]


@pytest.mark.slow
@pytest.mark.parametrize("case", OF_DECISIONS, ids=lambda case: case.id)
def test_ship_begins_anew_beside_a_damaged_decision(
    case: Case, work: Path, told: list[tuple[Case, Outcome]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WarmParent, "prepare", lambda *_: None)  # nothing is trained
    told += [(case, outcome) for outcome in outcomes(case, work, every=True)]


@pytest.mark.slow
@pytest.mark.parametrize("case", OF_ARCHIVES, ids=lambda case: case.id)
def test_every_verb_that_reads_an_archive_does(case: Case, work: Path, told: list[tuple[Case, Outcome]]) -> None:
    told += [(case, outcome) for outcome in outcomes(case, work, every=True)]


@pytest.mark.slow
@pytest.mark.parametrize("case", OF_IMAGES, ids=lambda case: case.id)
def test_every_verb_that_reads_images_does(
    case: Case, work: Path, bundle: Path, told: list[tuple[Case, Outcome]]
) -> None:
    shutil.copytree(bundle.parent, "exports")
    told += [(case, outcome) for outcome in outcomes(case, work, every=True)]


def test_there_are_enough_of_them_and_each_has_its_own_name() -> None:
    names = [case.id for case in (*QUICK, *OF_PREDICTIONS, *OF_NETWORKS, *OF_DECISIONS, *OF_ARCHIVES, *OF_IMAGES)]
    assert len(names) == len({*names}) >= 150


# --- the table of docs/faults.md ---


@pytest.fixture(scope="module")
def told(request: pytest.FixtureRequest) -> Iterator[list[tuple[Case, Outcome]]]:
    """What every verb said; written to --corpus, where that is given."""
    found: list[tuple[Case, Outcome]] = []
    yield found
    path = request.config.getoption("--corpus")
    if path:
        path.write_text(table(found), encoding="utf-8")


def table(found: list[tuple[Case, Outcome]]) -> str:
    """A row for each case: its verbs, its exit code, and the line of the first of them."""
    head = "# What verbs say of damaged and hostile files\n\nWritten by `pytest -n 0 --slow tests/faults/test_corpus.py"
    rows = [
        f"{head} --corpus docs/hostile.md`; see [faults.md](faults.md).\n",
        "| kind | case | verbs | exit | line of the first verb |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    by_case: dict[str, list[tuple[Case, Outcome]]] = {}
    for case, outcome in found:
        by_case.setdefault(case.id, []).append((case, outcome))
    for pairs in by_case.values():
        case, outcome = pairs[0]
        line = outcome.line.removeprefix("cnnbench: ")[:160].replace("|", "\\|") if case.code else "-"
        rows.append(f"| {case.kind} | {case.name} | {len(pairs)} | {case.code} | {line} |".replace("\\u", "\\\\u"))
    return "\n".join(rows) + "\n"
