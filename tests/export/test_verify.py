"""`verify`: a good bundle is proven anywhere, without torch; an edit is caught by the check that understands it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from isolated import TORCH, cnnbench_without
from onnx import numpy_helper

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.types import Manifest


@pytest.fixture
def mine(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be edited."""
    return Path(shutil.copytree(bundle, tmp_path / "exports" / bundle.name))


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """`verify` exits with `code` and says so in one line on stderr, which is returned."""
    assert main(["verify", *map(str, arguments)]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("cnnbench: ")
    assert printed.err.count("\n") == 1
    return printed.err


def sign_anew(bundle: Path, **changes: Any) -> None:
    """Make the manifest fit the files again, as someone would who wants to pass an edited bundle off as proven."""
    manifest = replace(records.read(bundle / "manifest.json", Manifest), **changes)
    for name in manifest.files:
        file = bundle / name
        manifest.files[name].update(sha256=records.sha256(file), bytes=file.stat().st_size)
    records.write(bundle / "manifest.json", manifest)


def edit_arrays(file: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    with np.load(file) as stored:
        arrays = dict(stored)
    change(arrays)
    np.savez(file, **arrays)


def test_a_good_bundle_is_proven(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["hashes", "graph", "golden", "reference"]
    assert "is proven on cpu" in lines[-1]


def test_json_names_every_check(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle), "--rescore", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "proven"
    assert list(document["checks"]) == ["hashes", "graph", "golden", "reference", "rescore"]


def test_verify_leaves_the_bundle_as_it_was(mine: Path) -> None:
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    assert main(["verify", str(mine), "--rescore"]) == 0
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before


def test_it_needs_no_torch_even_to_score_again(bundle: Path) -> None:
    done = cnnbench_without(TORCH, "verify", bundle, "--rescore")
    assert (done.returncode, done.stderr) == (0, "")
    assert "rescore" in done.stdout


def test_the_blocker_of_the_test_above_does_block(bundle: Path) -> None:
    assert "imported torch" in cnnbench_without(TORCH, "export", bundle).stderr


def test_a_bundle_that_was_zipped_moved_and_unpacked_is_still_proven(bundle: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "bundle"), "zip", bundle)
    shutil.unpack_archive(archive, tmp_path / "far" / "renamed")
    assert main(["verify", str(tmp_path / "far" / "renamed"), "--rescore"]) == 0


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "reference.npz", "predict.py"])
def test_an_edited_file_is_caught(name: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((mine / name).read_bytes())
    data[len(data) // 2] ^= 1
    (mine / name).write_bytes(data)
    assert f"{name} was edited" in refused(capsys, 4, mine)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "reference.npz", "predict.py"])
def test_a_missing_file_is_caught(name: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mine / name).unlink()
    assert f"{name} is missing" in refused(capsys, 4, mine)


