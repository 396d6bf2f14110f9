"""`ship` from images to a bundle."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from sweeping import in_this_process

import cnnbench
from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.bundles import graph
from cnnbench.bundles.bundle import export_run
from cnnbench.bundles.program import ReferenceNetwork
from cnnbench.bundles.verify import verify_bundle
from cnnbench.records.schema import RunRecord
from cnnbench.shipping import finish, race
from cnnbench.shipping.record import Decision
from cnnbench.types import CnnbenchError, Exit


def squares(folder: Path, *, count: int) -> Path:
    """Images of two classes, a bright square on the left or on the right; the last class has half as many."""
    random = np.random.RandomState(0)
    for name, images in (("left", count), ("right", count // 2)):
        (folder / name).mkdir(parents=True)
        for place in range(images):
            pixels = random.randint(0, 100, (16, 16), np.uint8)
            top, side = random.randint(0, 10), random.randint(0, 3) + 9 * (name == "right")
            pixels[top : top + 5, side : side + 5] = 255
            Image.fromarray(pixels).save(folder / name / f"{place}.png")
    return folder


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "name a folder of images"),
        (["images", "--dataset", "mnist5k"], "name a folder of images"),
        (["--dataset", "mnist5k", "--min-accuracy", "98"], "98 is more than 1"),
        (["--dataset", "mnist5k", "--budget", "30"], "has no unit"),
        (["--dataset", "mnist5k", "--arch", "lenet6"], "lenet6"),
        (["--dataset", "mnist5k", "--jobs", "0"], "expected at least 1"),
    ],
)
def test_what_cannot_be_shipped_is_refused_in_a_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ship", *options]) == Exit.USAGE
    assert words in capsys.readouterr().err


def test_a_budget_that_is_too_short_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch)
    with pytest.raises(CnnbenchError, match=r"a budget of 5 s is too short: .* take about \d+ s"):
        cnnbench.ship(dataset="mnist5k", arch="linear", budget_seconds=5.0, out="out", jobs=1)
    assert not list(Path("out").rglob("result.json"))


def test_images_of_one_colour_are_refused() -> None:
    for name, level in (("dark", 0), ("light", 200)):
        Path("flat", name).mkdir(parents=True)
        for place in range(10):
            Image.new("L", (8, 8), level + place).save(Path("flat", name, f"{place}.png"))
    with pytest.raises(CnnbenchError, match="nothing to learn from") as refused:
        cnnbench.ship("flat")
    assert refused.value.code == Exit.DATA


def test_where_no_network_can_keep_a_limit_nothing_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ship", "--dataset", "mnist5k", "--arch", "linear,mlp", "--max-bytes", "1kB", "--out", "out"]) == 8
    assert "no network can keep the limits" in capsys.readouterr().out
    decision = records.read(Path("out/decision.json"), Decision)
    assert [competitor.left for competitor in decision.competitors] == ["before training"] * 2
    assert "weights take more than 1,000 bytes" in decision.competitors[0].why
    assert not list(Path("out").rglob("result.json"))


@pytest.mark.slow
def test_a_folder_becomes_a_verified_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    commands = in_this_process(monkeypatch)
    monkeypatch.setattr(race, "settle", lambda ranked, *_, **__: tuple(ranked))  # 25 runs of a seed
    folder, out = squares(Path("squares"), count=120), Path("out")
    arguments = ["ship", str(folder), "--arch", "linear,mlp_lenet", "--budget", "10m", "--out", str(out), "--jobs", "1"]
    assert main(arguments) == 0
    said = capsys.readouterr()
    decision = records.read(out / "decision.json", Decision)
    chosen = decision.chosen
    assert chosen is not None
    assert decision.finished
    assert decision.images.folds == 5  # there are few images
    for word in (
        "network:",
        "file:",
        "always answering left",
        "latency of one image",
        "pretrained",
        "predict.py IMAGE",
    ):
        assert word in said.out
    assert said.err.splitlines()[-1] == f"next: cnnbench classify {out / chosen.bundle} IMAGES"
    verify_bundle(out / chosen.bundle, rescore=True, folder=str(folder))
    assert (out / chosen.bundle / chosen.file).stat().st_size == chosen.bytes
    assert (out / "report.html").is_file()
    tested = [path for path in out.rglob("result.json") if records.read(path, RunRecord).test]
    assert [path.parent for path in tested] == [out / chosen.run]
    assert [words for words in commands if words[0] == "test" or "--test" in words] == commands[-1:]
    subprocess.run(["sh", "-n", str(out / "commands.sh")], check=True)
    began = len(commands)
    assert main(arguments) == 0
    assert len(commands) == began
    assert capsys.readouterr().out == said.out


@pytest.mark.slow
def test_ctrl_c_ships_the_best_so_far_and_the_same_command_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = in_this_process(monkeypatch)
    arguments = ["ship", "--dataset", "mnist5k", "--arch", "linear,mlp_lenet", "--out", "out", "--jobs", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(race, "_promoted", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(arguments) == Exit.INTERRUPTED
    decision = records.read(Path("out/decision.json"), Decision)
    assert decision.interrupted
    assert not decision.finished
    assert decision.chosen is not None
    assert decision.chosen.epochs == 9
    monkeypatch.setattr(race, "settle", lambda ranked, *_, **__: tuple(ranked))
    monkeypatch.setattr(race, "_second_chance", lambda *_: None)
    trained = [words for words in commands if words[0] == "fit"]
    assert main(arguments) == 0
    again = [words for words in commands if words[0] == "fit"][len(trained) :]
    assert all("--trainer.max_epochs=27" in words for words in again)


@pytest.mark.slow
def test_where_no_file_keeps_the_limits_no_test_image_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_this_process(monkeypatch)
    arguments = ["ship", "--dataset", "mnist5k", "--arch", "linear", "--min-accuracy", "99.9%", "--jobs", "1"]
    assert main([*arguments, "--out", "out"]) == Exit.LIMITS
    assert "relax accuracy from 99.90 % to" in capsys.readouterr().out
    assert not any(records.read(path, RunRecord).test for path in Path("out").rglob("result.json"))
    assert not Path("out/exports").exists()


@pytest.mark.slow
def test_a_chosen_file_that_is_not_the_network_is_not_shipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], real_convert: Callable[..., onnx.ModelProto]
) -> None:
    """The converter goes wrong after the choice: exit 4, no bundle, and the same command goes on from the choice."""
    commands = in_this_process(monkeypatch)

    def wrong(reference: ReferenceNetwork, *, outputs: list[str]) -> onnx.ModelProto:
        model = onnx.ModelProto.FromString(real_convert(reference, outputs=outputs).SerializeToString())
        weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        values = onnx.numpy_helper.to_array(weights) * 1.01
        weights.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weights.name))
        return model

    def export_wrongly(*arguments: Any, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(graph, "_convert", wrong)
            return export_run(*arguments, **options)

    arguments = ["ship", "--dataset", "mnist5k", "--arch", "linear", "--budget", "5h", "--out", "out", "--jobs", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(finish, "export_run", export_wrongly)
        assert main(arguments) == Exit.VERDICT
    assert "constant" in capsys.readouterr().err
    assert not list(Path("out/exports").rglob("model.onnx"))
    decision = records.read(Path("out/decision.json"), Decision)
    assert (decision.finished, decision.chosen) == (False, None)
    began = len(commands)
    assert main(arguments) == Exit.OK
    assert len(commands) == began  # everything had been trained, and tested once
    verify_bundle(next(Path("out/exports").iterdir()), rescore=True)
