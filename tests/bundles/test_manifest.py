"""How every reader opens a manifest: a folder without one is not a bundle, in the same words everywhere."""

from pathlib import Path

import msgspec
import pytest
from builders import run_record, write_bundle

from cnnbench import api, records
from cnnbench.bench import plan
from cnnbench.bundles.manifest import is_bundle, open_manifest, read_export, require_bundle
from cnnbench.bundles.verify import verify_bundle
from cnnbench.records.bundle import EarlierManifest
from cnnbench.runtime.predict import Model
from cnnbench.types import CnnbenchError, Exit


def test_a_bundle_is_opened_by_its_folder() -> None:
    folder = write_bundle(run_record())
    assert is_bundle(folder)
    assert require_bundle(str(folder)) == folder
    assert open_manifest(str(folder)).task == "d_a"


@pytest.mark.parametrize(
    "reader", [require_bundle, open_manifest, verify_bundle, lambda path: plan.find_bundles([path])]
)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("empty", "is not a bundle: it has no manifest.json; "),
        ("nowhere", "does not exist: expected a bundle, "),
    ],
)
def test_a_folder_without_a_manifest_is_refused(reader: object, name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert not is_bundle(tmp_path / name)
    with pytest.raises(CnnbenchError, match=f"{name} {said}") as refused:
        reader(tmp_path / name)  # type: ignore[operator]
    assert refused.value.code == Exit.DATA


def test_a_measurement_reads_each_manifest_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(run_record())
    opened = []
    monkeypatch.setattr(plan, "open_manifest", lambda path: opened.append(path) or open_manifest(path))
    monkeypatch.setattr(plan, "_require_unedited", lambda *_: None)
    plan.setups([folder], plan.LatencyOptions(precisions=["fp32", "fp32"], threads=[1, 1]))
    assert opened == [folder]


def test_a_manifest_of_the_version_before_is_shown_in_tables_and_nothing_else() -> None:
    """The record of a bundle without a proof: its figures stay, and its files are neither verified nor run."""
    folder = write_bundle(run_record())
    manifest = msgspec.to_builtins(open_manifest(folder))
    for name in ("schema", "proof", "preprocessing", "calibration", "licence"):
        del manifest[name]
    records.write(folder / "manifest.json", msgspec.convert(manifest, EarlierManifest))
    assert read_export(folder / "manifest.json").kept[0].file == "model.onnx"
    for reader in (open_manifest, verify_bundle, api.load):
        with pytest.raises(CnnbenchError, match="of an earlier version, without a proof: run `cnnbench export` again"):
            reader(folder)
    with pytest.raises(ValueError, match=r"expected cnnbench\.bundle/3; run `cnnbench export` again"):
        Model(folder)
