"""Whether a network exports is known before it is trained."""

import json
from pathlib import Path

import pytest
import torch
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
    assert 0 <= printed["largest_error"] <= printed["error_bound"] < 1e-4
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
    convert = graph.to_onnx

    def other_weights(network: nn.Module, spec: ImageSpec, **options: object) -> object:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.01)
        model = convert(network, spec, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.sub_(0.01)
        return model

    monkeypatch.setattr(graph, "to_onnx", other_weights)
    with pytest.raises(CnnbenchError, match="computes something else") as refused:
        dry_run.dry_export("linear", SPEC)
    assert refused.value.code == Exit.VERDICT


@pytest.mark.parametrize("flag", ["--out=x", "--precision=fp16", "--provider=cpu", "--probabilities", "--input=float"])
def test_flags_of_a_real_export_do_not_apply(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "linear", "--dry-run", flag]) == Exit.USAGE
    assert f"{flag.partition('=')[0]} does not apply to --dry-run" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--size=6x5x1", "--classes=0"])
def test_the_size_is_for_a_dry_run(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "runs/x", flag]) == Exit.USAGE
    assert f"{flag.partition('=')[0]} does not apply to a run" in capsys.readouterr().err
