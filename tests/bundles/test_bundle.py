"""`export`: what a bundle holds, and that nothing wrong or half-done ever takes its place."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
import scipy.special
import torch
from export_helpers import FILES, choice_of, content, exact_logits, fails, manifest_of, untrained
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.analysis.confidence import expected_calibration_error
from cnnbench.analysis.selective import answered
from cnnbench.analysis.temperature import fit_temperature
from cnnbench.architectures.layers import Normalize
from cnnbench.bundles import bundle as bundle_module
from cnnbench.bundles import card, graph
from cnnbench.bundles.bundle import ExportOptions, export_run
from cnnbench.bundles.parity import run as parity
from cnnbench.bundles.parity.comparison import BATCH_SIZES
from cnnbench.bundles.parity.golden import golden_images
from cnnbench.records.bundle import FileHash, Manifest, Share, TensorSpec
from cnnbench.records.schema import RunRecord
from cnnbench.runtime import predict
from cnnbench.runtime.providers import PROVIDERS
from cnnbench.training import checkpoints
from cnnbench.training.checkpoints import load_classifier
from cnnbench.types import CnnbenchError, Dataset, Exit


def test_a_bundle_holds_the_model_its_verification_and_the_means_to_use_it(bundle: Path, three: Path) -> None:
    assert {path.name for path in bundle.iterdir()} == FILES
    assert {path.name for path in three.iterdir()} == FILES | {"model_fp16.onnx", "model_int8.onnx"}
    assert (bundle / "predict.py").read_bytes() == Path(predict.__file__).read_bytes()


def test_the_manifest_round_trips_and_its_hashes_are_right(three: Path, tmp_path: Path) -> None:
    manifest = manifest_of(three)
    records.write(tmp_path / "again.json", manifest)
    assert (tmp_path / "again.json").read_bytes() == (three / "manifest.json").read_bytes()
    assert set(manifest.files) == {path.name for path in three.iterdir()} - {"manifest.json"}
    for name, stated in manifest.files.items():
        assert stated == FileHash(records.sha256(three / name), (three / name).stat().st_size)
    assert {v.file: v.bytes for v in manifest.variants} == {
        v.file: (three / v.file).stat().st_size for v in manifest.kept
    }


def test_it_tells_the_run_s_own_test_accuracy(run: Path, bundle: Path) -> None:
    record, manifest = records.read(run / "result.json", RunRecord), manifest_of(bundle)
    assert record.test is not None
    assert (manifest.reference.accuracy, manifest.reference.correct, manifest.reference.images) == (
        record.test.accuracy,
        record.test.correct,
        record.test.images,
    )
    assert manifest.run.checkpoint_sha256 == record.test.checkpoint_sha256
    assert (manifest.task, manifest.arch, manifest.seed, manifest.cost, manifest.spec) == (
        record.task,
        record.arch,
        record.seed,
        record.cost,
        record.spec,
    )


def test_each_file_passes_with_optimisations_and_without_and_at_every_batch_size(three: Path) -> None:
    manifest = manifest_of(three)
    assert [v.precision for v in manifest.kept] == ["fp32", "fp16", "int8"]
    assert manifest.reference.tf32 is False
    assert PROVIDERS["cuda"][1]["use_tf32"] == "0"
    for variant in manifest.variants:
        assert [(found.provider, found.optimized) for found in variant.passes] == [("cpu", True), ("cpu", False)]
        assert [list(found.batch_errors) for found in variant.passes] == [[*map(str, BATCH_SIZES)], ["64"]]
        for found in variant.passes:
            assert found.active == "CPUExecutionProvider"
            assert found.placement == {"CPUExecutionProvider": Share(nodes=1.0, time=1.0)}
            assert 0 < found.p999_abs_error <= found.max_abs_error
            assert max(found.batch_errors.values()) <= max(found.max_abs_error, manifest.reference.error_bound)


def test_float32_is_within_the_bound_and_the_others_are_further_off(three: Path) -> None:
    manifest = manifest_of(three)
    fp32, fp16, int8 = (max(p.max_abs_error for p in v.passes) for v in manifest.variants)
    assert fp32 <= manifest.reference.error_bound < fp16 < int8
    assert [p.flips for p in manifest.variants[0].passes] == [0, 0]


def test_golden_images_are_those_of_the_test_split_and_others_with_the_network_s_float64_logits(
    bundle: Path, run: Path, data: Dataset
) -> None:
    network = load_classifier(run / "best.ckpt").network
    expected = golden_images(data.test.images)
    with np.load(bundle / "golden.npz") as golden, np.load(bundle / "reference.npz") as reference:
        assert {*golden} == {"pixels", "places", "logits"}
        assert np.array_equal(golden["pixels"], expected.pixels)
        assert np.array_equal(golden["places"], expected.places)
        of_test = golden["places"] >= 0
        assert np.array_equal(golden["logits"][of_test].argmax(1), reference["predictions"][golden["places"][of_test]])
        exact = exact_logits(network, golden["pixels"])
        assert golden["logits"].dtype == np.float64
        # the network has no batch norm; its pixels are rounded to float32 before they are less the mean
        assert np.abs(golden["logits"] - exact).max() <= 1e-6 * np.abs(exact).max()


def test_the_proof_is_of_the_golden_images_and_every_constant_of_the_file(bundle: Path) -> None:
    proof = manifest_of(bundle).proof
    assert max(proof.function_error, proof.fold_error, proof.graph_error) <= 1e-12
    assert (proof.graph_images, proof.graph_batches, proof.folded) == (24, (1, 2, 7), 0)
    stored = onnx.load(bundle / "model.onnx").graph.initializer
    floats = {tensor.name for tensor in stored if tensor.data_type == TensorProto.FLOAT}
    assert {entry.name for entry in proof.constants} == floats
    assert {entry.rule for entry in proof.constants} <= {"tensor", "literal"}


def test_the_evidence_has_labels_and_classes_of_test_and_validation_and_each_smaller_file_s(
    three: Path, data: Dataset
) -> None:
    with np.load(three / "golden.npz") as golden, np.load(three / "reference.npz") as reference:
        assert {*golden} == {"pixels", "places", "logits", "logits_fp16", "logits_int8"}
        assert len(golden["logits_fp16"]) == len(golden["logits_int8"]) == (golden["places"] >= 0).sum()
        classes = {"labels", "predictions", "val_labels", "val_predictions"}
        assert {*reference} == classes | {"val_predictions_fp16", "val_predictions_int8"}
        assert np.array_equal(reference["labels"], data.test.labels)
        assert np.array_equal(reference["val_labels"], data.val.labels)
        right = {name: int((reference[name] == data.val.labels).sum()) for name in reference if "val_p" in name}
    for file in manifest_of(three).kept[1:]:
        lost = 100 * (right["val_predictions"] - right[f"val_predictions_{file.precision}"]) / len(data.val)
        assert lost <= file.lost_points + 1e-9  # its worst pass may lose more


def test_the_stored_predictions_are_pytorch_s_of_every_test_image(bundle: Path, run: Path, data: Dataset) -> None:
    network = load_classifier(run / "best.ckpt").network
    with torch.inference_mode():
        logits = network(torch.from_numpy(data.test.images).permute(0, 3, 1, 2) / 255)
    two = logits.topk(2).values
    sure = (two[:, 0] - two[:, 1] > 1e-4).numpy()
    with np.load(bundle / "reference.npz") as reference:
        assert np.array_equal(reference["predictions"][sure], logits.argmax(1).numpy()[sure])
    assert sure.mean() > 0.99


def test_no_place_of_this_machine_is_in_a_bundle(three: Path, run: Path) -> None:
    for name, found in content(three).items():
        for place in (Path.home(), run.parents[2], three.parent, Path(predict.__file__).parents[2]):
            assert str(place).encode() not in found, name


def test_exporting_again_gives_the_same_files_and_the_manifest_in_python(bundle: Path, run: Path) -> None:
    assert export_run(run, out="again") == manifest_of(bundle)
    assert content(Path("again") / bundle.name) == content(bundle)


def test_floats_in_and_probabilities_out_are_verified_and_give_the_same_labels(
    bundle: Path, of_floats: Path, data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = manifest_of(of_floats)
    assert manifest.contract.input == TensorSpec("pixels", "float32", ("batch", 1, 28, 28))
    assert [output.name for output in manifest.contract.outputs] == ["logits", "probabilities"]
    reference = manifest_of(bundle).reference  # their pixels are divided by 255 elsewhere
    assert records.replace(manifest.reference, float64_error=reference.float64_error) == reference
    assert main(["verify", str(of_floats)]) == 0
    assert "is verified on cpu" in capsys.readouterr().out
    assert predict.Model(of_floats).predict(data.test.images) == predict.Model(bundle).predict(data.test.images)


# --- exports that must not pass ---------------------------------------------------------------------------------------


def change_a_weight(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 0.5
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def fix_the_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2


def fix_the_batch_within(model: onnx.ModelProto) -> None:
    """Inputs and outputs are as stated; a node on the way takes 64 images only."""
    shape = numpy_helper.from_array(np.array([64, 10]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Reshape", ["before", "shape"], ["logits"]))


def transpose_the_images(model: onnx.ModelProto) -> None:
    """Height and width swapped, which no shape tells."""
    model.graph.node[0].attribute[0].ints[:] = [0, 3, 2, 1]


def no_normalisation(network: nn.Module) -> nn.Module:
    assert isinstance(network[0], Normalize)
    return network[1]


class Wrapped(nn.Module):
    def __init__(self, network: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change(self.network(x))


def swapped_classes(network: nn.Module) -> nn.Module:
    return Wrapped(network, lambda logits: logits[:, [1, 0, *range(2, 10)]])


def other_for_one_image(network: nn.Module) -> nn.Module:
    """A network that no single file can be."""
    return Wrapped(network, lambda logits: logits * 2 if logits.shape[0] == 1 else logits)


def same(value: Any) -> Any:
    return value


SABOTAGE: dict[str, tuple[Callable[[nn.Module], nn.Module], Callable[[onnx.ModelProto], None], str]] = {
    "a changed weight": (same, change_a_weight, "is not the trained network"),
    "a fixed batch": (same, fix_the_batch, "its inputs and outputs are not the contract's"),
    "a batch fixed within": (same, fix_the_batch_within, "cannot be evaluated in float64"),
    "height and width swapped": (same, transpose_the_images, "is not the trained network"),
    "no normalisation": (no_normalisation, same, "the network computes something else"),
    "classes swapped": (swapped_classes, same, "the network computes something else"),
    "dropout": (lambda network: Wrapped(network, nn.Dropout(0.5)), same, "Dropout"),
}


def sabotage(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    change_network, change_model, _ = SABOTAGE[name]
    honest = graph.to_onnx

    def dishonest(network: nn.Module, *arguments: Any, **more: Any) -> graph.Exported:
        made = honest(change_network(network), *arguments, **more)
        change_model(made.model)
        return made

    monkeypatch.setattr(graph, "to_onnx", dishonest)
    if name == "dropout":
        monkeypatch.setattr(graph.Deployable, "eval", lambda self: self.train())


REPEATED = ("height and width swapped", "no normalisation", "classes swapped", "dropout")
"""Other ways to be refused as "a changed weight" is."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in REPEATED else []) for name in SABOTAGE]
)
def test_a_broken_export_is_refused_and_the_earlier_bundle_stays(
    name: str, run: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(earlier)
    sabotage(monkeypatch, name)
    assert SABOTAGE[name][2] in fails(capsys, 4, run, "--out", earlier)
    assert content(earlier) == before


def test_a_branch_on_a_batch_of_one_is_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = bundle_module.open_run

    def branching(*source: object, **more: object) -> bundle_module.TrainedRun:
        found = opened(*source, **more)  # type: ignore[arg-type]
        found.classifier.network = other_for_one_image(found.classifier.network)
        return found

    monkeypatch.setattr(bundle_module, "open_run", branching)
    assert "it mixes the images of a batch" in fails(capsys, 4, run, "--out", "exports")


@pytest.mark.slow
def test_batch_norm_that_uses_the_batch_is_refused_and_nothing_is_left(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = untrained(run, "netresdeep", choice_of("mnist5k"))
    monkeypatch.setattr(nn.BatchNorm2d, "forward", batch_statistics)
    fails(capsys, 4, folder, "--out", "exports")
    assert list(Path("exports").iterdir()) == []


def batch_statistics(self: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """What batch norm in training mode computes, spelled out only while exporting."""
    if not torch.compiler.is_exporting():
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)
    mean, var = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
    return (x - mean) / (var + self.eps).sqrt() * self.weight[:, None, None] + self.bias[:, None, None]


@pytest.mark.slow
def test_a_network_with_batch_norm_exports(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(untrained(run, "netresdeep", choice_of("mnist5k"))), "--out", "exports"]) == 0
    assert "0 flips by rounding, 0 beyond" in capsys.readouterr().out


def test_the_check_of_verify_comes_before_the_bundle_takes_its_place(
    run: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest, before = card.write, content(earlier)

    def boastful(path: Path, manifest: Manifest) -> None:
        honest(path, manifest)
        path.write_text(path.read_text().replace("type: accuracy", "type: f1"))

    monkeypatch.setattr(card, "write", boastful)
    assert "claims something else than manifest.json" in fails(capsys, 4, run, "--out", earlier)
    assert content(earlier) == before


def test_logits_that_are_not_finite_are_not_exported(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = load_classifier

    def broken(path: Path) -> Any:
        classifier = honest(path)
        nn.init.constant_(next(classifier.network.parameters()), float("nan"))
        return classifier

    monkeypatch.setattr(checkpoints, "load_classifier", broken)
    assert "not finite" in fails(capsys, 3, run, "--out", "exports")


# --- where it runs and where it writes --------------------------------------------------------------------------------


@pytest.mark.gpu
def test_on_a_gpu_both_providers_are_in_the_verification_and_all_of_the_graph_is_on_the_one_asked_for(
    run: Path,
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    assert main(["export", str(run), "--out", "exports", "--provider", "cpu,cuda"]) == 0
    passes = manifest_of(Path("exports/mnist5k_lenet5")).variants[0].passes
    assert [found.provider for found in passes] == ["cpu", "cpu", "cuda", "cuda"]
    assert all({*found.placement} == {found.active} for found in passes)
    assert main(["verify", "exports/mnist5k_lenet5", "--provider", "cuda", "--rescore"]) == 0


def test_cuda_without_a_gpu_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert "cuda" in fails(capsys, 6, run, "--out", "exports", "--provider", "cuda")
    fails(capsys, 6, run, "--out", "exports", "--provider", "cpu,cuda")
    assert not Path("exports").exists()


def test_a_folder_that_cannot_be_made_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("in the way")
    assert "cannot write" in fails(capsys, 2, run, "--out", "file/exports")
    assert "cannot write" in fails(capsys, 2, run, "--out", "file")
    assert Path("file").read_text() == "in the way"


@pytest.mark.parametrize(
    ("where", "name", "error", "code"),
    [
        (records, "write", KeyboardInterrupt(), 130),  # the last file of a bundle
        pytest.param(graph, "save", OSError(28, "No space left on device"), 2, marks=pytest.mark.slow),  # the first
    ],
    ids=["Ctrl-C", "a full disk"],
)
def test_an_interrupted_export_leaves_the_earlier_bundle(
    where: Any, name: str, error: BaseException, code: int, run: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise error

    before = content(earlier)
    monkeypatch.setattr(where, name, interrupted)
    assert main(["export", str(run), "--out", str(earlier)]) == code
    assert content(earlier) == before
    assert [path.name for path in earlier.iterdir()] == ["mnist5k_lenet5"]


def elsewhere(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """A second provider, which is the CPU under another name; what it finds is changed."""
    honest = parity._run_passes

    def run_passes(*arguments: Any) -> list[parity.PassOutcome]:
        *same_for_all, provider = arguments
        different = changes if provider == "other" else {}
        return [
            replace(outcome, figures=records.replace(outcome.figures, provider=provider, **different))
            for outcome in honest(*same_for_all, "cpu")
        ]

    monkeypatch.setattr(bundle_module, "usable_providers", lambda: ("cpu", "other"))
    monkeypatch.setattr(bundle_module, "require", lambda _: None)
    monkeypatch.setattr(parity, "_run_passes", run_passes)


def test_one_provider_of_two_that_differs_refuses_the_export(
    run: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(earlier)
    elsewhere(monkeypatch, flips=1)
    assert "on other, graph optimisations on" in fails(capsys, 4, run, "--out", earlier)
    assert content(earlier) == before


def test_by_default_every_provider_that_works_is_used_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "usable", lambda: {"cpu": "", "cuda": "no GPU"})
    assert bundle_module.usable_providers() == ("cpu",)


@pytest.mark.parametrize("loss", [-1, 100.5, float("nan")])
def test_a_loss_of_accuracy_that_is_none_is_refused(loss: float) -> None:
    with pytest.raises(CnnbenchError, match="expected 0% to 100%"):
        ExportOptions(max_accuracy_loss=loss)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precisions": ("fp64",)}, "precisions is ('fp64',): expected a list, each one of fp32, fp16, int8"),
        ({"precisions": "fp16"}, "precisions is 'fp16': expected a list, each one of fp32, fp16, int8"),
        ({"providers": "cpu"}, "providers is 'cpu': expected a list, each text"),
        ({"providers": ()}, "no provider is named: expected at least one"),
        ({"input": "bytes"}, "input is 'bytes': expected one of uint8, float"),
        ({"probabilities": "no"}, "probabilities is 'no': expected true or false or one of calibrated"),
        ({"max_accuracy_loss": "x"}, "max_accuracy_loss is 'x': expected a number"),
    ],
    ids=str,
)
def test_an_option_of_another_type_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(CnnbenchError) as refused:
        ExportOptions(**options)
    assert str(refused.value) == words


def test_the_precisions_of_a_bundle_begin_with_fp32() -> None:
    assert ExportOptions(precisions=["int8", "fp16"]).precisions == ("fp32", "fp16", "int8")  # type: ignore[arg-type]


# --- calibrated probabilities -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of three precisions whose probabilities are calibrated."""
    out = tmp_path_factory.mktemp("calibrated")
    arguments = ["--probabilities", "calibrated", "--precision", "fp32,fp16,int8", "--max-accuracy-loss", "100%"]
    assert main(["export", str(run), "--out", str(out), *arguments]) == 0
    return out / "mnist5k_lenet5"


def test_calibrated_probabilities_have_the_temperature_of_the_validation_images(
    calibrated: Path, run: Path, data: Dataset
) -> None:
    manifest = manifest_of(calibrated)
    assert manifest.calibration
    table = pq.read_table(run / "val_predictions.parquet").to_pydict()
    temperature = fit_temperature(np.array(table["logits"]), np.array(table["label"]))
    assert manifest.calibration.temperature == pytest.approx(temperature, rel=1e-4)
    assert [file.precision for file in manifest.kept] == ["fp32", "fp16", "int8"]
    for file in manifest.kept:
        session = onnxruntime.InferenceSession(calibrated / file.file, providers=["CPUExecutionProvider"])
        logits, probabilities = session.run(["logits", "probabilities"], {"pixels": data.test.images[:100]})
        expected = scipy.special.softmax(logits / manifest.calibration.temperature, axis=1)
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
        by_script = predict.Model(calibrated, precision=file.precision).probabilities(data.test.images[:100])
        np.testing.assert_array_equal(by_script, probabilities)
    tested = pq.read_table(run / "predictions.parquet").to_pydict()
    errors = [
        expected_calibration_error(
            scipy.special.softmax(np.array(tested["logits"]) / value, axis=1), np.array(tested["label"])
        )
        for value in (1.0, manifest.calibration.temperature)
    ]
    assert [manifest.calibration.ece_before, manifest.calibration.ece_after] == pytest.approx(errors, abs=1e-6)
    assert manifest.thresholds
    for offered in manifest.thresholds:
        for claimed, split in ((offered.val, table), (offered.test, tested)):
            probabilities = scipy.special.softmax(np.array(split["logits"]) / temperature, axis=1)
            here = answered(probabilities, np.array(split["label"]), threshold=offered.threshold)
            assert abs(here.images - claimed.images) <= 1  # the temperature is rounded to float32
    card = (calibrated / "README.md").read_text()
    assert f"{100 * errors[0]:.2f} % without, {100 * errors[1]:.2f} % with it" in card
    assert "--probabilities calibrated" in card


def test_a_bundle_with_another_temperature_than_its_files_is_refused(
    calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(calibrated), "--quick"]) == 0
    mine = Path(shutil.copytree(calibrated, tmp_path / "mine"))
    manifest = manifest_of(mine)
    assert manifest.calibration
    told = ("temperature that is not a constant of the proven graph", "not the softmax of its logits")
    numbers = (2 * manifest.calibration.temperature, 255.0)  # the second is a number of the graph
    for other, reason in zip(numbers, told, strict=True):
        forged = records.replace(manifest, calibration=records.replace(manifest.calibration, temperature=other))
        card.write(mine / "README.md", forged)
        readme = FileHash(records.sha256(mine / "README.md"), (mine / "README.md").stat().st_size)
        records.write(mine / "manifest.json", records.replace(forged, files={**forged.files, "README.md": readme}))
        capsys.readouterr()
        assert main(["verify", str(mine), "--quick"]) == Exit.VERDICT
        assert reason in capsys.readouterr().err
