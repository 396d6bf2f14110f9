"""A file of lower precision is the float32 file, rounded: one number, one edge or one constant off is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from export_helpers import Forger, manifest_of
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from cnnbench import records
from cnnbench.bundles import contract, graph, quantise, verify
from cnnbench.bundles.bundle import ExportOptions, export_run
from cnnbench.bundles.evidence import CheckError
from cnnbench.bundles.parity import child, lower
from cnnbench.types import CnnbenchError, Exit, ImageSpec

SPEC = ImageSpec(6, 6, 1, 3)
RANDOM = np.random.RandomState(3)
IMAGES = RANDOM.randint(0, 256, (96, 6, 6, 1), dtype=np.uint8)
WEIGHTS = {
    "level": np.float32(255),
    "first": RANDOM.standard_normal((4, 1, 3, 3)).astype(np.float32),
    "first_bias": RANDOM.standard_normal(4).astype(np.float32),
    "second": RANDOM.standard_normal((4, 4, 1, 1)).astype(np.float32),
    "second_bias": RANDOM.standard_normal(4).astype(np.float32),
    "head": RANDOM.standard_normal((3, 4)).astype(np.float32),
    "head_bias": RANDOM.standard_normal(3).astype(np.float32),
}
Made = Callable[[str], onnx.ModelProto]
Break = Callable[[onnx.ModelProto], None]


def network(**changes: np.ndarray) -> onnx.ModelProto:
    """Two convolutions, one ReLU and a linear layer, as the exporter writes them."""
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "level"], ["scaled"], "div"),
        helper.make_node("Conv", ["scaled", "first", "first_bias"], ["one"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["one"], ["positive"], "relu"),
        helper.make_node("Conv", ["positive", "second", "second_bias"], ["two"], "conv2"),
        helper.make_node("GlobalAveragePool", ["two"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "head", "head_bias"], ["logits"], "gemm", transB=1),
    ]
    agreed = contract.contract_of(SPEC)
    made = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, agreed.input.shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, agreed.outputs[0].shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (WEIGHTS | changes).items()],
    )
    return helper.make_model(made, ir_version=agreed.ir_version, opset_imports=[helper.make_opsetid("", agreed.opset)])


FP32 = network()


@pytest.fixture(scope="module")
def made() -> Made:
    """The network in both lower precisions; each call gives a new copy."""
    files = {}
    for precision in ("fp16", "int8"):
        model = quantise.make(precision, FP32, images=IMAGES, dtype="uint8")
        graph.sign(model, {})
        contract.check(model, contract.contract_of(SPEC), metadata={})
        files[precision] = model.SerializeToString()
    return lambda precision: onnx.load_model_from_string(files[precision])


def refused(precision: Any, model: onnx.ModelProto, fp32: onnx.ModelProto = FP32) -> str:
    with pytest.raises(CnnbenchError) as caught:
        lower.compare(precision, model, fp32=fp32)
    assert caught.value.code == Exit.VERDICT
    assert "\n" not in str(caught.value)
    return str(caught.value)


def values(model: onnx.ModelProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name).copy()


def put(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def dequantised(model: onnx.ModelProto, user: str, index: int) -> onnx.NodeProto:
    """The DequantizeLinear that an input of a node comes from."""
    name = node(model, user).input[index]
    return next(node for node in model.graph.node if name in node.output)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_the_converters_make_is_the_float32_file_rounded(precision: Any, made: Made) -> None:
    model = made(precision)
    assert lower.compare(precision, model, fp32=FP32) == lower.Lowered(rounded=6, clamped=0)


def test_the_quantiser_left_the_relu_out(made: Made) -> None:
    assert "relu" not in {node.name for node in made("int8").graph.node}


# --- float16 ----------------------------------------------------------------------------------------------------------


def test_numbers_that_no_half_is_near_are_counted() -> None:
    head = WEIGHTS["head"].copy()
    head[0] = [2.0**-26, -1e-9, 1e6, -3e38]
    head[1] = [2.0**-24, 65504, 0.0, 65519]  # each has its half
    fp32 = network(head=head)
    half = quantise.make("fp16", fp32, images=IMAGES, dtype="uint8")
    assert lower.compare("fp16", half, fp32=fp32) == lower.Lowered(rounded=6, clamped=4)
    assert values(half, "head")[0].tolist() == [2.0**-24, -(2.0**-24), 65504, -65504]
    assert values(half, "head")[1].tolist() == [2.0**-24, 65504, 0, 65504]
    put(half, "head", np.where(values(half, "head") == 2.0**-24, np.float16(1e-7), values(half, "head")))
    assert "head is not the nearest half" in refused("fp16", half, fp32)


@given(arrays(np.float32, 20, elements=st.floats(width=32, allow_nan=False)))
def test_a_half_is_the_nearest_one_or_the_limit(numbers: np.ndarray) -> None:
    made, clamped = lower.halves(numbers)
    finite = np.isfinite(numbers)
    assert made.dtype == np.float16
    assert ((made == 0) == (numbers == 0)).all()
    assert (np.isinf(made) == np.isinf(numbers)).all()
    assert (np.sign(made) == np.sign(numbers)).all()
    exact, own = numbers[finite & ~clamped].astype(np.float64), made[finite & ~clamped]
    for other in (np.nextafter(own, np.float16(np.inf)), np.nextafter(own, np.float16(-np.inf))):
        assert (np.abs(own - exact) <= np.abs(other.astype(np.float64) - exact)).all()
    size = np.abs(numbers[clamped].astype(np.float64))
    assert ((size <= 2.0**-25) | (size >= 65520)).all()  # half of the smallest half; half a step above the largest


@given(st.sampled_from(sorted({*WEIGHTS} - {"level"})), st.integers(0, 10**6), st.sampled_from([-np.inf, np.inf]))
def test_a_half_that_is_one_step_off_is_refused(made: Made, name: str, place: int, towards: float) -> None:
    model = made("fp16")
    half = values(model, name)
    half.flat[place % half.size] = np.nextafter(half.flat[place % half.size], np.float16(towards))
    put(model, name, half)
    assert f"its constant {name} is not the nearest half" in refused("fp16", model)


# --- int8 -------------------------------------------------------------------------------------------------------------


@given(st.sampled_from(["conv1", "conv2", "gemm"]), st.integers(0, 10**6), st.sampled_from([-1, 1]))
def test_a_weight_that_is_one_step_off_is_refused(made: Made, user: str, place: int, step: int) -> None:
    model = made("int8")
    name, scale, _ = dequantised(model, user, 1).input
    integers = values(model, name)
    place %= integers.size
    assume(-127 <= int(integers.flat[place]) + step <= 127)
    exact = values(FP32, node(FP32, user).input[1]).reshape(integers.shape)
    steps = values(model, scale).reshape(-1, *[1] * (exact.ndim - 1))
    moved = integers.copy()
    moved.flat[place] += step
    assume(np.abs(moved - exact / steps).flat[place] > 0.5001)  # else it lay halfway
    put(model, name, moved)
    assert f"its constant {name} is" in refused("int8", model)


def test_a_bias_that_is_one_step_off_is_refused(made: Made) -> None:
    model = made("int8")
    name = dequantised(model, "gemm", 2).input[0]
    put(model, name, values(model, name) + np.int32(1))
    assert "expected at most half a step" in refused("int8", model)


@pytest.mark.parametrize("wrong", [-1.0, 0.0, np.nan, np.inf])
@pytest.mark.parametrize(("user", "index"), [("conv1", 0), ("conv2", 1), ("gemm", 2)])
def test_a_scale_is_positive_and_finite(made: Made, user: str, index: int, wrong: float) -> None:
    model = made("int8")
    name = dequantised(model, user, index).input[1]
    scale = values(model, name)
    scale[...] = np.where(np.arange(scale.size).reshape(scale.shape) == 0, np.float32(wrong), scale)
    put(model, name, scale)
    assert f"its scale {name} is not positive" in refused("int8", model)


def shift_weights(model: onnx.ModelProto) -> None:
    """The same numbers, by another zero point."""
    name, _, zero = dequantised(model, "gemm", 1).input
    put(model, zero, values(model, zero) + np.int8(1))
    put(model, name, np.clip(values(model, name).astype(int) + 1, -128, 127).astype(np.int8))


def double_scale_of_bias(model: onnx.ModelProto) -> None:
    """The same numbers to half a step, which kernels would take for half of them."""
    name, scale, _ = dequantised(model, "gemm", 2).input
    steps = values(model, scale) * 2
    put(model, scale, steps)
    put(model, name, np.round(WEIGHTS["head_bias"] / steps).astype(np.int32))


def test_a_scale_that_is_too_coarse_for_its_weights_is_refused(made: Made) -> None:
    """With a thousand times the scale every weight is 0, and within half a step of what it was."""
    model = made("int8")
    weight, scale, _ = dequantised(model, "conv2", 1).input
    put(model, weight, np.zeros_like(values(model, weight)))
    put(model, scale, values(model, scale) * 1000)
    assert f"the scale of its constant {weight} is too coarse" in refused("int8", model)


def test_weights_whose_sums_saturate_on_some_processors_are_refused(made: Made) -> None:
    """The same numbers in finer steps: two of them times 255 are more than 16 bits hold."""
    model = made("int8")
    weight, scale, _ = dequantised(model, "conv2", 1).input
    steps = values(model, scale) * np.float32(0.6)
    expected = WEIGHTS["second"]
    put(model, scale, steps)
    put(model, weight, np.round(expected / steps.reshape(-1, 1, 1, 1)).astype(np.int8))
    assert "processors without VNNI saturate; expected at most 64" in refused("int8", model)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_float32_file_is_no_file_of_lower_precision(precision: Any) -> None:
    assert "none of its constants is" in refused(precision, FP32)


def let_negatives_pass(model: onnx.ModelProto) -> None:
    """The zero point that stands for the ReLU."""
    zero = dequantised(model, "conv2", 0).input[2]
    put(model, zero, values(model, zero) + np.uint8(9))


def undo_another_scale(model: onnx.ModelProto) -> None:
    dequantised(model, "conv2", 0).input[1] = dequantised(model, "conv1", 0).input[1]


def quantise_only(model: onnx.ModelProto) -> None:
    node(model, "conv2").input[0] = dequantised(model, "conv2", 0).input[0]


def insert_abs(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Abs", [node(model, "gemm").input[0]], ["more"], "abs"))
    node(model, "gemm").input[0] = "more"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (shift_weights, "is not 0: expected 0 for int8"),
        (double_scale_of_bias, "is not that of the products"),
        (let_negatives_pass, "it has no Relu relu"),
        (undo_another_scale, "undoes no QuantizeLinear"),
        (quantise_only, "its QuantizeLinear"),
        (insert_abs, "its Abs abs is not in the float32 file"),
    ],
)
def test_what_the_quantiser_does_not_do_is_refused(change: Break, reason: str, made: Made) -> None:
    model = made("int8")
    change(model)
    assert reason in refused("int8", model)


# --- both -------------------------------------------------------------------------------------------------------------


def change_the_level(model: onnx.ModelProto) -> None:
    put(model, "level", np.nextafter(np.float32(255), np.float32(0)))


def add_a_constant(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.float32(255), "another_level"))


def repeat_a_constant(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.float32(255), "level"))


def swap_weights(model: onnx.ModelProto) -> None:
    """Both convolutions have four biases."""
    one, two = node(model, "conv1"), node(model, "conv2")
    one.input[2], two.input[2] = two.input[2], one.input[2]


def swap_kinds(model: onnx.ModelProto) -> None:
    node(model, "pool").op_type = "GlobalMaxPool"


def change_an_attribute(model: onnx.ModelProto) -> None:
    node(model, "conv1").attribute[0].ints[:] = [0, 0, 2, 2]


def drop_an_attribute(model: onnx.ModelProto) -> None:
    del node(model, "conv1").attribute[:]


def skip_a_node(model: onnx.ModelProto) -> None:
    model.graph.node.remove(node(model, "flatten"))


def take_another_value(model: onnx.ModelProto) -> None:
    node(model, "pool").input[0] = node(model, "conv1").output[0]


def drop_a_bias(model: onnx.ModelProto) -> None:
    del node(model, "gemm").input[2]


def put_a_value_for_a_weight(model: onnx.ModelProto) -> None:
    node(model, "gemm").input[1] = node(model, "gemm").input[0]


def rename_the_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "images"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_the_level, "its constant level is not float32's"),
        (add_a_constant, "its constant another_level stands for nothing"),
        (repeat_a_constant, "have one name"),
        (swap_weights, "bias"),
        (swap_kinds, "it has no GlobalAveragePool pool"),
        (change_an_attribute, "its Conv conv1 has another pads"),
        (drop_an_attribute, "its Conv conv1 has another pads"),
        (skip_a_node, "it has no Flatten flatten"),
        (take_another_value, "pool takes"),
        (drop_a_bias, "gemm has other inputs"),
        (put_a_value_for_a_weight, "it has no constant where float32 has head"),
        (rename_the_input, "its graph has other inputs"),
    ],
)
def test_another_graph_or_constant_is_refused(change: Break, reason: str, precision: Any, made: Made) -> None:
    model = made(precision)
    change(model)
    assert reason in refused(precision, model)


@pytest.mark.parametrize(("precision", "other"), [("fp16", "int8"), ("int8", "fp16")])
def test_a_file_of_the_other_precision_is_refused(precision: Any, other: str, made: Made) -> None:
    assert "is not in the float32 file" in refused(precision, made(other))


@pytest.mark.parametrize("name", sorted({*WEIGHTS}))
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_file_made_of_other_weights_is_refused(precision: Any, name: str, made: Made) -> None:
    other = network(**{name: WEIGHTS[name] * np.float32(1.05)})
    assert "constant" in refused(precision, made(precision), other)


def test_a_bias_of_two_layers_is_each_one_s_own_whatever_values_are_called() -> None:
    """The quantiser copies a bias that it needs twice: to `first_bias0`, which is a value here."""
    fp32 = network()
    node(fp32, "conv2").input[2] = "first_bias"
    node(fp32, "conv2").output[0] = node(fp32, "pool").input[0] = "first_bias0"
    fp32.graph.initializer.remove(next(t for t in fp32.graph.initializer if t.name == "second_bias"))
    model = quantise.make("int8", fp32, images=IMAGES, dtype="uint8")
    assert lower.compare("int8", model, fp32=fp32).rounded == 6
    assert dequantised(model, "conv1", 2).input[0] != dequantised(model, "conv2", 2).input[0]


def clipped(model: onnx.ModelProto, lowest: float, highest: float) -> onnx.ModelProto:
    """The network with a Clip for its ReLU."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    relu = node(copy, "relu")
    relu.op_type = "Clip"
    relu.input.extend(["lowest", "highest"])
    for name, value in (("lowest", lowest), ("highest", highest)):
        copy.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    return copy


