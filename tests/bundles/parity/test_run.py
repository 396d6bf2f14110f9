"""The verdict on each file: kept or refused, why, and which images change class."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from builders import CONTRACT
from export_helpers import FILES, exact_logits, manifest_of
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.bundles import contract, quantise
from cnnbench.bundles.parity import child, comparison, lower
from cnnbench.bundles.parity import run as parity
from cnnbench.bundles.parity.golden import golden_images
from cnnbench.records.bundle import Pass, Precision, PrecisionFile, Reference, Share, file_name
from cnnbench.records.schema import RunRecord
from cnnbench.runtime import sandbox
from cnnbench.training import predictions
from cnnbench.training.checkpoints import load_classifier
from cnnbench.types import CnnbenchError, Dataset, Split

REFERENCE = Reference(images=1000, correct=900, logits_from="export", float64_error=1e-6, error_bound=1e-5)
FASTER = child.Race(fp32=(0.2, 0.2, 0.3), candidate=(0.1, 0.1, 0.2))


VAL_IMAGES, VAL_CORRECT = 500, 480


def reference_logits() -> parity.ReferenceLogits:
    """Of the validation split, of two classes and all labelled 0, PyTorch gets the first 480 images right."""
    return parity.ReferenceLogits(
        Path("images.npy"),
        np.empty(0),
        np.empty(0),
        REFERENCE,
        Path("val.npy"),
        np.zeros(VAL_IMAGES, int),
        np.eye(2)[classes(VAL_CORRECT)],
    )


def classes(correct: int) -> np.ndarray:
    """Classes of the validation images, of which the first `correct` are right."""
    found: np.ndarray = np.repeat([0, 1], [correct, VAL_IMAGES - correct])
    return found


def a_pass(**changes: Any) -> Pass:
    same = Pass(
        provider="cpu",
        active="CPUExecutionProvider",
        optimized=True,
        placement={"CPUExecutionProvider": Share(1, 1)},
        correct=900,
        flips=0,
        rounding_flips=0,
        largest_margin=0.0,
        max_abs_error=1e-6,
        p999_abs_error=1e-6,
        max_rel_error=1e-6,
        p999_rel_error=1e-6,
        batch_errors={"1": 1e-6, "64": 1e-6},
    )
    return records.replace(same, **changes)


@pytest.fixture
def verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PrecisionFile]:
    """`verify_file` of a file of 7 bytes whose passes and race have turned out as given.

    Of the validation images `val_correct` are right with graph optimisations off, and as many as PyTorch's with them.
    """
    for name in quantise.PRECISIONS:
        (tmp_path / file_name(name)).write_bytes(b"7 bytes")

    def verify(
        precision: Precision,
        loss: float = 0.2,
        race: child.Race = FASTER,
        val_correct: int = VAL_CORRECT,
        **changes: Any,
    ) -> PrecisionFile:
        none = np.empty(0, int)
        flips = comparison.Flips(none, none, none, np.empty(0), 1.0)
        figures = [a_pass(), a_pass(optimized=False, **changes)]
        passes = [parity.PassOutcome(each, flips, none) for each in figures]
        monkeypatch.setattr(parity, "_run_passes", lambda *_: passes)
        monkeypatch.setattr(parity, "_race", lambda *_: race)
        monkeypatch.setattr(parity, "_val_predictions", lambda *_: [classes(VAL_CORRECT), classes(val_correct)])
        fp32 = None if precision == "fp32" else tmp_path / "fp32.onnx"
        candidate = parity.Candidate(precision, tmp_path / file_name(precision), CONTRACT, {})
        reference = reference_logits()
        return parity.verify_file(candidate, reference, providers=["cpu"], max_accuracy_loss=loss, fp32=fp32).record

    return verify


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_file_that_loses_nothing_is_kept(precision: Any, verified: Callable[..., PrecisionFile]) -> None:
    variant = verified(precision)
    assert (variant.refused, variant.lost_points, variant.bytes) == ("", 0.0, 7)
    raced = (0.1, 0.2) if precision != "fp32" else (None, None)
    assert (variant.latency_ms, variant.fp32_latency_ms) == raced


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize(
    ("correct", "accepted", "lost", "kept"),
    [(479, 0.2, 0.2, True), (478, 0.2, 0.4, False), (479, 0, 0.2, False), (0, 96, 96, True), (490, 0, 0, True)],
)
def test_it_may_lose_as_much_on_validation_as_is_accepted_in_its_worst_pass_and_no_image_more(
    precision: Any, correct: int, accepted: float, lost: float, kept: bool, verified: Callable[..., PrecisionFile]
) -> None:
    variant = verified(precision, accepted, val_correct=correct)
    assert variant.lost_points == pytest.approx(lost)
    assert variant.refused == (
        "" if kept else f"loses {lost:.2f} points of accuracy on validation; at most {accepted:g} are accepted"
    )


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_it_loses_on_the_test_split_is_told_and_decides_nothing(
    precision: Any, verified: Callable[..., PrecisionFile]
) -> None:
    variant = verified(precision, correct=800, flips=100)
    assert (variant.test_lost_points, variant.lost_points, variant.refused) == (10.0, 0.0, "")
    variant = verified(precision, val_correct=400)
    assert (variant.test_lost_points, variant.lost_points) == (0.0, 16.0)
    assert variant.refused


def test_the_best_images_of_one_file_do_not_pay_for_float32(verified: Callable[..., PrecisionFile]) -> None:
    assert verified("fp32", 100, correct=899, flips=1).refused.startswith("on cpu, graph optimisations off, 1 of 1000")


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"rounding_flips": 3}, True),
        ({"max_abs_error": 1e-5}, True),
        ({"max_abs_error": 1.1e-5}, False),
        ({"batch_errors": {"1": 1e-6, "7": 2e-5}}, False),
        ({"flips": 1}, False),
    ],
    ids=str,
)
def test_float32_may_differ_by_rounding_alone(
    changes: dict[str, Any], kept: bool, verified: Callable[..., PrecisionFile]
) -> None:
    assert (verified("fp32", **changes).refused == "") is kept
    assert verified("fp16", **changes).refused == ""


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_smaller_file_that_is_slower_is_kept_with_both_times(
    precision: Any, verified: Callable[..., PrecisionFile]
) -> None:
    variant = verified(precision, race=child.Race(fp32=FASTER.fp32, candidate=(0.3, 0.3, 0.4)))
    assert (variant.refused, variant.latency_ms, variant.fp32_latency_ms) == ("", 0.3, 0.2)


def test_the_reference_is_pytorch_with_its_own_rounding_error(run: Path, data: Dataset) -> None:
    network = load_classifier(run / "best.ckpt").network
    test, val = (Split(part.images[:100], part.labels[:100]) for part in (data.test, data.val))
    planes = torch.from_numpy(test.images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits = network(planes / 255).numpy()
    golden = golden_images(test.images)
    exact = exact_logits(network, golden.pixels)
    few = replace(data, test=test, val=val)
    with parity.reference_logits(network, few, golden=golden, exact=exact) as reference:
        assert np.array_equal(np.load(reference.images), test.images)
        assert np.array_equal(np.load(reference.val_images), val.images)
    assert reference.val_correct == int((classes_of(network, val) == val.labels).sum())
    np.testing.assert_allclose(reference.logits, logits, rtol=0, atol=1e-5)
    assert (reference.summary.images, reference.summary.correct) == (100, int((logits.argmax(1) == test.labels).sum()))
    assert 0 < reference.summary.float64_error < reference.summary.error_bound < 1e-3
    assert reference.summary.error_bound >= comparison.BOUND_FACTOR * reference.summary.float64_error
    assert not reference.images.exists()


def classes_of(network: nn.Module, split: Split) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = network(torch.from_numpy(split.images).permute(0, 3, 1, 2) / 255).argmax(1).numpy()
    return found


def test_the_logits_of_test_are_taken_as_they_are_and_those_of_another_network_refused(
    run: Path, data: Dataset
) -> None:
    network = load_classifier(run / "best.ckpt").network
    tested = predictions.tested_logits(run / "best.ckpt", records.read(run / "result.json", RunRecord))
    assert tested is not None
    golden = golden_images(data.test.images)
    exact = exact_logits(network, golden.pixels)
    with parity.reference_logits(network, data, golden=golden, exact=exact, tested=tested) as reference:
        assert reference.logits is tested
        assert reference.summary.logits_from == "test"
    with (
        pytest.raises(CnnbenchError, match="not those of this checkpoint"),
        parity.reference_logits(network, data, golden=golden, exact=exact, tested=tested + np.float32(1e-2)),
    ):
        pass


class OtherInLargeBatches(nn.Module):
    """A network that adds 1 to its first logit where there are more images than `limit`."""

    def __init__(self, network: nn.Module, limit: int) -> None:
        super().__init__()
        self.network, self.limit = network, limit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images)
        return logits + (len(images) > self.limit) * torch.eye(logits.shape[1])[0]


def test_a_network_that_answers_otherwise_in_large_batches_alone_is_told_as_that(run: Path, data: Dataset) -> None:
    network = load_classifier(run / "best.ckpt").network
    golden = golden_images(data.test.images)
    exact = exact_logits(network, golden.pixels)
    other = OtherInLargeBatches(network, 20)
    with (
        pytest.raises(CnnbenchError, match=r"not a function of the image: in a batch of 100 .* differ by 1 "),
        parity.reference_logits(other, data, golden=golden, exact=exact),
    ):
        pass


@pytest.mark.parametrize("branches", [True, False])
def test_branches_are_accepted_where_the_network_has_some(
    branches: bool, three: Path, data: Dataset, tmp_path: Path
) -> None:
    model = onnx.load(three / "model.onnx")
    model.graph.node[-1].output[0] = "before"
    sides = [
        helper.make_graph(
            [helper.make_node("Identity", ["before"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 10])],
        )
        for name in ("one", "other")
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["logits"], then_branch=sides[0], else_branch=sides[1]))
    onnx.save(model, tmp_path / "it.onnx")
    manifest = manifest_of(three)
    metadata = contract.manifest_metadata(manifest, "fp32")
    candidate = parity.Candidate("fp32", tmp_path / "it.onnx", manifest.contract, metadata, branches)
    np.save(tmp_path / "images.npy", data.val.images)
    reference = replace(reference_logits(), val_images=tmp_path / "images.npy")
    if branches:
        assert len(parity._val_predictions(candidate, reference, "cpu")[0]) == VAL_IMAGES
    else:
        with pytest.raises(CnnbenchError, match="If"):
            parity._val_predictions(candidate, reference, "cpu")


@pytest.mark.slow
def test_a_race_takes_rounds_and_the_larger_network_loses(three: Path, data: Dataset, tmp_path: Path) -> None:
    slow = onnx.load(three / "model.onnx")
    matrix = numpy_helper.from_array(np.eye(10, dtype=np.float32), "one")
    wide = numpy_helper.from_array(np.zeros((10, 2_000_000), np.float32), "wide")
    slow.graph.initializer.extend([matrix, wide])
    slow.graph.node[-1].output[0] = "before"
    slow.graph.node.extend(
        [
            helper.make_node("MatMul", ["before", "wide"], ["long"]),
            helper.make_node("ReduceSum", ["long"], ["nothing"], keepdims=1),
            helper.make_node("Add", ["before", "nothing"], ["logits"]),
        ]
    )
    onnx.save(slow, tmp_path / "slow.onnx")
    np.save(tmp_path / "images.npy", data.test.images[:2])
    request = child.RaceRequest(
        candidate=str(tmp_path / "slow.onnx"),
        fp32=str(three / "model.onnx"),
        dtype="uint8",
        images=str(tmp_path / "images.npy"),
    )
    race = sandbox.call(child.race, request, about="slow.onnx", reads=[tmp_path, three])
    assert len(race.fp32) == len(race.candidate) == 5
    assert min(race.candidate) > 3 * max(race.fp32) > 0


# --- the verb ----------------------------------------------------------------------------------------------------


def damaged(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float16 file with its last bias moved towards one class."""
    half = HONEST_FP16(model)
    bias = next(tensor for tensor in half.graph.initializer if tensor.name == half.graph.node[-2].input[2])
    values = numpy_helper.to_array(bias).copy()
    values[3] += 4
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    return half


