"""`verify` tested by mutation: every fault is put into a good bundle, which is then signed anew.

Hashes catch an edit trivially, so each mutant's manifest is made to fit again, and so is the card, as a forger would.
The check that understands the fault must catch it. What no behaviour can show must pass, and is named. The mutants are
in mutants_*.py; `--mutants` writes what became of each to docs/mutants.md.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mutants_claims
import mutants_figures
import mutants_files
import mutants_graph
import mutants_network
import onnx
import pytest
from export_helpers import Colour, Forger
from mutants_network import unused_node
from mutations import Mutant, Row, Table, caught, measured, names_in_document, of_claim, parameters, verified

from cnnbench import records
from cnnbench.records.bundle import Manifest

CAUGHT = [
    *mutants_network.CAUGHT,
    *mutants_graph.CAUGHT,
    *mutants_claims.CAUGHT,
    *mutants_figures.CAUGHT,
    *mutants_files.CAUGHT,
]
PASSING = [*mutants_network.PASSING, *mutants_claims.PASSING]


def test_a_bundle_signed_anew_without_a_change_is_verified(forger: Forger) -> None:
    forger.graph(lambda model: None)
    forger.restate()
    forger.sign()
    seen = {check.name: check.detail for check in verified(forger, rescore=True)}
    assert list(seen) == ["hashes", "manifest", "card", "confined", "graph", "proof", "golden", "reference", "rescore"]
    assert "edited" not in str(seen)


@pytest.mark.parametrize("mutant", parameters(CAUGHT))
def test_the_check_that_understands_the_fault_catches_it(mutant: Mutant, forger: Forger, mutants: Table) -> None:
    mutant.put_into(forger)
    mutants.add(caught(forger, mutant))


@pytest.mark.parametrize("mutant", parameters([mutant for mutant in CAUGHT if mutant.check == "rescore"]))
def test_what_only_the_test_images_show_is_not_seen_without_them(mutant: Mutant, forger: Forger) -> None:
    mutant.put_into(forger)
    verified(forger)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", parameters(PASSING))
def test_what_no_behaviour_shows_passes_and_is_named(mutant: Mutant, forger: Forger, mutants: Table) -> None:
    before = (forger.path / "model.onnx").read_bytes()
    mutant.put_into(forger)
    assert (forger.path / "model.onnx").read_bytes() != before
    with measured() as meter:
        verified(forger, rescore=True)
    mutants.passed(replace(mutant, rescore=True), meter)


def test_html_in_a_class_name_is_text_in_the_card(forger: Forger, mutants: Table) -> None:
    mutants_claims.HTML.put_into(forger)
    with measured() as meter:
        verified(forger)
    assert "<script" not in (forger.path / "README.md").read_text()
    mutants.passed(mutants_claims.HTML, meter)


def test_prose_of_another_version_is_told_behind_the_verdict(forger: Forger, mutants: Table) -> None:
    forger.file("README.md", lambda data: data + b"It is 99.99 % right.\n")
    forger.claim(card="of another version")
    forger.sign(new_card=False)
    with measured() as meter:
        seen = next(check for check in verified(forger) if check.name == "card")
    (warning,) = seen.warnings
    assert "its text is of another version or edited" in seen.detail
    assert "README.md is of another version of cnnbench, or was edited" in warning
    name = "the text of the card edited, and said to be of another version"
    mutants.add(Row(name, "a warning of `card`", warning, meter.seconds, meter.mebibytes))


def test_a_task_that_leads_out_of_its_folder_is_refused_before_any_check(
    forger: Forger, mutants: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("cnnbench.records.schema.check_name", lambda name: name)
        forger.claim(task="..")
        forger.sign()
    name = "a task that leads out of its folder"
    mutants.add(caught(forger, of_claim(name, nothing, "", "the task's name is '..'")))


def test_edits_that_nobody_signed_are_caught_by_their_hash(forger: Forger, mutants: Table) -> None:
    forger.graph(unused_node)
    name = "any file edited, nothing signed anew"
    mutants.add(caught(forger, of_claim(name, nothing, "hashes", "was edited")))


@pytest.mark.parametrize(("name", "check"), [("manifest.json", "hashes"), ("golden.npz", "hashes")])
def test_a_file_that_the_user_may_not_read_is_told(name: str, check: str, forger: Forger, mutants: Table) -> None:
    """Root reads every file: it is another user here while the bundle is verified, in a folder that all can read."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        path = Path(shutil.copytree(forger.path, Path(place) / forger.path.name))
        (path / name).chmod(0)
        mutant = of_claim(f"{name} that the user may not read", nothing, check, "Permission denied")
        moved = Forger(forger.path)
        moved.path = path
        with as_an_ordinary_user():
            row = caught(moved, mutant)
    mutants.add(row)


@contextmanager
def as_an_ordinary_user() -> Iterator[None]:
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def nothing(_: Forger) -> None:
    """The fault was put in before."""


def test_every_mutant_has_a_name_of_its_own_and_a_row_in_the_documentation(mutants: Table) -> None:
    names = [mutant.name for mutant in (*CAUGHT, *PASSING)]
    assert len({*names}) == len(names) >= 60
    assert mutants.path or {*names} <= {*names_in_document()}  # it is written at the end of the session


def test_the_metadata_hold_what_the_manifest_claims(colour: Colour) -> None:
    """Else `restate` would prove nothing."""
    said = {item.key: item.value for item in onnx.load(colour.bundle / "model.onnx").metadata_props}
    assert json.loads(said["class_names"]) == [*records.read(colour.bundle / "manifest.json", Manifest).class_names]