def test_a_clip_may_be_left_out_where_the_quantised_numbers_lie_within_it() -> None:
    fp32 = clipped(FP32, 0, 0.5)
    model = quantise.make("int8", fp32, images=IMAGES, dtype="uint8")
    assert "relu" not in {node.name for node in model.graph.node}
    assert lower.compare("int8", model, fp32=fp32).rounded == 6
    for limits in ((0, 0.25), (0.1, 0.5)):
        assert "it has no Clip relu" in refused("int8", model, clipped(FP32, *limits))


# --- in a process of its own ------------------------------------------------------------------------------------------


def test_files_are_compared_from_disk(made: Made) -> None:
    Path("fp32.onnx").write_bytes(FP32.SerializeToString())
    Path("int8.onnx").write_bytes(made("int8").SerializeToString())
    request = child.LowerRequest(model="int8.onnx", fp32="fp32.onnx", precision="int8")
    assert child.compare(request) == lower.Lowered(6, 0)
    broken = made("int8")
    next(node for node in broken.graph.node if node.op_type == "DequantizeLinear").ClearField("input")
    Path("int8.onnx").write_bytes(broken.SerializeToString())
    with pytest.raises(CnnbenchError, match="it cannot be compared with float32") as caught:
        child.compare(request)
    assert caught.value.code == Exit.VERDICT