HONEST_FP16 = quantise.fp16


def without_a_kernel(model: onnx.ModelProto) -> onnx.ModelProto:
    """Valid ONNX, but ONNX Runtime's CPU provider cannot round bfloat16."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    made.graph.node[-1].output[0] = "before"
    made.graph.node.extend(
        [
            helper.make_node("Cast", ["before"], ["brief"], to=TensorProto.BFLOAT16, name="shorten"),
            helper.make_node("Ceil", ["brief"], ["whole"], name="unknown"),
            helper.make_node("Cast", ["whole"], ["logits"], to=TensorProto.FLOAT, name="lengthen"),
        ]
    )
    return made


def unmakeable(*_: object, **__: object) -> onnx.ModelProto:
    raise NotImplementedError("no such operator")


def export_all(run: Path, *more: str) -> Path:
    assert main(["export", str(run), "--out", "exports", "--precision", "fp32,fp16,int8", *more]) == 0
    return Path("exports/mnist5k_lenet5")


@pytest.mark.slow
def test_files_that_are_another_network_or_cannot_be_made_are_refused_with_the_reason_and_float32_stands(
    run: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quantise, "fp16", damaged)
    monkeypatch.setattr(quantise, "int8", unmakeable)
    found = export_all(run)
    manifest = manifest_of(found)
    fp32, fp16, int8 = manifest.variants
    assert {path.name for path in found.iterdir()} == FILES
    assert (found / "model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()
    assert manifest.kept == (fp32,)
    assert fp16.refused.startswith("it is not the float32 file, rounded: its constant")
    assert fp16.passes == ()
    assert int8.refused == "it cannot be made: no such operator"
    assert int8.passes == ()
    printed = capsys.readouterr().out
    assert f"model_fp16.onnx: {fp16.bytes:,} bytes" in printed
    assert printed.count("REFUSED: ") == 2
    assert (found / "flips.csv").read_text().count("\n") == 1
    assert main(["verify", str(found)]) == 0


def test_a_file_that_onnx_runtime_cannot_run_is_refused_without_a_place_of_this_machine(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "fp16", without_a_kernel)
    monkeypatch.setattr(quantise, "int8", unmakeable)
    monkeypatch.setattr(lower, "compare", lambda *_, **__: lower.Lowered(rounded=0, clamped=0))
    found = export_all(run)
    reason = manifest_of(found).variants[1].refused
    assert "model_fp16.onnx is not a readable ONNX file" in reason
    assert "Ceil" in reason
    for path in found.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    assert reason.startswith("model_fp16.onnx is not")


@pytest.mark.slow
def test_int8_reads_training_images_alone(run: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    honest = quantise.to_graph_input

    def spy(images: np.ndarray, dtype: str) -> np.ndarray:
        seen.extend(image.tobytes() for image in images)
        return honest(images, dtype)

    monkeypatch.setattr(quantise, "to_graph_input", spy)
    assert main(["export", str(run), "--out", "exports", "--precision", "int8", "--max-accuracy-loss", "5%"]) == 0
    train, *others = ({image.tobytes() for image in part.images} for part in (data.train, data.val, data.test))
    assert len(seen) == quantise.CALIBRATION_IMAGES
    assert {*seen} <= train
    assert not {*seen} & set.union(*others)


def rows_of(bundle: Path) -> list[dict[str, str]]:
    with (bundle / "flips.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_flips_are_counted_as_the_manifest_counts_them(three: Path) -> None:
    rows, manifest = rows_of(three), manifest_of(three)
    assert rows
    for variant in manifest.kept:
        for found in variant.passes:
            key = (variant.file, found.provider, "on" if found.optimized else "off")
            mine = [row for row in rows if (row["file"], row["provider"], row["optimized"]) == key]
            assert [row["rounding"] for row in mine].count("no") == found.flips
            assert [row["rounding"] for row in mine].count("yes") == found.rounding_flips
            margins = [float(row["margin"]) for row in mine]
            assert margins == sorted(margins, reverse=True)
            assert max(margins, default=0.0) == found.largest_margin


def optimized_or_not(file: Path) -> Iterator[tuple[str, onnxruntime.InferenceSession]]:
    levels = onnxruntime.GraphOptimizationLevel
    for name, level in (("on", levels.ORT_ENABLE_ALL), ("off", levels.ORT_DISABLE_ALL)):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        yield name, onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def test_flips_are_the_images_whose_class_really_differs(three: Path, run: Path, data: Dataset) -> None:
    network = load_classifier(run / "best.ckpt").network
    with torch.inference_mode():
        logits = network(torch.from_numpy(data.test.images).permute(0, 3, 1, 2) / 255).numpy()
    expected = logits.argmax(1)
    listed = {(row["file"], row["optimized"], int(row["image"])): row for row in rows_of(three)}
    seen = 0
    for variant in manifest_of(three).kept:
        for optimized, session in optimized_or_not(three / variant.file):
            found = session.run(["logits"], {"pixels": data.test.images})[0].argmax(1)
            for image in np.flatnonzero(found != expected):
                row = listed[variant.file, optimized, int(image)]
                seen += 1
                assert (int(row["pytorch"]), int(row["onnxruntime"]), int(row["label"])) == (
                    expected[image],
                    found[image],
                    data.test.labels[image],
                )
                margin = logits[image, expected[image]] - logits[image, found[image]]
                assert float(row["margin"]) == pytest.approx(margin, abs=1e-4)
    assert seen == len(listed)
