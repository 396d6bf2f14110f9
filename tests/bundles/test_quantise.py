"""Smaller files of the same network: what float16 and int8 change, and what they leave alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import small_networks
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from cnnbench.bundles import contract, graph, quantise
from cnnbench.bundles.parity import lower
from cnnbench.pixels import to_graph_input
from cnnbench.types import CnnbenchError, Dataset, Exit, ImageSpec

SPEC = ImageSpec(28, 28, 1, 10)


@pytest.fixture(scope="module")
def fp32(bundle: Path) -> onnx.ModelProto:
    return onnx.load(bundle / "model.onnx")


@pytest.fixture(scope="module")
def fp16(fp32: onnx.ModelProto) -> onnx.ModelProto:
    return signed(quantise.fp16(fp32))


@pytest.fixture(scope="module")
def int8(fp32: onnx.ModelProto, data: Dataset) -> onnx.ModelProto:
    return signed(quantise.int8(fp32, images=data.train.images, dtype="uint8"))


def signed(model: onnx.ModelProto) -> onnx.ModelProto:
    graph.sign(model, {"signed": "yes"})
    return model


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor on the way, by ONNX's own inference."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}


@given(st.lists(st.sampled_from(quantise.PRECISIONS), min_size=1))
def test_float32_is_always_made_and_first_and_nothing_twice(asked: list[str]) -> None:
    precisions = quantise.with_fp32(asked)
    assert precisions[0] == "fp32"
    assert len(precisions) == len({*precisions})
    assert {*precisions} == {*asked, "fp32"}
    assert precisions == quantise.with_fp32([*reversed(asked)])


@pytest.mark.parametrize("names", [["fp4"], ["fp32", ""], [""], ["FP16"], ["fp32", " fp16"], ["int8;fp16"]])
def test_an_unknown_precision_is_refused(names: list[str]) -> None:
    with pytest.raises(CnnbenchError, match="expected fp32, fp16 or int8") as caught:
        quantise.with_fp32(names)
    assert caught.value.code == Exit.USAGE


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_it_is_valid_onnx_of_the_same_contract(precision: str, request: pytest.FixtureRequest) -> None:
    contract.check(request.getfixturevalue(precision), contract.contract_of(SPEC), metadata={"signed": "yes"})


def preprocessing(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes between the pixels and the first that has weights, or that quantises."""
    name = "pixels"
    while True:
        (node,) = (node for node in model.graph.node if name in node.input)
        if node.op_type in ("Conv", "QuantizeLinear"):
            return
        yield node
        name = node.output[0]


