"""`verify`: a good bundle is verified anywhere, without torch; what cannot be read is named in one line.

Faults that were signed anew, and the check that catches each, are in test_mutants.py.
"""

import copy
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from export_helpers import Arrays, Forger
from export_helpers import verify_fails as refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isolated import TORCH, cnnbench_without, python_without

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.bundles import evidence, verify
from cnnbench.bundles.evidence import CheckError
from cnnbench.bundles.parity import child
from cnnbench.records import io
from cnnbench.records.bundle import Answered, Manifest
from cnnbench.records.schema import ClassTally
from cnnbench.types import CnnbenchError, Exit

Content = dict[str, Any]

CHECKS = ["hashes", "manifest", "card", "confined", "graph", "proof", "golden", "reference"]


@pytest.fixture
def mine(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be edited."""
    return Path(shutil.copytree(bundle, tmp_path / "exports" / bundle.name))


def assert_three_files_were_checked_and_scored_again(printed: str) -> None:
    document = json.loads(printed)
    for name in ("golden", "rescore"):
        files = [seen.split(":")[0] for seen in document["checks"][name]]
        assert files == ["model.onnx", "model_fp16.onnx", "model_int8.onnx"]
    assert document["checks"]["graph"] == ["3 valid ONNX, contract and metadata as stated, weights inside"]


def test_each_file_is_checked_and_scored_again(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(three), "--rescore", "--format", "json"]) == 0
    assert_three_files_were_checked_and_scored_again(capsys.readouterr().out)


@pytest.mark.slow
def test_each_file_is_checked_and_scored_again_without_torch(three: Path) -> None:
    """tests/cli/test_verify.py shows it of a bundle with one file."""
    done = cnnbench_without(TORCH, "verify", three, "--rescore", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert_three_files_were_checked_and_scored_again(done.stdout)


@pytest.mark.slow
def test_the_parent_never_parses_a_graph(mine: Path) -> None:
    """An untrusted file is read in a child alone: the parent cannot load one here, and the good bundle is verified."""
    code = (
        "import sys; from cnnbench.bundles import verify\n"
        "verify.verify_bundle(sys.argv[1]); "
        "import onnx; onnx.load_model_from_string = onnx.load = None\n"
        "verify.verify_bundle(sys.argv[1]); print('verified')"
    )

    done = python_without(TORCH, code, mine)
    assert (done.stdout, done.stderr) == ("verified\n", "")


def test_a_bundle_of_floats_with_probabilities_is_verified(of_floats: Path) -> None:
    seen = [check.name for check in verify.verify_bundle(of_floats, rescore=True)]
    assert seen == [*CHECKS, "rescore"]


def test_the_proof_is_asked_again_and_quick_leaves_the_evaluation_out(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {check.name: check.detail for check in verify.verify_bundle(mine)}
    proof = records.read(mine / "manifest.json", Manifest).proof
    assert f"{len(proof.constants)} constants as proven" in seen["proof"]
    assert "24 of 24 golden images" in seen["proof"]
    assert [check.name for check in verify.verify_bundle(mine, quick=True)] == CHECKS
    assert main(["verify", str(mine), "--quick"]) == 0
    assert "constants as proven; not evaluated in float64 (--quick)" in capsys.readouterr().out


def test_little_time_still_evaluates_some_images(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "EXACT_SECONDS", 0.0)
    (detail,) = (check.detail for check in verify.verify_bundle(mine) if check.name == "proof")
    assert f"on {verify.EXACT_IMAGES} of 24 golden images" in detail


def test_verify_leaves_the_bundle_as_it_was(mine: Path) -> None:
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    for path in mine.iterdir():
        path.chmod(0o444)
    mine.chmod(0o555)
    try:
        assert main(["verify", str(mine), "--rescore"]) == 0
    finally:
        mine.chmod(0o755)
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before


def test_a_bundle_that_was_zipped_moved_and_unpacked_is_still_verified(bundle: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "bundle"), "zip", bundle)
    shutil.unpack_archive(archive, tmp_path / "far away" / "ünamed")
    assert main(["verify", str(tmp_path / "far away" / "ünamed"), "--rescore"]) == 0


def test_predict_py_of_a_bundle_is_never_run(mine: Path) -> None:
    (mine / "predict.py").write_text("from pathlib import Path\nPath('canary').touch()\n")
    Forger(mine).sign()
    with pytest.raises(CnnbenchError, match="read it, then allow it with --allow-predict") as caught:
        verify.verify_bundle(mine)
    assert caught.value.code == Exit.VERDICT
    seen = {check.name: check.detail for check in verify.verify_bundle(mine, rescore=True, allow_predict=True)}
    assert "edited or of a later version, and allowed" in seen["card"]
    assert main(["verify", str(mine), "--quick", "--allow-predict"]) == 0
    assert not [*Path().rglob("canary")]


def test_the_predict_py_of_an_earlier_version_is_told(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine / "predict.py").write_text("import sys\n")
    forger = Forger(mine)
    forger.claim(preprocessing=None, data=records.replace(forger.manifest.data, preprocessing=None))
    forger.sign()
    monkeypatch.setattr("cnnbench.bundles.scripts.VERSIONS", (records.sha256(mine / "predict.py"),))
    seen = {check.name: check.detail for check in verify.verify_bundle(mine, quick=True)}
    assert seen["card"].endswith("predict.py as in an earlier version")


def test_a_predict_py_that_does_not_know_preprocessing_is_refused_with_one(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "predict.py").write_text("import sys\n")
    Forger(mine).sign()
    earlier = (records.sha256(mine / "predict.py"),)
    monkeypatch.setattr("cnnbench.bundles.scripts.VERSIONS", earlier)
    assert "is of an earlier version and would not follow its preprocessing" in refused(capsys, 4, mine)
    monkeypatch.setattr("cnnbench.bundles.scripts.FOLLOWING", earlier)
    assert main(["verify", str(mine), "--quick"]) == 0


@pytest.mark.parametrize(
    "names",
    [
        [f"class {index}" for index in range(9)],
        ["\x1b[2J", *"abcdefghi"],
        ["", *"abcdefghi"],
        ["\u202egnp.exe", *"abcdefghi"],
        ["\udcff", *"abcdefghi"],
    ],
    ids=["nine", "an escape sequence", "empty", "turned text", "a surrogate"],
)
def test_class_names_are_as_many_as_outputs_and_can_be_printed(
    names: list[str], mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resealed(mine, lambda content: content.update(class_names=names))
    refused(capsys, 3, mine)


@pytest.mark.parametrize("place", ["task", "arch"])
def test_no_control_character_of_a_record_reaches_the_terminal(
    place: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resealed(mine, lambda content: content.update({place: "red \x1b[31m"}))
    assert "control characters" in refused(capsys, 3, mine)
    resealed(mine, lambda content: content.update({place: "red"}))
    (mine / "\x1b[31m.py").touch()
    line = refused(capsys, 4, mine)
    assert "\x1b" not in line
    assert "\\x1b[31m.py" in line


def test_it_ends_when_its_time_is_over(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "longer than is allowed; see --timeout" in refused(capsys, 3, mine, "--timeout", "0.001")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda content: content["data"].update(dataset="folder", size=6000), "6000 pixels a side"),
        (lambda content: content["data"].update(train_images=10**9), "bytes of images"),
    ],
    ids=["giant images", "countless images"],
)
def test_a_manifest_does_not_fill_memory_and_cache_with_images(
    change: Callable[[Content], object], word: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resealed(mine, change)
    assert word in refused(capsys, 4, mine, "--rescore")


@pytest.mark.parametrize(("key", "value"), [("height", 1025), ("channels", 65), ("num_classes", 100_001)])
def test_a_manifest_does_not_claim_images_of_any_size(
    key: str, value: int, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(index) for index in range(value)] if key == "num_classes" else [*"0123456789"]
    resealed(
        mine,
        lambda content: content.update(spec=content["spec"] | {key: value, "mean": [], "std": []}, class_names=names),
    )
    assert "expected at most 1024 pixels a side" in refused(capsys, 4, mine)


# --- edits ------------------------------------------------------------------------------------------------------------

FILES = ["model.onnx", "golden.npz", "reference.npz", "predict.py", "README.md", "flips.csv"]


@pytest.mark.parametrize("name", FILES)
def test_an_edited_file_is_caught(name: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((mine / name).read_bytes())
    data[len(data) // 2] ^= 1
    (mine / name).write_bytes(data)
    assert f"{name} was edited" in refused(capsys, 4, mine)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_caught(name: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mine / name).unlink()
    assert f"{name} is missing" in refused(capsys, 4, mine)


@pytest.mark.parametrize("key", ["task", "arch", "seed", "class_names", "reference", "variants", "files"])
def test_an_edited_manifest_breaks_its_seal(key: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((mine / "manifest.json").read_text())
    content[key] = content["spec"]
    (mine / "manifest.json").write_text(json.dumps(content))
    assert "does not match its seal" in refused(capsys, 4, mine)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "not JSON"),
        ('{"schema": "cnnbench.bundle/3", "task"', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "expected an object"),
        ("{}", "schema None"),
        ('{"schema": "cnnbench.bundle/99"}', "cnnbench.bundle/99"),
    ],
    ids=["empty", "cut", "nested", "a list", "no schema", "another schema"],
)
def test_a_manifest_that_is_none_is_refused(
    text: str, word: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "manifest.json").write_text(text)
    assert word in refused(capsys, 3, mine)


# --- damages, signed anew ---------------------------------------------------------------------------------------------


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


def flip_compressed_bytes(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[100:160] = bytes(60)
    file.write_bytes(data)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def pickled(file: Path) -> None:
    """Arrays of objects, which numpy would unpickle if it were allowed to."""
    with np.load(file) as stored:
        arrays = dict(stored)
    np.savez(file, **{name: np.array([{}], dtype=object) for name in arrays})  # type: ignore[arg-type]


def one_array(file: Path) -> None:
    """No archive, but what `np.save` writes."""
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))


@cache
def packed() -> bytes:
    file, much = BytesIO(), bytes(2**26 + 1)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for index in range(evidence.LARGEST_ARRAYS // 2**26):
            archive.writestr(f"{index}.npy", much)
    return file.getvalue()


def bomb(file: Path) -> None:
    """Few megabytes that unpack to a little more than is accepted."""
    file.write_bytes(packed())


def shape_of_all_memory(file: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1152921504606846976,)}"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("pixels", "places", "logits", "labels", "predictions"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


@pytest.mark.parametrize(
    "damage", [truncate, flip_compressed_bytes, empty, pickled, one_array, bomb, shape_of_all_memory]
)
@pytest.mark.parametrize("name", ["golden.npz", "reference.npz"])
def test_damaged_arrays_are_told_in_one_line(
    name: str, damage: Callable[[Path], None], mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(mine / name)
    Forger(mine).sign()
    assert f"{name} cannot be read" in refused(capsys, 3, mine)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("golden.npz", "pixels"),
        ("golden.npz", "logits"),
        ("golden.npz", "places"),
        *(("reference.npz", key) for key in ("labels", "predictions", "val_labels", "val_predictions")),
    ],
)
def test_an_array_that_is_not_there_is_told(
    name: str, key: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forger = Forger(mine)
    forger.arrays(name, lambda arrays: arrays.pop(key))
    forger.sign()
    assert key in refused(capsys, 3, mine)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.update(pixels=arrays["pixels"].astype(np.float32)),
        lambda arrays: arrays.update(pixels=arrays["pixels"][:, :-1]),
        lambda arrays: arrays.update(places=arrays["places"][:-1]),
        lambda arrays: arrays.update(places=arrays["places"] + 1_000_000),
        lambda arrays: arrays.update(places=np.full_like(arrays["places"], -1)),
        lambda arrays: arrays.update(places=arrays["places"].astype(np.float32)),
        lambda arrays: arrays.update(logits=arrays["logits"].astype(np.float32)),
        lambda arrays: arrays.update(pixels=np.uint8(1)),
        lambda arrays: arrays.update(logits=arrays["logits"][:3]),
        lambda arrays: arrays.update(logits=arrays["logits"][:, :3]),
        lambda arrays: arrays.update(logits=np.float32(1)),
        lambda arrays: arrays.update(logits=arrays["logits"].astype(str)),
        lambda arrays: arrays.update(logits=arrays["logits"] * np.float32("nan")),
        lambda arrays: arrays.update(pixels=arrays["pixels"][:0], logits=arrays["logits"][:0]),
        lambda arrays: arrays.update({name: arrays[name][:1] for name in ("pixels", "places", "logits")}),
    ],
    ids=[
        "floats",
        "other size",
        "a place too few",
        "places beyond the test split",
        "no test image",
        "places between images",
        "float32 logits",
        "one number",
        "fewer rows",
        "fewer classes",
        "a logit",
        "text",
        "nan",
        "no images",
        "the first alone",
    ],
)
def test_golden_arrays_that_prove_nothing_are_refused(
    change: Callable[[Arrays], None], mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forger = Forger(mine)
    forger.arrays("golden.npz", change)
    forger.sign()
    refused(capsys, 4, mine)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.update(predictions=arrays["predictions"][:-1]),
        lambda arrays: arrays.update(labels=arrays["labels"][:, None]),
        lambda arrays: arrays.update(labels=arrays["labels"].astype(str)),
        lambda arrays: arrays.update(labels=np.int32(1)),
        lambda arrays: arrays.update(labels=arrays["labels"][:0], predictions=arrays["predictions"][:0]),
        lambda arrays: arrays.update(val_labels=arrays["val_labels"][:-1]),
        lambda arrays: arrays.update(
            val_labels=arrays["val_labels"][:-1], val_predictions=arrays["val_predictions"][:-1]
        ),
    ],
    ids=["fewer predictions", "a column", "text", "one number", "none", "fewer labels", "fewer validation images"],
)
def test_reference_arrays_that_prove_nothing_are_refused(
    change: Callable[[Arrays], None], mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forger = Forger(mine)
    forger.arrays("reference.npz", change)
    forger.sign()
    refused(capsys, 4, mine)


@pytest.mark.parametrize(
    "text",
    [b"", b"no front matter", b"\xff\xfe", b"---\n" + b"[" * 10_000 + b"\n---\n", b"---\n2020-13-45: x\n---\n"],
    ids=["empty", "text", "bytes", "nested", "a date"],
)
def test_a_card_that_is_none_is_refused(text: bytes, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forger = Forger(mine)
    forger.file("README.md", lambda _: text)
    forger.sign(new_card=False)
    assert "claims something else" in refused(capsys, 4, mine)


# --- hostile manifests ------------------------------------------------------------------------------------------------


def resealed(bundle: Path, change: Callable[[Content], object]) -> None:
    """The manifest changed as plain JSON, so that it need not be one that we could write."""
    content = json.loads((bundle / "manifest.json").read_text())
    del content["seal"]
    change(content)
    (bundle / "manifest.json").write_text(json.dumps({**content, "seal": io.seal(content)}))


def leave_the_folder(content: Content) -> None:
    content["files"]["../outside"] = content["files"]["model.onnx"]


def model_elsewhere(place: str, content: Content) -> None:
    content["variants"][0]["file"] = place
    content["files"][place] = content["files"].pop("model.onnx")


def no_hash(content: Content) -> None:
    del content["files"]["predict.py"]


HOSTILE: dict[str, tuple[Callable[[Content], object], int]] = {
    "a file above the folder": (leave_the_folder, 4),
    "the model above the folder": (lambda c: model_elsewhere("../model.onnx", c), 3),
    "the model at an absolute path": (lambda c: model_elsewhere("/etc/passwd", c), 3),
    "the model in no file": (lambda c: c["variants"][0].update(file="model"), 3),
    "the model is another file": (lambda c: c["variants"][0].update(file="golden.npz"), 3),
    "a file without hash": (no_hash, 4),
    "no files": (lambda c: c.update(files={}), 3),
    "a file without its hash": (lambda c: c["files"].update({"model.onnx": {}}), 3),
    "another size": (lambda c: c["files"]["model.onnx"].update(bytes=1), 4),
    "another size of the variant": (lambda c: c["variants"][0].update(bytes=1), 4),
    "no variants": (lambda c: c.update(variants=[]), 3),
    "the only variant refused": (lambda c: c["variants"][0].update(refused="no"), 3),
    "no float32": (lambda c: c["variants"][0].update(precision="fp16", file="model_fp16.onnx"), 3),
    "an unknown precision": (lambda c: c["variants"].append(c["variants"][0] | {"precision": "fp8"}), 3),
    "float32 twice": (lambda c: c["variants"].append(c["variants"][0]), 4),
    "no passes": (lambda c: c["variants"][0].update(passes=[]), 3),
    "no images": (lambda c: c["reference"].update(images=0), 3),
    "an empty contract": (lambda c: c.update(contract={}), 3),
    "no input": (lambda c: c["contract"].pop("input"), 3),
    "a contract of another size": (lambda c: c["contract"]["input"].update(shape=["batch", 1, 1, 1]), 4),
    "another opset": (lambda c: c["contract"].update(opset=99), 4),
    "images of no size": (lambda c: c["spec"].update(height=0), 3),
    "a mean that is none": (lambda c: c["spec"].update(mean=1.0), 3),
    "nothing of its data": (lambda c: c.update(data={}), 3),
    "data of another kind": (lambda c: c["data"].update(sha256=None), 3),
    "no contract": (lambda c: c.pop("contract"), 3),
    "no reference": (lambda c: c.pop("reference"), 3),
    "variants of another kind": (lambda c: c.update(variants="fp32"), 3),
    "a variant that lacks a field": (lambda c: c["variants"][0].pop("budget_points"), 3),
    "files of another kind": (lambda c: c.update(files=["model.onnx"]), 3),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_manifest_is_one_line(name: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, code = HOSTILE[name]
    for place in ("../outside", "../model.onnx"):
        shutil.copyfile(mine / "model.onnx", mine / place)
    resealed(mine, change)
    refused(capsys, code, mine)


def test_a_manifest_sends_no_one_to_other_data(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --rescore the data are opened that the manifest names, and hold nothing against their hash."""
    resealed(mine, lambda c: c["data"].update(sha256="0" * 64))
    assert "not the images of the record" in refused(capsys, 3, mine, "--rescore")
    resealed(mine, lambda c: c["data"].update(dataset="../../etc"))
    refused(capsys, 2, mine, "--rescore")


def places(content: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value within a JSON document."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return (
        [place, *(way for key, value in pairs for way in places(value, (*place, key)))]
        if place
        else [way for key, value in pairs for way in places(value, (key,))]
    )


@pytest.fixture(scope="module")
def without_children(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(bundle, tmp_path_factory.mktemp("fuzzed") / bundle.name))


values = st.sampled_from([None, [], {}, "", "x", "../x", -1, 0, 1e308, float("inf"), True, ["x"], {"a": 1}, [[]]])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.slow
def test_no_edit_of_a_manifest_makes_a_traceback(
    data: st.DataObject, without_children: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every field left out or set to anything: it is refused, or makes no difference. Graphs are not run here."""
    with np.load(without_children / "golden.npz") as golden:
        honest = golden["logits"]

    def evaluated(_: object, request: child.ExactRequest, **__: object) -> int:
        np.save(request.out, honest)
        return len(honest)

    def run(_: object, __: object, ___: object, *, passes: Sequence[child.PassRequest], **____: object) -> Any:
        return [{size: np.resize(honest, (count, 10)) for size, count in each.sizes.items()} for each in passes]

    monkeypatch.setattr(evidence.OpenBundle, "logits", run)
    monkeypatch.setattr(verify.sandbox, "call", evaluated)
    content = msgspec.to_builtins(records.read(without_children / "manifest.json", Manifest))
    original = copy.deepcopy((without_children / "manifest.json").read_bytes())
    content = json.loads(json.dumps(content))
    *way, key = data.draw(st.sampled_from(places(content)))
    parent = content
    for step in way:
        parent = parent[step]
    if data.draw(st.booleans()):
        del parent[key]
    else:
        parent[key] = data.draw(values)
    (without_children / "manifest.json").write_text(json.dumps({**content, "seal": io.seal(content)}))
    try:
        verify.verify_bundle(without_children)
    except CnnbenchError as error:
        refusal = error
        assert refusal.code in (Exit.DATA, Exit.VERDICT)
        assert "\n" not in str(refusal)
    finally:
        (without_children / "manifest.json").write_bytes(original)


@pytest.mark.parametrize("name", ["val_predictions", pytest.param("val_predictions_fp16", marks=pytest.mark.slow)])
def test_predictions_of_validation_are_compared_when_it_is_scored_again(name: str, three: Path, tmp_path: Path) -> None:
    """With none of PyTorch's right, a file of lower precision could lose everything."""
    forger = Forger(Path(shutil.copytree(three, tmp_path / "mine")))
    forger.arrays("reference.npz", lambda arrays: arrays.update({name: (arrays["val_labels"] + 1) % 10}))
    lost = 100.0 if name == "val_predictions_fp16" else 0.0
    if name == "val_predictions":
        forger.claim(run=records.replace(forger.manifest.run, val_accuracy=0.0))
    forger.claim(
        variants=tuple(
            file if file.precision == "fp32" else records.replace(file, lost_points=lost, budget_points=100.0)
            for file in forger.manifest.variants
        )
    )
    forger.sign()
    with pytest.raises(CheckError, match=r"differ from the stored|are not the stored") as caught:
        verify.verify_bundle(forger.path, quick=True, rescore=True)
    assert caught.value.check == "rescore"


def of_threshold(manifest: Manifest, **changes: Any) -> dict[str, Any]:
    first, *rest = manifest.thresholds
    return {"thresholds": (records.replace(first, **changes), *rest)}


CLASSES = ClassTally(images=(50,) * 10, correct=(50,) * 10, predicted=(50,) * 10)
IMPOSSIBLE: dict[str, tuple[Callable[[Manifest], dict[str, Any]], str, str]] = {
    "by_class": (lambda _: {"by_class": CLASSES}, "reference", "other images by class"),
    "classes": (lambda _: {"by_class": ClassTally(images=(9,), correct=(9,), predicted=(9,))}, "", "by class"),
    "level": (lambda m: of_threshold(m, level=0.5), "manifest", "the level 0.5"),
    "above_1": (lambda m: of_threshold(m, threshold=1.5), "manifest", "that it is a probability"),
    "unreached": (lambda m: of_threshold(m, val=Answered(500, 0)), "manifest", "0 of 500 validation images reach"),
    "few": (lambda m: of_threshold(m, val=Answered(1, 1)), "manifest", "1 of 1 validation images reach"),
    "many": (lambda m: of_threshold(m, test=Answered(501, 501)), "manifest", "more images than there are"),
    "order": (lambda m: {"thresholds": m.thresholds[::-1]}, "manifest", "in another order"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_figures_of_classes_and_thresholds_that_cannot_be_are_refused(name: str, bundle: Path, tmp_path: Path) -> None:
    change, check, words = IMPOSSIBLE[name]
    forger = Forger(Path(shutil.copytree(bundle, tmp_path / "mine")))
    forger.claim(**change(forger.manifest))
    forger.sign()
    with pytest.raises(CheckError, match=words) as caught:
        verify.verify_bundle(forger.path, quick=True)
    assert caught.value.check == (check or "reference")


@pytest.mark.parametrize("split", ["val", "test"])
def test_what_a_threshold_answers_is_counted_when_it_is_scored_again(split: str, bundle: Path, tmp_path: Path) -> None:
    forger = Forger(Path(shutil.copytree(bundle, tmp_path / "mine")))
    claimed = getattr(forger.manifest.thresholds[0], split)
    forger.claim(**of_threshold(forger.manifest, **{split: Answered(claimed.images - 40, claimed.images - 40)}))
    forger.sign()
    with pytest.raises(CheckError, match=f"answered {split} images are right here, not what") as caught:
        verify.verify_bundle(forger.path, quick=True, rescore=True)
    assert caught.value.check == "rescore"
