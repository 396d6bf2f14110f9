"""A session runs on the provider that was asked for, or not at all."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from isolated import python_without

from cnnbench.__main__ import main
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
    with pytest.raises(CnnbenchError, match=r"^provider cuda ") as caught:
        providers.open_session(providers.tiny_model(), "cuda")
    assert caught.value.code == Exit.ENVIRONMENT
    assert "\n" not in str(caught.value)
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert "fallback" not in str(caught.value)  # what the exception says, which is not the reason
        assert re.search(r"lib\w+\.so|dll|CUDA (failure|error)|no CUDA-capable|driver", str(caught.value))


@pytest.mark.parametrize("verb", ["verify", "export"])
def test_a_verb_that_is_asked_for_cuda_without_one_exits_6_with_the_reason(
    verb: str, run: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    asked = {"verify": [str(bundle), "--provider", "cuda"], "export": [str(run), "--provider", "cpu,cuda"]}[verb]
    assert main([verb, *asked]) == 6
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"cnnbench: {providers.usable()['cuda']}\n"
    assert not Path("exports").exists()


LOG = """\x1b[1;31m2026-01-01 00:00:00.1 [E:onnxruntime:Default, provider_bridge_ort.cc:2195 TryGetProviderInfo_CUDA] \
/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:1778 onnxruntime::Provider& \
onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library \
libonnxruntime_providers_cuda.so with error: libcudnn.so.9: cannot open shared object file
\x1b[m
2026-01-01 00:00:00.2 [W:onnxruntime:Default, onnxruntime_pybind_state.cc:1013 CreateExecutionProviderFactoryInstance] \
Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA 12.*. Please install all dependencies.
2026-01-01 00:00:00.3 [E:onnxruntime:, inference_session.cc:3181 operator()] This session contains graph nodes that \
are assigned to the default CPU EP, but fallback to CPU EP has been explicitly disabled by the user.
"""


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (LOG, "libcudnn.so.9: cannot open shared object file; it needs cuDNN 9.* and CUDA 12.*"),
        ("t [E:onnxruntime:, a.cc:1 f] CUDA failure 100: no such device", "CUDA failure 100: no such device"),
        ("", ""),
    ],
    ids=["a library is missing", "no device", "nothing said"],
)
def test_the_reason_is_what_onnxruntime_logs_not_what_it_raises(log: str, reason: str) -> None:
    """In a process of its own, since standard error is redirected there."""
    code = (
        "import os, sys\n"
        "from cnnbench.runtime import providers\n"
        "log = sys.argv[1]\n"
        "def session(*_, **__):\n"
        "    os.write(2, log.encode())\n"
        "    raise RuntimeError('fallback is disabled')\n"
        "providers._session = session\n"
        "print(providers.logged_reason('cuda'))"
    )
    done = python_without((), code, log)
    assert (done.returncode, done.stdout) == (0, f"{reason}\n")


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
    with pytest.raises(CnnbenchError, match="provider cuda cannot be used here") as caught:
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

    monkeypatch.setattr(providers, "open_session", lambda *_, **__: Wrong())
    assert providers.usable()["cpu"] == "provider cpu computed 1 + 1 = 3.0"


def test_graph_optimisations_are_of_the_level_that_was_asked_for(bundle: Path) -> None:
    levels = onnxruntime.GraphOptimizationLevel
    expected = {
        "on": levels.ORT_ENABLE_ALL,
        "off": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
    }
    sessions = {level: providers.open_session(bundle / "model.onnx", level=level) for level in providers.LEVELS}
    assert {
        level: session.get_session_options().graph_optimization_level for level, session in sessions.items()
    } == expected


def test_a_profile_names_the_provider_of_every_node(bundle: Path, tmp_path: Path) -> None:
    session = providers.open_session(bundle / "model.onnx", level="off", profile=tmp_path / "profile")
    with np.load(bundle / "golden.npz") as golden:
        session.run(None, {"pixels": golden["pixels"]})
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event for event in events if event.get("cat") == "Node" and "provider" in event.get("args", {})]
    assert {event["args"]["provider"] for event in kernels} == {"CPUExecutionProvider"}
    assert len({event["name"] for event in kernels}) == len(onnx.load(bundle / "model.onnx").graph.node)


@pytest.mark.gpu
def test_cuda_gives_the_golden_logits(bundle: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    session = providers.open_session(bundle / "model.onnx", "cuda")
    assert session.get_providers()[0] == "CUDAExecutionProvider"
    with np.load(bundle / "golden.npz") as golden:
        logits = Model(bundle, session).logits(golden["pixels"])
        np.testing.assert_allclose(logits, golden["logits"], atol=1e-5 * max(1, np.abs(golden["logits"]).max()))