@pytest.mark.parametrize(("precision", "last"), [("fp16", ["Cast"]), ("int8", [])])
def test_pixels_are_normalised_in_float32_by_the_same_numbers(
    precision: str, last: list[str], fp32: onnx.ModelProto, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(precision)
    nodes = list(preprocessing(model))
    assert [node.op_type for node in nodes] == ["Transpose", "Cast", "Div", "Sub", "Div", *last]
    found = types(model)
    assert [found[node.output[0]] for node in nodes[:5]] == [TensorProto.UINT8, *[TensorProto.FLOAT] * 4]
    cast = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    for node, exact in zip(nodes[2:5], list(preprocessing(fp32))[2:5], strict=True):
        constant = arrays(model)[cast.get(node.input[1], node.input[1])]
        assert constant.dtype == np.float32
        assert np.array_equal(constant, arrays(fp32)[exact.input[1]])


def test_two_products_of_int8_fit_the_16_bits_in_which_some_processors_add_them(int8: onnx.ModelProto) -> None:
    weights = {name: values for name, values in arrays(int8).items() if values.dtype == np.int8 and values.ndim > 1}
    assert len(weights) == 5
    for name, values in weights.items():
        assert 255 * 2 * np.abs(values.astype(int)).max() < 2**15, name
        assert np.abs(values.astype(int)).max() >= 60, "no bit more is given away"


def test_float16_rounds_each_weight_once_and_takes_half_the_bytes(fp32: onnx.ModelProto, fp16: onnx.ModelProto) -> None:
    before, after = arrays(fp32), arrays(fp16)
    weights = [name for name in before if name.endswith((".weight", ".bias"))]
    assert len(weights) == 10
    for name in weights:
        nearest = before[name].astype(np.float16)
        assert np.array_equal(after[name][nearest != 0], nearest[nearest != 0]), name
        assert (np.abs(after[name][nearest == 0]) == 2.0**-24).all(), name
    assert fp16.ByteSize() / fp32.ByteSize() == pytest.approx(0.5, abs=0.02)


def test_float16_computes_in_float16(fp16: onnx.ModelProto) -> None:
    found = types(fp16)
    arithmetic = [node for node in fp16.graph.node if node.op_type in ("Conv", "Gemm", "Tanh", "AveragePool")]
    assert len(arithmetic) == 11
    assert {found[node.output[0]] for node in arithmetic if node.output[0] in found} == {TensorProto.FLOAT16}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_probabilities_stay_the_softmax_of_the_logits(precision: Any, of_floats: Path, data: Dataset) -> None:
    fp32 = onnx.load(of_floats / "model.onnx")
    made = signed(quantise.make(precision, fp32, images=data.train.images, dtype="float32"))
    agreed = contract.contract_of(SPEC, kind="float", probabilities=True)
    contract.check(made, agreed, metadata={"signed": "yes"})
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(None, {"pixels": to_graph_input(data.val.images, "float32")})
    assert (logits.dtype, probabilities.dtype) == (np.float32, np.float32)
    exact = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(probabilities, exact / exact.sum(axis=1, keepdims=True), rtol=1e-5)


class Pooled(nn.Module):
    """A convolution, `inner` on its eight planes, then means or sums over positions."""

    def __init__(self, spec: ImageSpec, inner: Callable[[Tensor], Tensor], pool: Callable[..., Tensor] = Tensor.mean):
        super().__init__()
        self.stem = nn.Conv2d(spec.channels, 8, 3, padding=1)
        self.inner, self.pool = inner, pool
        self.head = nn.Linear(8, spec.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.inner(self.stem(x)), (2, 3)))
        return logits


def sampled(x: Tensor) -> Tensor:
    theta = torch.eye(2, 3).expand(x.shape[0], 2, 3)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def enlarged(spec: ImageSpec) -> nn.Module:
    return Pooled(spec, nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3)))


def edgenext(spec: ImageSpec) -> nn.Module:
    timm = pytest.importorskip("timm")
    net: nn.Module = timm.create_model("edgenext_xx_small", num_classes=spec.num_classes, in_chans=spec.channels)
    return net


