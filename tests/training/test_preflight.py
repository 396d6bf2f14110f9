"""A network of others is tried before its first epoch; those of ours are held to the same here."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import cnnbench
from cnnbench.__main__ import main
from cnnbench.architectures import architecture
from cnnbench.training import preflight
from cnnbench.types import COST_SPEC, CnnbenchError, Exit, ImageSpec

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SPEC = ImageSpec(9, 8, 2, 5)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The registered architectures, of which a test may register more."""
    entries = dict(architecture.entries)
    monkeypatch.setattr(architecture, "entries", entries)
    return entries


@pytest.fixture(scope="module")
def strangers() -> Iterator[ModuleType]:
    """The script with networks of others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architecture, "entries", dict(architecture.entries))
        patch.syspath_prepend(str(BENCHMARKS))
        module = importlib.import_module("strangers")
        module.register()
        yield module
        del sys.modules["strangers"]


def test_every_network_of_others_is_taken_or_refused_with_the_reason(strangers: ModuleType) -> None:
    assert len(strangers.EXPECTED) > 25
    for name, expected in strangers.EXPECTED.items():
        if expected == strangers.TAKEN:
            warnings = preflight.check_network(name, SPEC)
            assert bool(warnings) == (name == "softmax_out"), (name, warnings)
            continue
        with pytest.raises(CnnbenchError) as refused:
            preflight.check_network(name, SPEC)
        words = expected.replace("10", "5")
        assert words in str(refused.value), name
        assert refused.value.code == (Exit.VERDICT if "function of the image" in expected else Exit.USAGE)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("lenet5", "inception_small")))
        for name in architecture
    ],
)
def test_networks_of_ours_pass_what_those_of_others_are_held_to(name: str) -> None:
    assert architecture[name].ours
    assert preflight.check_network(name, COST_SPEC) == ()


def test_trying_a_network_leaves_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    preflight.check_network("lenet5", SPEC)
    assert torch.equal(torch.get_rng_state(), before)


def linear(spec: ImageSpec) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.height * spec.width * spec.channels, spec.num_classes))


class Changed(nn.Module):
    """A linear network whose logits a function changes, given whether it trains."""

    def __init__(self, spec: ImageSpec, change: Callable[[torch.Tensor, bool], torch.Tensor]) -> None:
        super().__init__()
        self.network, self.change = linear(spec), change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change(self.network(x), self.training)


def test_a_softmax_in_training_mode_alone_is_said(names: dict[str, Any]) -> None:
    cnnbench.register_architecture(name="theirs")(
        lambda spec: Changed(spec, lambda logits, training: logits.softmax(1) if training else logits)
    )
    (warning,) = preflight.check_network("theirs", SPEC)
    assert warning.startswith("its outputs in training mode are probabilities, a softmax before the loss")


def test_an_image_alone_has_the_logits_that_it_has_among_others(names: dict[str, Any]) -> None:
    cnnbench.register_architecture(name="theirs")(
        lambda spec: Changed(spec, lambda logits, _: logits * (1.001 if len(logits) == 1 else 1.0))
    )
    with pytest.raises(CnnbenchError, match=r"not a function of the image: alone in the batch") as refused:
        preflight.check_network("theirs", SPEC)
    assert refused.value.code == Exit.VERDICT


@pytest.mark.parametrize("trains", [False, True])
def test_a_network_that_ends_the_process_is_refused(trains: bool, names: dict[str, Any]) -> None:
    def end(logits: torch.Tensor, training: bool) -> torch.Tensor:
        if training == trains and not logits.is_meta:
            raise SystemExit(0)
        return logits

    cnnbench.register_architecture(name="theirs")(lambda spec: Changed(spec, end))
    mode = "training" if trains else "evaluation"
    with pytest.raises(CnnbenchError, match=f"theirs fails in {mode} mode on 9x8x2 images: SystemExit: 0"):
        preflight.check_network("theirs", SPEC)


def test_a_wrong_declaration_is_said(names: dict[str, Any]) -> None:
    cnnbench.register_architecture(name="theirs", macs=1, params=30_730)(linear)
    (warning,) = preflight.check_network("theirs", SPEC)
    assert warning == "it declares 1 macs for 32x32x3, 10 classes; counted 30,720"


def test_a_network_is_tried_once_per_source_and_images(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tried: list[ImageSpec] = []
    monkeypatch.setattr(preflight, "check_network", lambda arch, spec: tried.append(spec) or ("a warning",))
    cnnbench.register_architecture(name="theirs")(linear)
    for spec, count in ((SPEC, 1), (SPEC, 1), (COST_SPEC, 2)):
        assert preflight.check_once("theirs", spec).warnings == ("a warning",)
        assert len(tried) == count
    for record in (tmp_path / "cache/cnnbench/checks").iterdir():
        record.write_text("{")  # as after a power cut
    preflight.check_once("theirs", SPEC)
    assert len(tried) == 3


FLAGS = ["--model.arch", "theirs", "--data.train_images", "64", "--trainer.max_epochs", "1"]


@pytest.mark.parametrize("skip", [False, True])
def test_what_was_found_or_skipped_is_recorded(
    skip: bool,
    names: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("cnnbench.bundles.dry_run.dry_export_warnings", lambda arch, spec: ())
    cnnbench.register_architecture(name="theirs")(lambda spec: nn.Sequential(linear(spec), nn.Softmax(1)))
    assert main(["fit", *FLAGS, *["--skip-checks"] * skip]) == 0
    checks = json.loads(Path("runs/mnist5k_theirs/seed1/result.json").read_text())["checks"]
    assert (checks["skipped"], len(checks["warnings"])) == (skip, int(not skip))
    assert ("theirs: its outputs are probabilities" in capsys.readouterr().err) == (not skip)


def test_a_refusal_comes_before_anything_is_written(
    names: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    @cnnbench.register_architecture(name="random")
    def drops_always(spec: ImageSpec) -> nn.Module:
        class Drops(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return nn.functional.dropout(x, 0.1, training=True)

        return nn.Sequential(Drops(), linear(spec))

    assert main(["fit", *FLAGS, "--model.arch", "random"]) == Exit.VERDICT
    assert "random is not a function of the image: at a second call" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_checks_of_ours_cannot_be_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *FLAGS, "--model.arch", "linear", "--skip-checks"]) == Exit.USAGE
    assert "skip-checks does not apply to linear" in capsys.readouterr().err


def test_networks_of_ours_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check_once", lambda *_, **__: pytest.fail("it was tried"))
    record = cnnbench.fit(arch="linear", train_images=64, max_epochs=1)
    assert record is not None
    assert record.checks is None
