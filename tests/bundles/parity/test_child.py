"""A file is refused where it does not run or breaks the contract; else it is run, profiled and timed."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cnnbench.bundles import contract
from cnnbench.bundles.parity import child
from cnnbench.records.bundle import Contract, Share
from cnnbench.runtime.providers import LEVELS, Level
from cnnbench.types import CnnbenchError, Exit, ImageSpec

SPEC = ImageSpec(4, 4, 1, num_classes=3)
METADATA = {"said": "this"}
IMAGES = np.random.RandomState(0).randint(0, 256, (10, 4, 4, 1), dtype=np.uint8)
WEIGHTS = np.random.RandomState(1).standard_normal((16, 3)).astype(np.float32) / 100


def linear(agreed: Contract, nodes: list[onnx.NodeProto] | None = None, **constants: np.ndarray) -> onnx.ModelProto:
    """Logits of a matrix; `nodes` follow, and read `raw`."""
    kinds = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
    head = [
        helper.make_node("Cast", ["pixels"], ["cast"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["cast"], ["flat"], "flatten"),
        helper.make_node("MatMul", ["flat", "w"], ["raw"], "matmul"),
    ]
    tail = nodes or [helper.make_node("Identity", ["raw"], ["logits"], "identity")]
    made = helper.make_graph(
        [*head, *tail],
        "linear",
        [helper.make_tensor_value_info("pixels", kinds[agreed.input.dtype], agreed.input.shape)],
        [helper.make_tensor_value_info(item.name, TensorProto.FLOAT, item.shape) for item in agreed.outputs],
        [numpy_helper.from_array(value, name) for name, value in {"w": WEIGHTS, **constants}.items()],
    )
    versions = [helper.make_opsetid("", agreed.opset)]
    model = helper.make_model(made, ir_version=agreed.ir_version, opset_imports=versions)
    model.metadata_props.add(key="said", value="this")
    return model


def request(agreed: Contract, model: str = "stranger.onnx", **wanted: Any) -> child.Examination:
    """One pass over IMAGES: 10 of them at a batch size of 4."""
    return child.Examination(
        model=model,
        contract=agreed,
        metadata=METADATA,
        provider="cpu",
        images="images.npy",
        passes=(child.PassRequest(**{"level": "on", "sizes": {4: 10}, "profile": False} | wanted),),
        out="out",
    )


def examine(model: onnx.ModelProto, agreed: Contract, **wanted: Any) -> tuple[child.PassAnswer, np.ndarray]:
    """What a pass over IMAGES answers, and its logits at the first batch size. It works in the test's own folder."""
    Path("stranger.onnx").write_bytes(model.SerializeToString())
    np.save("images.npy", IMAGES)
    Path("out").mkdir()
    asked = request(agreed, **wanted)
    (answer,) = child.examine(asked)
    return answer, np.load(f"out/0-{next(iter(asked.passes[0].sizes))}.npy")


def refused(model: onnx.ModelProto, agreed: Contract, **wanted: Any) -> str:
    with pytest.raises(CnnbenchError) as caught:
        examine(model, agreed, **wanted)
    assert caught.value.code == Exit.VERDICT
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_logits_are_those_of_the_images_in_order(kind: contract.InputKind) -> None:
    agreed = contract.contract_of(SPEC, kind=kind)
    answer, logits = examine(linear(agreed), agreed, sizes={4: 10, 1: 7})
    pixels = IMAGES.transpose(0, 3, 1, 2).reshape(10, 16) / (255 if kind == "float" else 1)
    np.testing.assert_allclose(logits, pixels @ WEIGHTS, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.load("out/0-1.npy"), logits[:7], rtol=1e-5, atol=1e-6)
    assert answer == child.PassAnswer(active="CPUExecutionProvider", placement={})


