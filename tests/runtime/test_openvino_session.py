"""OpenVINO computes in float32, or not at all; without it, or off the CPU, one line says so."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from bench_helpers import setup_of

from cnnbench.__main__ import main
from cnnbench.bench.networks import open_backend
from cnnbench.bundles import quantise
from cnnbench.bundles.contract import read
from cnnbench.bundles.parity.comparison import FLOAT32, LOOSEST_LOWER
from cnnbench.records.bundle import Precision
from cnnbench.runtime import openvino_session
from cnnbench.runtime.openvino_session import OpenvinoSession
from cnnbench.types import CnnbenchError, Exit

VERBS = ("verify", "bench")


@pytest.fixture
def openvino() -> Any:
    return pytest.importorskip("openvino", reason="the extra `openvino` is not installed")


@pytest.mark.parametrize("verb", VERBS)
def test_without_the_extra_one_line_says_what_to_install(
    verb: str, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    assert main([verb, str(bundle), "--backend", "openvino"]) == 6
    assert capsys.readouterr().err == "cnnbench: openvino is not installed: pip install 'cnnbench[openvino]'\n"


@pytest.mark.parametrize("verb", VERBS)
def test_another_provider_than_the_cpu_is_refused(verb: str, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, str(bundle), "--backend", "openvino", "--provider", "cuda"]) == 2
    assert "openvino runs on cpu" in capsys.readouterr().err


def test_a_precision_hint_that_is_not_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = SimpleNamespace(get_property=lambda name: SimpleNamespace(to_string=lambda: "bf16"))
    core = SimpleNamespace(compile_model=lambda model, device, options: kept)
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=lambda: core))
    with pytest.raises(CnnbenchError, match="keeps INFERENCE_PRECISION_HINT bf16; expected f32") as caught:
        OpenvinoSession("model.onnx")
    assert caught.value.code == Exit.ENVIRONMENT


@pytest.mark.usefixtures("openvino")
def test_logits_are_those_of_float64_within_the_bound_of_float32(bundle: Path) -> None:
    with np.load(bundle / "golden.npz") as golden:
        pixels, expected = golden["pixels"], golden["logits"]
    session = OpenvinoSession(bundle / "model.onnx", threads=1)
    assert session.settings == openvino_session.PRECISION_HINT
    assert [(output.name, output.shape[1:]) for output in session.get_outputs()] == [("logits", (10,))]
    (logits,) = session.run(["logits"], {"pixels": pixels})
    assert np.abs(logits - expected).max() <= FLOAT32 * np.abs(expected).max()


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_files_of_lower_precision_are_near_onnx_runtimes(precision: Precision, bundle: Path, tmp_path: Path) -> None:
    with np.load(bundle / "golden.npz") as golden:
        pixels = golden["pixels"]
    model = quantise.make(precision, read(bundle / "model.onnx"), images=pixels, dtype="uint8")
    (tmp_path / "lower.onnx").write_bytes(model.SerializeToString())
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(["logits"], {"pixels": pixels})
    (logits,) = OpenvinoSession(tmp_path / "lower.onnx").run(["logits"], {"pixels": pixels})
    assert np.abs(logits - expected).max() <= LOOSEST_LOWER * np.abs(expected).max()


@pytest.mark.usefixtures("openvino")
def test_a_file_that_is_no_onnx_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(CnnbenchError, match=r"^openvino cannot read .*model.onnx: .") as caught:
        OpenvinoSession(tmp_path / "model.onnx")
    assert caught.value.code == Exit.DATA


@pytest.mark.usefixtures("openvino")
def test_bench_runs_the_file_and_knows_the_precision_hint(bundle: Path) -> None:
    with np.load(bundle / "golden.npz") as golden:
        pixels, expected = golden["pixels"], golden["logits"]
    call = open_backend(setup_of(bundle, backend="openvino"))
    assert call.settings == {"INFERENCE_PRECISION_HINT": "f32"}
    np.testing.assert_allclose(call(pixels), expected, atol=1e-4)


@pytest.mark.usefixtures("openvino")
def test_nothing_is_written_into_the_home_folder_nor_sent(bundle: Path, tmp_path: Path) -> None:
    code = f"from cnnbench.runtime.openvino_session import OpenvinoSession as S; S({str(bundle / 'model.onnx')!r})"
    code += "; import sys; assert not sys.modules['openvino_telemetry']"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "HOME": str(tmp_path)}, check=True, timeout=60)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
@pytest.mark.usefixtures("openvino")
def test_a_bundle_is_verified_on_openvino(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle), "--backend", "openvino", "--rescore", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["backend"] == "openvino"
    assert document["where"].endswith(" with INFERENCE_PRECISION_HINT=f32")