class Branching(nn.Module):
    """A branch that reads what a ReLU returns."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(spec.channels, 8, 3), nn.Linear(8, spec.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = torch.cond(x.mean() > 0.5, lambda x: x.sigmoid(), lambda x: x + x, (x,))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda spec: Pooled(spec, torch.relu, pool=Tensor.sum), id="sums"),
        pytest.param(lambda spec: Pooled(spec, nn.LayerNorm([8, spec.height, spec.width])), id="norm of planes"),
        pytest.param(lambda spec: Pooled(spec, sampled), id="grid_sample", marks=pytest.mark.slow),
        pytest.param(enlarged, id="upsampling", marks=pytest.mark.slow),
        pytest.param(Branching, id="branches", marks=pytest.mark.slow),
        pytest.param(edgenext, id="edgenext", marks=pytest.mark.slow),
    ],
)
def test_networks_of_others_are_made_and_run(build: Callable[[ImageSpec], nn.Module]) -> None:
    spec = ImageSpec(32, 32, 3, 10)
    torch.manual_seed(0)
    exported = graph.to_onnx(build(spec).eval(), spec, metadata={})
    images = np.random.RandomState(0).randint(0, 256, (70, 32, 32, 3), dtype=np.uint8)
    exact = logits_of(exported.model, images)
    for precision, furthest in (("fp16", 0.002), ("int8", 0.05)):
        made = quantise.make(precision, exported.model, images=images, dtype="uint8")
        graph.sign(made, {})
        branches = exported.reference.control_flow
        contract.check(made, contract.contract_of(spec), metadata={}, control_flow=branches)
        assert lower.compare(precision, made, fp32=exported.model).rounded >= 4
        assert np.abs(logits_of(made, images) - exact).max() <= furthest * np.abs(exact).max(), precision


@pytest.fixture(scope="module")
def transformer() -> tuple[onnx.ModelProto, np.ndarray]:
    """The float32 file of a network with an encoder layer, and images for it."""
    spec = small_networks.SPEC
    torch.manual_seed(0)
    images = np.random.RandomState(0).randint(0, 256, (70, spec.height, spec.width, 1), dtype=np.uint8)
    return graph.to_onnx(small_networks.vision_transformer().eval(), spec, metadata={}).model, images


def test_float16_leaves_what_onnx_runtime_cannot_do_in_it_in_float32(
    transformer: tuple[onnx.ModelProto, np.ndarray],
) -> None:
    """Where a half was transposed, ONNX Runtime 1.31 crashed as it loaded the file: the session is the test."""
    fp32, images = transformer
    half = quantise.fp16(fp32)
    kinds = {node.op_type for node in half.graph.node}
    assert set(quantise.WIDE) < kinds
    found = types(half)
    wide = [node for node in half.graph.node if node.op_type in quantise.WIDE and node.input[0] != "pixels"]
    assert {found[node.input[0]] for node in wide} == {TensorProto.FLOAT}
    exact = logits_of(fp32, images)
    assert np.abs(logits_of(half, images) - exact).max() <= 0.002 * np.abs(exact).max()


def test_int8_leaves_logits_layer_norms_and_means_of_tokens_in_float32(
    transformer: tuple[onnx.ModelProto, np.ndarray],
) -> None:
    """Else OpenCV's dnn does not load the file, and OpenVINO computes the mean wrongly."""
    fp32, images = transformer
    int8 = quantise.int8(fp32, images=images, dtype="uint8")
    before, after = arrays(fp32), arrays(int8)
    (last,) = (node for node in int8.graph.node if "logits" in node.output)
    assert last.op_type == "Gemm"
    (mean,) = (node for node in int8.graph.node if node.op_type == "ReduceMean")
    (maker,) = (node for node in int8.graph.node if mean.input[0] in node.output)
    assert maker.op_type == "Add"
    norms = [node for node in int8.graph.node if node.op_type == "LayerNormalization"]
    assert len(norms) == 2
    for name in (name for node in norms for name in node.input[1:]):
        assert np.array_equal(after[name], before[name.partition("_of_")[0]])  # each has its own copy


