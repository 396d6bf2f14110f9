"""`export --for`: what Triton loads, compared with the graph field by field; and weights for further training."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_helpers import content, fails, manifest_of
from google.protobuf import text_format
from onnx import TensorProto
from safetensors import safe_open
from safetensors.torch import load_file
from tritonclient.grpc import model_config_pb2 as triton

from cnnbench.__main__ import main
from cnnbench.architectures import build
from cnnbench.bundles import graph, targets
from cnnbench.bundles.parity.comparison import BATCH_SIZES
from cnnbench.training.checkpoints import load_classifier
from cnnbench.types import CnnbenchError, Exit, ImageSpec

TASK = "mnist5k_lenet5"
TYPES = {TensorProto.UINT8: triton.TYPE_UINT8, TensorProto.FLOAT: triton.TYPE_FP32}


def configuration(model: Path) -> triton.ModelConfig:
    """As Triton reads it: an unknown field or value is an error."""
    return text_format.Parse((model / "config.pbtxt").read_text(), triton.ModelConfig())


def of_graph(values: list[onnx.ValueInfoProto]) -> list[tuple[str, int, list[int]]]:
    """Name, Triton's type and dims without the batch, which must be free."""
    found = []
    for value in values:
        batch, *dims = value.type.tensor_type.shape.dim
        assert batch.dim_param
        assert not batch.HasField("dim_value")
        found.append((value.name, TYPES[value.type.tensor_type.elem_type], [dim.dim_value for dim in dims]))
    return found


def compare_with_the_graph(model: Path) -> None:
    config, served = configuration(model), onnx.load(model / "1" / "model.onnx")
    assert config.name == model.name
    assert config.backend == "onnxruntime"
    assert config.default_model_filename == "model.onnx"
    assert config.max_batch_size == max(BATCH_SIZES) == 100
    assert config.HasField("dynamic_batching")
    for stated, values in ((config.input, served.graph.input), (config.output, served.graph.output)):
        assert [(value.name, value.data_type, list(value.dims)) for value in stated] == of_graph(values)
    assert {output.label_filename for output in config.output} == {"labels.txt"}
    understood = {"name", "backend", "default_model_filename", "max_batch_size", "input", "output", "dynamic_batching"}
    assert {field.name for field, _ in config.ListFields()} == understood
    for value in (*config.input, *config.output):
        assert {field.name for field, _ in value.ListFields()} <= {"name", "data_type", "dims", "label_filename"}
    said = {item.key: item.value for item in served.metadata_props}
    assert (model / "labels.txt").read_text().splitlines() == json.loads(said["class_names"])


def test_each_file_of_a_bundle_becomes_a_model_that_its_configuration_describes(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(three), "--for", "triton", "--out", "models"]) == 0
    names = {"fp32": TASK, "fp16": f"{TASK}_fp16", "int8": f"{TASK}_int8"}
    assert {path.name for path in Path("models").iterdir()} == {*names.values()}
    assert capsys.readouterr().out.splitlines() == [f"models/{name}" for name in names.values()]
    manifest = manifest_of(three)
    for variant in manifest.kept:
        model = Path("models") / names[variant.precision]
        assert {*content(model)} == {"config.pbtxt", "labels.txt", "1/model.onnx"}
        assert (model / "1" / "model.onnx").read_bytes() == (three / variant.file).read_bytes()
        assert (model / "labels.txt").read_text() == "".join(f"{name}\n" for name in manifest.class_names)
        compare_with_the_graph(model)


def test_floats_and_probabilities_are_described_too(of_floats: Path, tmp_path: Path) -> None:
    (model,) = targets.triton(of_floats, tmp_path / "models")
    compare_with_the_graph(model)
    config = configuration(model)
    assert [(v.name, v.data_type, list(v.dims)) for v in config.input] == [("pixels", triton.TYPE_FP32, [1, 28, 28])]
    assert [value.name for value in config.output] == ["logits", "probabilities"]


