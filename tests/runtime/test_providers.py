"""A session runs on the provider that was asked for, or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from cnnbench.runtime import providers
from cnnbench.runtime.predict import Model
from cnnbench.types import CnnbenchError, Exit


def test_the_cpu_works() -> None:
    session = providers.open_session(providers.tiny_model())
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.run(None, {"x": np.full((1, 1), 3, np.float32)})[0].item() == 6


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_asked_for(threads: int) -> None:
    session = providers.open_session(providers.tiny_model(), threads=threads)
    assert session.get_session_options().intra_op_num_threads == threads


def test_an_unknown_provider_is_refused_with_those_known() -> None:
    with pytest.raises(CnnbenchError, match="expected cpu or cuda") as caught:
        providers.open_session(providers.tiny_model(), "tpu")
    assert caught.value.code == Exit.USAGE


def test_cuda_is_refused_where_there_is_no_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(CnnbenchError, match="cuda") as caught:
        providers.open_session(providers.tiny_model(), "cuda")
    assert caught.value.code == Exit.ENVIRONMENT
    assert "\n" not in str(caught.value)


def test_cuda_is_refused_where_the_wheel_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(CnnbenchError, match="onnxruntime-gpu") as caught:
        providers.open_session(providers.tiny_model(), "cuda")
    assert caught.value.code == Exit.ENVIRONMENT


class FellBack:
    """A session as ONNX Runtime makes it when CUDA cannot be used: no error, and the CPU instead."""

    def __init__(self, model: bytes, settings: Any, providers: Sequence[Any]) -> None:
        self.settings = settings

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


def test_falling_back_to_the_cpu_in_silence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FellBack)
    with pytest.raises(CnnbenchError, match="chose CPUExecutionProvider") as caught:
        providers.open_session(providers.tiny_model(), "cuda")
    assert caught.value.code == Exit.ENVIRONMENT


@pytest.mark.parametrize("content", [b"", b"not a model", providers.tiny_model()[:-20]], ids=["empty", "text", "cut"])
def test_a_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(CnnbenchError, match=r"model\.onnx is not a readable ONNX file") as caught:
        providers.open_session(tmp_path / "model.onnx")
    assert caught.value.code == Exit.DATA
    assert "\n" not in str(caught.value)


def test_usable_tells_what_really_ran() -> None:
    found = providers.usable()
    assert set(found) == {"cpu", "cuda"}
    assert found["cpu"] == ""
    assert bool(found["cuda"]) != torch.cuda.is_available()


def test_a_provider_that_computes_wrongly_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def run(self, *_: object) -> list[np.ndarray]:
            return [np.array([[3.0]])]

    monkeypatch.setattr(providers, "open_session", lambda *_: Wrong())
    assert providers.usable()["cpu"] == "cpu computed 1 + 1 = 3.0"


@pytest.mark.gpu
def test_cuda_gives_the_golden_logits(bundle: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    session = providers.open_session(bundle / "model.onnx", "cuda")
    assert session.get_providers()[0] == "CUDAExecutionProvider"
    with np.load(bundle / "golden.npz") as golden:
        logits = Model(bundle, session).logits(golden["pixels"])
        np.testing.assert_allclose(logits, golden["logits"], atol=1e-5 * max(1, np.abs(golden["logits"]).max()))