# --- in a bundle ------------------------------------------------------------------------------------------------------


@pytest.fixture
def forger(three: Path, tmp_path: Path) -> Forger:
    return Forger(Path(shutil.copytree(three, tmp_path / three.name)))


def test_verify_says_what_was_compared(three: Path) -> None:
    clamped = {file.precision: file.clamped for file in manifest_of(three).kept}
    constants = [numpy_helper.to_array(each) for each in onnx.load(three / "model.onnx").graph.initializer]
    weights = np.concatenate([each.ravel() for each in constants if each.ndim and each.dtype == np.float32])
    vanished = (weights != 0) & (np.abs(weights) <= 2.0**-25)  # to 0, which a half that lies between them rounds to
    assert clamped == {"fp32": 0, "fp16": int(vanished.sum()), "int8": 0}
    for quick in (False, True):
        details = [check.detail for check in verify.verify_bundle(three, quick=quick) if check.name == "lower"]
        assert details == [
            "model_fp16.onnx: 10 weights the nearest half of float32's, "
            f"{clamped['fp16']} numbers at the limit of float16",
            "model_int8.onnx: 10 weights within half a step of float32's",
        ]


def fails(forger: Forger) -> str:
    forger.sign()
    with pytest.raises(CheckError) as caught:
        verify.verify_bundle(forger.path, quick=True)
    assert (caught.value.check, caught.value.code) == ("lower", Exit.VERDICT)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_verify_refuses_a_weight_that_is_another(precision: str, forger: Forger) -> None:
    file = forger.path / f"model_{precision}.onnx"
    model = onnx.load(file)
    weights = next(t for t in model.graph.initializer if len(t.dims) > 1)
    moved = numpy_helper.to_array(weights).copy()
    moved.flat[0] = 0 if moved.flat[0] > 20 else 100  # steps, or halves far from any weight of a small network
    weights.CopyFrom(numpy_helper.from_array(moved, weights.name))
    graph.save(model, file)
    assert fails(forger).startswith(f"model_{precision}.onnx: it is not the float32 file, rounded: its constant")


def test_verify_refuses_another_number_of_clamped_weights(forger: Forger) -> None:
    variants = forger.manifest.variants
    forger.claim(variants=tuple(records.replace(v, clamped=v.clamped + (v.precision == "fp16")) for v in variants))
    assert "weights at the limit of float16; the manifest claims" in fails(forger)


def test_export_refuses_what_the_converter_makes_wrong(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = quantise.make

    def careless(precision: Any, model: onnx.ModelProto, **given: Any) -> onnx.ModelProto:
        made = honest(precision, model, **given)
        if precision == "fp16":
            (name,) = (name for name in node(made, "node_conv2d").input if name.endswith("weight"))
            put(made, name, values(made, name) * np.float16(1.01))
        return made

    monkeypatch.setattr(quantise, "make", careless)
    manifest = export_run(run, out="exports", options=ExportOptions(precisions=("fp32", "fp16")))
    refusal = next(file.refused for file in manifest.variants if file.precision == "fp16")
    assert "is not the nearest half" in refusal
    assert not (Path("exports") / manifest.task / "model_fp16.onnx").exists()