def logits_of(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits: np.ndarray = session.run(["logits"], {"pixels": images})[0]
    return logits


def test_a_constant_of_two_uses_is_rounded_for_one_of_them() -> None:
    """ONNX has no Resize with scales in float16: it stays in float32 with what it takes."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], "cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["floats", "matrix"], ["product"], "matmul"),
        helper.make_node("Mul", ["product", "four"], ["scaled"], "mul"),
        helper.make_node("Resize", ["scaled", "", "four"], ["logits"], "resize"),
    ]
    constants = {"matrix": np.eye(4, dtype=np.float32) / 3, "four": np.array([1, 1, 1, 2], dtype=np.float32)}
    made = helper.make_graph(
        nodes,
        "shared",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, 4, 8])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    half = quantise.fp16(model)
    onnx.checker.check_model(half, full_check=True)
    assert arrays(half)["four"].dtype == np.float16
    assert np.array_equal(arrays(half)["four_float32"], constants["four"])
    assert lower.compare("fp16", half, fp32=model) == lower.Lowered(rounded=2, clamped=0)
    pixels = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    np.testing.assert_allclose(logits_of(half, pixels), logits_of(model, pixels), rtol=2e-3)


def test_making_one_leaves_the_float32_graph_alone(fp32: onnx.ModelProto, data: Dataset) -> None:
    before = fp32.SerializeToString(deterministic=True)
    quantise.make("fp16", fp32, images=data.train.images, dtype="uint8")
    quantise.make("int8", fp32, images=data.train.images, dtype="uint8")
    assert fp32.SerializeToString(deterministic=True) == before


def test_int8_is_quantised_and_dequantised_in_the_standard_s_operators(int8: onnx.ModelProto) -> None:
    kinds = {node.op_type for node in int8.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv", "Gemm"} <= kinds
    assert not [kind for kind in kinds if kind.startswith(("QLinear", "QGemm")) or kind.endswith("Integer")]
    assert {node.domain for node in int8.graph.node} | {item.domain for item in int8.opset_import} == {""}


def test_int8_has_a_scale_for_each_channel_and_rounds_weights_to_the_nearest(
    fp32: onnx.ModelProto, int8: onnx.ModelProto
) -> None:
    exact, made = arrays(fp32), arrays(int8)
    producers = {node.output[0]: node for node in int8.graph.node}
    seen = []
    for node in (node for node in int8.graph.node if node.op_type in ("Conv", "Gemm")):
        dequantise = producers[node.input[1]]
        quantised, scale, zero = (made[name] for name in dequantise.input)
        (name,) = (name for name in exact if dequantise.input[0].startswith(name))
        weight = exact[name]
        assert (quantised.dtype, zero.dtype) == (np.int8, np.int8)
        assert not zero.any()
        assert scale.shape == (len(weight),)  # output channels come first
        spread = scale.reshape(-1, *[1] * (weight.ndim - 1))
        assert np.abs(quantised * spread - weight).max() <= spread.max() * 0.5001
        assert (np.abs(quantised * spread - weight) <= spread * 0.5001).all()
        seen.append(name)
    assert sorted(seen) == sorted(name for name in exact if name.endswith(".weight"))


def test_int8_has_unsigned_activations(int8: onnx.ModelProto) -> None:
    made = arrays(int8)
    zeros = [made[node.input[2]] for node in int8.graph.node if node.op_type == "QuantizeLinear"]
    assert len(zeros) >= 5
    assert {(zero.dtype, zero.shape) for zero in zeros} == {(np.dtype(np.uint8), ())}


def test_int8_is_the_same_again(fp32: onnx.ModelProto, int8: onnx.ModelProto, data: Dataset) -> None:
    again = signed(quantise.int8(fp32, images=data.train.images, dtype="uint8"))
    assert again.SerializeToString(deterministic=True) == int8.SerializeToString(deterministic=True)


@pytest.mark.parametrize("count", [3, 512, 2000])
def test_int8_is_calibrated_on_each_chosen_image_once(
    count: int, fp32: onnx.ModelProto, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    honest = quantise.to_graph_input

    def spy(images: np.ndarray, dtype: str) -> np.ndarray:
        seen.extend(images)
        return honest(images, dtype)

    monkeypatch.setattr(quantise, "to_graph_input", spy)
    images = data.train.images[:count]
    quantise.int8(fp32, images=images, dtype="uint8")
    assert np.array_equal(np.array(seen), quantise.calibration_images(images))
    assert len(seen) == min(count, quantise.CALIBRATION_IMAGES)


@given(st.integers(0, 3000))
def test_calibration_takes_different_images_from_all_over(count: int) -> None:
    numbers = quantise.calibration_images(np.arange(count))
    assert len({*numbers}) == len(numbers) == min(count, quantise.CALIBRATION_IMAGES)
    if count >= 1024:
        assert numbers.mean() == pytest.approx(count / 2, rel=0.1)
        assert not np.array_equal(numbers, np.arange(len(numbers)))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_cannot_be_made_is_said_in_one_line(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NotImplementedError("no such operator\nin a long trace")

    monkeypatch.setattr(quantise, precision, fail)
    with pytest.raises(CnnbenchError, match=r"^it cannot be made: no such operator$") as caught:
        quantise.make(precision, onnx.ModelProto(), images=np.empty(0), dtype="uint8")
    assert caught.value.code == Exit.VERDICT


def test_a_real_graph_that_the_quantiser_does_not_take_is_said_so(data: Dataset) -> None:
    with pytest.raises(CnnbenchError, match=r"^it cannot be made: .+$"):
        quantise.make("int8", onnx.ModelProto(), images=data.train.images, dtype="uint8")


def test_memory_that_runs_out_is_no_fault_of_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(quantise, "fp16", fail)
    with pytest.raises(MemoryError):
        quantise.make("fp16", onnx.ModelProto(), images=np.empty(0), dtype="uint8")