@pytest.mark.parametrize("key", ["task", "arch", "seed", "class_names", "verdict", "files", "environment"])
def test_an_edited_manifest_is_caught(key: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((mine / "manifest.json").read_text())
    content[key] = content["spec"]
    (mine / "manifest.json").write_text(json.dumps(content))
    assert "edited" in refused(capsys, 4, mine)


def test_a_damaged_manifest_is_refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (mine / "manifest.json").read_text()
    (mine / "manifest.json").write_text(text[: len(text) // 2])
    assert "not JSON" in refused(capsys, 3, mine)


def test_a_manifest_of_another_schema_is_refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((mine / "manifest.json").read_text()) | {"schema": "cnnbench.bundle/99"}
    (mine / "manifest.json").write_text(json.dumps(content))
    assert "cnnbench.bundle/99" in refused(capsys, 3, mine)


def test_no_bundle_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no bundle at" in refused(capsys, 3, tmp_path / "nowhere")
    assert "no bundle at" in refused(capsys, 3, tmp_path)


# --- edits whose manifest was signed anew -----------------------------------------------------------------------------


def test_a_bundle_signed_anew_without_an_edit_passes(mine: Path) -> None:
    sign_anew(mine)
    assert main(["verify", str(mine)]) == 0


def edit_graph(bundle: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(bundle / "model.onnx")
    change(model)
    onnx.save(model, bundle / "model.onnx")
    sign_anew(bundle)


def change_a_weight(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 0.5
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def fix_the_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2


def drop_the_metadata(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def test_a_changed_weight_shows_in_the_golden_logits(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_graph(mine, change_a_weight)
    assert "golden logits differ" in refused(capsys, 4, mine)


def test_a_fixed_batch_breaks_the_contract(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_graph(mine, fix_the_batch)
    assert "inputs and outputs" in refused(capsys, 4, mine)


def test_lost_metadata_is_caught(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_graph(mine, drop_the_metadata)
    assert "disagree on" in refused(capsys, 4, mine)


def test_swapped_class_names_disagree_with_the_graph(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sign_anew(mine, class_names=tuple("1023456789"))
    assert "disagree on class_names" in refused(capsys, 4, mine)


@pytest.mark.parametrize("change", [{"arch": "mlp"}, {"weights_sha256": "0" * 64}], ids=["arch", "weights"])
def test_another_claim_disagrees_with_the_graph(
    change: dict[str, Any], mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sign_anew(mine, **change)
    assert "disagree on" in refused(capsys, 4, mine)


def test_another_contract_is_caught(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contract = records.read(mine / "manifest.json", Manifest).contract
    contract["input"]["dtype"] = "float32"
    sign_anew(mine, contract=contract)
    assert "contract" in refused(capsys, 4, mine)


def test_a_flattered_accuracy_is_caught(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = records.read(mine / "manifest.json", Manifest).verdict
    sign_anew(mine, verdict=tuple(replace(result, torch_accuracy=0.999) for result in verdict))
    assert "the manifest claims 99.90%" in refused(capsys, 4, mine)


def test_changed_labels_no_longer_add_up(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["labels"][:9] = (arrays["predictions"][:9] + 1) % 10

    edit_arrays(mine / "reference.npz", change)
    sign_anew(mine)
    assert "reference.npz gives" in refused(capsys, 4, mine)


def test_labels_and_predictions_changed_together_show_when_scored_again(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["labels"][-9:], arrays["predictions"][-9:] = arrays["predictions"][-9:], arrays["labels"][-9:].copy()
        arrays["labels"][-1] = arrays["predictions"][-1] = (arrays["labels"][-1] + 5) % 10

    with np.load(mine / "reference.npz") as stored:
        right = stored["labels"][-1] == stored["predictions"][-1]
    assert right  # else the accuracy would change as well
    edit_arrays(mine / "reference.npz", change)
    sign_anew(mine)
    assert main(["verify", str(mine)]) == 0
    capsys.readouterr()
    assert "differ from the stored ones" in refused(capsys, 4, mine, "--rescore")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


@pytest.mark.parametrize("damage", [truncate, lambda file: file.write_bytes(b"")], ids=["truncated", "empty"])
@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "reference.npz"])
def test_a_damaged_file_is_told_in_one_line(
    name: str, damage: Callable[[Path], None], mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(mine / name)
    sign_anew(mine)
    code = 4 if name == "model.onnx" and not (mine / name).stat().st_size else 3  # no bytes are a valid, empty message
    refused(capsys, code, mine)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.update(pixels=arrays["pixels"].astype(np.float32)),
        lambda arrays: arrays.update(pixels=arrays["pixels"][:, :-1]),
        lambda arrays: arrays.update(logits=arrays["logits"][:3]),
        lambda arrays: arrays.update(logits=arrays["logits"] * np.float32("nan")),
        lambda arrays: arrays.update(pixels=arrays["pixels"][:0], logits=arrays["logits"][:0]),
    ],
    ids=["dtype", "shape", "rows", "nan", "none"],
)
def test_golden_inputs_that_prove_nothing_are_refused(
    change: Callable[[dict[str, np.ndarray]], None], mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_arrays(mine / "golden.npz", change)
    sign_anew(mine)
    refused(capsys, 4, mine)


def test_an_array_that_is_not_there_is_told(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_arrays(mine / "reference.npz", lambda arrays: arrays.pop("labels"))
    sign_anew(mine)
    assert "labels" in refused(capsys, 3, mine)


def test_an_unknown_provider_is_refused_by_name(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected cpu or cuda" in refused(capsys, 2, bundle, "--provider", "tpu")
