"""Whether a network exports is known before it is trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import Tensor, nn

import cnnbench
from cnnbench.__main__ import main
from cnnbench.architectures import architecture
from cnnbench.bundles import dry_run, graph
from cnnbench.types import CnnbenchError, Exit, ImageSpec

SPEC = ImageSpec(6, 5, 1, 3)


@pytest.fixture(autouse=True)
def _own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture, "entries", dict(architecture.entries))


def test_an_untrained_network_is_exported_and_compared_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["export", "linear", "--dry-run", "--size", "6x5x1", "--classes", "3", "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["arch"], printed["spec"]["height"]) == ("linear", 6)
    assert 0 <= printed["largest_error"] <= printed["error_bound"] < 1e-3
    assert 0 <= printed["graph_error"] <= 1e-12
    assert 4 * 93 < printed["bytes"] < 10_000  # the weights and the graph
    assert not list(Path().iterdir())


def test_a_network_that_branches_on_its_values_does_not_export() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(1)[:, :3]
            return flat if x.sum() > 0 else -flat

    @cnnbench.register_architecture
    def branches(spec: ImageSpec) -> nn.Module:
        return Branches()

    with pytest.raises(CnnbenchError, match="cannot be exported") as refused:
        dry_run.dry_export("branches", SPEC)
    assert refused.value.code == Exit.VERDICT
    (warning,) = dry_run.dry_export_warnings("branches", SPEC)
    assert warning.startswith("it trains but does not export: ")


def test_a_file_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By one unit in the last place of one weight."""
    convert = graph._convert

    def another_weight(*arguments: Any, **options: Any) -> onnx.ModelProto:
        model = convert(*arguments, **options)
        weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        values = numpy_helper.to_array(weights).copy()
        values.flat[7] = np.nextafter(values.flat[7], np.float32(1))
        weights.CopyFrom(numpy_helper.from_array(values, weights.name))
        return model

    monkeypatch.setattr(graph, "_convert", another_weight)
    with pytest.raises(CnnbenchError, match="is not the trained network: its constant") as refused:
        dry_run.dry_export("linear", SPEC)
    assert refused.value.code == Exit.VERDICT


def test_a_runtime_that_does_not_compute_float32_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its logits have 11 bits of mantissa."""

    class Rounding(dry_run.onnxruntime.InferenceSession):  # type: ignore[misc]
        def run(self, names: object, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [logits.astype(np.float16).astype(np.float32) for logits in super().run(names, feed)]

    monkeypatch.setattr(dry_run.onnxruntime, "InferenceSession", Rounding)
    with pytest.raises(CnnbenchError, match="ONNX Runtime does not compute linear in float32") as refused:
        dry_run.dry_export("linear", SPEC)
    assert refused.value.code == Exit.VERDICT


def test_a_network_that_mixes_the_images_of_a_batch_is_known_before_it_is_trained() -> None:
    class Mixing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward((x - 0.01 * x.mean(0)).flatten(1))

    @cnnbench.register_architecture
    def mixing(spec: ImageSpec) -> nn.Module:
        return Mixing(30, 3)

    (warning,) = dry_run.dry_export_warnings("mixing", SPEC)
    assert warning.startswith("it trains but does not export: the trained network is not a function of the image")
    assert "mixes the images of a batch" in warning


@pytest.mark.parametrize(
    "flag", ["--out=x", "--precision=fp16", "--provider=cpu", "--probabilities=softmax", "--input=float"]
)
def test_flags_of_a_real_export_do_not_apply(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "linear", "--dry-run", flag]) == Exit.USAGE
    assert f"{flag.partition('=')[0]} does not apply to --dry-run" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--size=6x5x1", "--classes=0"])
def test_the_size_is_for_a_dry_run(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "runs/x", flag]) == Exit.USAGE
    assert f"{flag.partition('=')[0]} does not apply to a run" in capsys.readouterr().err