def test_a_run_becomes_a_model_with_the_file_of_its_bundle_and_nothing_else(
    run: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), "--for", "triton", "--out", "models", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [f"models/{TASK}"]
    assert [path.name for path in Path().iterdir()] == ["models"]
    assert (Path("models") / TASK / "1" / "model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()
    compare_with_the_graph(Path("models") / TASK)


def test_a_model_is_replaced_whole_and_its_neighbours_stay(bundle: Path, tmp_path: Path) -> None:
    for path in ("models/other/config.pbtxt", f"models/{TASK}/config.pbtxt", f"models/{TASK}/2/model.onnx"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("old")
    targets.triton(bundle, Path("models"))
    assert {*content(Path("models"))} == {
        "other/config.pbtxt",
        f"{TASK}/config.pbtxt",
        f"{TASK}/labels.txt",
        f"{TASK}/1/model.onnx",
    }


def test_a_folder_that_is_no_model_is_never_replaced(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(f"models/{TASK}").mkdir(parents=True)
    Path(f"models/{TASK}/thesis.txt").write_text("four years")
    assert "it would be lost" in fails(capsys, 2, bundle, "--for", "triton", "--out", "models")
    assert {*content(Path("models"))} == {f"{TASK}/thesis.txt"}


@pytest.mark.parametrize("target", [("triton", "file"), ("safetensors", "folder")])
def test_an_invalid_path_is_refused_before_anything_is_made(
    target: tuple[str, str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("")
    Path("folder").mkdir()
    kind, place = target
    assert "expected" in fails(capsys, 2, run, "--for", kind, "--out", place)
    assert {path.name for path in Path().iterdir()} == {"file", "folder"}
    assert (Path("file").read_text(), list(Path("folder").iterdir())) == ("", [])


def test_another_form_has_no_place_of_its_own(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--for triton needs --out" in fails(capsys, 2, run, "--for", "triton")


def test_a_bundle_that_is_not_what_it_claims_is_not_served(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Path(shutil.copytree(bundle, tmp_path / "mine"))
    data = bytearray((mine / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (mine / "model.onnx").write_bytes(data)
    assert "was edited" in fails(capsys, 4, mine, "--for", "triton", "--out", "models")
    assert not Path("models").exists()


def test_a_bundle_is_no_source_of_anything_else(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--for", "safetensors", "--out", "weights.safetensors"]):
        assert "is a bundle already: expected a run" in fails(capsys, 2, bundle, *options)
    assert list(Path().iterdir()) == []


def test_a_repository_that_cannot_be_written_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("in the way")
    assert "cannot write file" in fails(capsys, 2, bundle, "--for", "triton", "--out", "file/models")
    assert Path("file").read_text() == "in the way"


# --- weights for further training -------------------------------------------------------------------------------------


def test_the_network_is_rebuilt_from_the_file_of_weights_alone(
    run: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), "--for", "safetensors", "--out", "weights.safetensors"]) == 0
    assert capsys.readouterr().out == "weights.safetensors\n"
    assert [path.name for path in Path().iterdir()] == ["weights.safetensors"]
    with safe_open("weights.safetensors", "pt") as file:
        said = file.metadata()
    network = build(said["arch"], ImageSpec(**json.loads(said["spec"]))).eval()
    network.load_state_dict(load_file("weights.safetensors"))
    with np.load(bundle / "golden.npz") as golden, torch.inference_mode():
        found = network(torch.from_numpy(golden["pixels"]).permute(0, 3, 1, 2) / 255).numpy()
        np.testing.assert_allclose(found, golden["logits"], rtol=0, atol=manifest_of(bundle).reference.error_bound)
    assert said["weights_sha256"] == graph.weights_sha256(network) == manifest_of(bundle).weights_sha256
    assert json.loads(said["class_names"]) == list(manifest_of(bundle).class_names)
    assert said["dataset"] == "mnist5k"


def test_weights_are_the_checkpoint_s_bit_for_bit(run: Path) -> None:
    classifier = load_classifier(run / "best.ckpt")
    targets.safetensors(classifier, Path("deep/weights.safetensors"), weights_sha256="hash")
    loaded = load_file("deep/weights.safetensors")
    expected = classifier.network.state_dict()
    assert {*loaded} == {*expected}
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_weights_that_cannot_be_written_are_refused(run: Path) -> None:
    Path("file").write_text("in the way")
    classifier = load_classifier(run / "best.ckpt")
    for place in ("file/weights.safetensors", "."):
        with pytest.raises(CnnbenchError, match=f"cannot write {place}") as caught:
            targets.safetensors(classifier, Path(place), weights_sha256="hash")
        assert caught.value.code == Exit.USAGE
    assert [path.name for path in Path().iterdir()] == ["file"]