def with_probabilities(axis: int, factor: float = 1) -> tuple[onnx.ModelProto, Contract]:
    agreed = contract.contract_of(SPEC, probabilities=True)
    nodes = [
        helper.make_node("Identity", ["raw"], ["logits"]),
        helper.make_node("Mul", ["raw", "factor"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["probabilities"], axis=axis),
    ]
    return linear(agreed, nodes, factor=np.asarray(factor, np.float32)), agreed


def test_probabilities_that_are_the_softmax_are_accepted() -> None:
    _, logits = examine(*with_probabilities(axis=1))
    assert logits.shape == (10, 3)


@pytest.mark.parametrize(("axis", "factor"), [(0, 1), (1, 1.01), (1, -1)], ids=["over the batch", "hotter", "inverse"])
def test_probabilities_that_are_not_the_softmax_are_refused(axis: int, factor: float) -> None:
    assert "not the softmax" in refused(*with_probabilities(axis, factor))


def reshaped(*shape: int) -> tuple[onnx.ModelProto, Contract]:
    agreed = contract.contract_of(SPEC)
    nodes = [helper.make_node("Reshape", ["raw", "shape"], ["logits"], "reshape")]
    return linear(agreed, nodes, shape=np.array(shape, np.int64)), agreed


@pytest.mark.parametrize(("sizes", "fails_at"), [({5: 10, 2: 4, 1: 1}, 2), ({1: 3}, 1), ({4: 10}, 4)])
def test_a_graph_that_fails_at_some_batch_size_is_refused_naming_it(sizes: dict[int, int], fails_at: int) -> None:
    assert f"does not run with a batch of {fails_at}:" in refused(*reshaped(5, 3), sizes=sizes)


def test_a_graph_that_gives_another_number_of_rows_is_refused() -> None:
    agreed = contract.contract_of(SPEC)
    nodes = [helper.make_node("Concat", ["raw", "raw"], ["logits"], axis=0)]
    assert "a batch of 4 gives 8 rows of logits" in refused(linear(agreed, nodes), agreed)


@pytest.mark.parametrize("level", LEVELS)
def test_shares_of_placement_add_up_to_one(level: Level) -> None:
    agreed = contract.contract_of(SPEC)
    answer, _ = examine(linear(agreed), agreed, profile=True, level=level)
    assert answer.placement == {"CPUExecutionProvider": Share(nodes=1, time=1)}
    left = {path.name for path in Path().iterdir()} - {"stranger.onnx", "model.onnx", "images.npy", "out"}
    assert left == set()  # the profile is removed


def test_shares_are_of_nodes_and_of_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a profile as ONNX Runtime writes it where a part of the graph runs elsewhere."""
    import json

    events = [
        {"cat": "Session", "name": "model_run", "dur": 999, "args": {}},
        {"cat": "Node", "name": "a_kernel_time", "dur": 60, "args": {"provider": "CUDAExecutionProvider"}},
        {"cat": "Node", "name": "b_kernel_time", "dur": 30, "args": {"provider": "CUDAExecutionProvider"}},
        {"cat": "Node", "name": "b_kernel_time", "dur": 0, "args": {"provider": "CUDAExecutionProvider"}},
        {"cat": "Node", "name": "c_kernel_time", "dur": 10, "args": {"provider": "CPUExecutionProvider"}},
    ]

    class Profiled:
        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider"]

        def run(self, _: object, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [np.zeros((len(feed["pixels"]), 3), np.float32)]

        def end_profiling(self) -> str:
            Path("profile.json").write_text(json.dumps(events))
            return "profile.json"

    monkeypatch.setattr(child.providers, "open_session", lambda *_, **__: Profiled())
    agreed = contract.contract_of(SPEC)
    answer, _ = examine(linear(agreed), agreed, profile=True)
    assert answer.placement == {
        "CPUExecutionProvider": Share(nodes=1 / 3, time=0.1),
        "CUDAExecutionProvider": Share(nodes=2 / 3, time=0.9),
    }


def test_the_file_is_read_alone_so_that_no_side_file_helps() -> None:
    """Weights that lie beside the stranger's file are not there where it is read."""
    agreed = contract.contract_of(SPEC)
    model = linear(agreed)
    onnx.save(model, "stranger.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    np.save("images.npy", IMAGES)
    with pytest.raises(CnnbenchError, match="lie in weights") as caught:
        child.examine(request(agreed))
    assert caught.value.code == Exit.VERDICT


def test_a_missing_file_is_told() -> None:
    with pytest.raises(CnnbenchError, match=r"nowhere\.onnx is missing") as caught:
        child.examine(request(contract.contract_of(SPEC), "nowhere.onnx"))
    assert caught.value.code == Exit.DATA


def test_a_message_names_the_file_that_was_given_not_its_copy() -> None:
    Path("stranger.onnx").write_text("no model")
    with pytest.raises(CnnbenchError, match=r"^stranger\.onnx is not a readable"):
        child.examine(request(contract.contract_of(SPEC)))


def test_a_race_gives_the_median_of_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the one that computes a thousand times as much is slower in every round."""
    monkeypatch.setattr(child, "RACE_SECONDS", 0.02)
    agreed = contract.contract_of(SPEC)
    more = [
        helper.make_node("MatMul", ["raw", "wide"], ["w1"]),
        *(helper.make_node("MatMul", [f"w{i}", "square"], [f"w{i + 1}"]) for i in range(1, 5)),
        helper.make_node("MatMul", ["w5", "narrow"], ["logits"]),
    ]
    constants = {"wide": (3, 900), "square": (900, 900), "narrow": (900, 3)}
    models = {
        "light": linear(agreed),
        "heavy": linear(agreed, more, **{name: np.ones(shape, np.float32) for name, shape in constants.items()}),
    }
    for name, model in models.items():
        onnx.save(model, f"{name}.onnx")
    np.save("images.npy", IMAGES)
    race = child.race(child.RaceRequest(candidate="light.onnx", fp32="heavy.onnx", dtype="uint8", images="images.npy"))
    assert len(race.candidate) == len(race.fp32) == child.RACE_ROUNDS
    assert all(0 < light < heavy for light, heavy in zip(race.candidate, race.fp32, strict=True))


def test_the_graphs_here_are_what_onnxruntime_takes() -> None:
    """Else a refusal above would prove nothing."""
    for model, _ in (with_probabilities(1), reshaped(5, 3)):
        assert onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
