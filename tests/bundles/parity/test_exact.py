"""A file evaluated in float64: each kernel against torch in float64, each number at its exact value."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

from cnnbench.bundles.parity.exact import InFloat64
from cnnbench.types import CnnbenchError, Exit

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def graph_of(nodes: Sequence[onnx.NodeProto], **constants: Any) -> onnx.ModelProto:
    """From `pixels` to `logits`, both float32."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("pixels", "logits")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    made = helper.make_graph(nodes, "tested", values[:1], values[1:], tensors)
    return helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])


def one(kind: str, **attributes: Any) -> Callable[..., onnx.ModelProto]:
    """A graph of one node that reads `pixels` and then the constants in the order that they are given."""

    def made(**constants: Any) -> onnx.ModelProto:
        return graph_of([helper.make_node(kind, ["pixels", *constants], ["logits"], "it", **attributes)], **constants)

    return made


def evaluated(
    model: onnx.ModelProto, pixels: np.ndarray, literals: Sequence[float] = (), parameters: Sequence[str] = ()
) -> np.ndarray:
    exact = {np.float32(value): value for value in literals}
    found = InFloat64(model, literals=exact, parameters=frozenset(parameters)).logits(pixels)
    assert found.dtype == np.float64
    return found


def wide(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).double()


def close(found: np.ndarray, expected: Tensor) -> None:
    assert found.shape == tuple(expected.shape)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-13, atol=1e-13)


# --- windows ----------------------------------------------------------------------------------------------------------

small = settings(max_examples=60)


@st.composite
def windows(draw: st.DrawFn, *, most_padding: Callable[[int], int]) -> dict[str, Any]:
    """Sides of an image and a window on it: kernel, stride, dilation and the padding of each side."""
    axes = draw(st.integers(1, 3))
    per_axis = st.lists
    kernel = draw(per_axis(st.integers(1, 3), min_size=axes, max_size=axes))
    dilations = draw(per_axis(st.integers(1, 2), min_size=axes, max_size=axes))
    pads = [draw(st.integers(0, most_padding(size))) for size in kernel]
    sides = draw(per_axis(st.integers(1, 7), min_size=axes, max_size=axes))
    rows = zip(sides, pads, kernel, dilations, strict=True)
    assume(all(side + 2 * pad >= (size - 1) * step + 1 for side, pad, size, step in rows))
    strides = draw(per_axis(st.integers(1, 3), min_size=axes, max_size=axes))
    return {"sides": sides, "kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads}


@small
@given(
    window=windows(most_padding=lambda _: 3),
    groups=st.sampled_from([1, 2, 3]),
    more=st.integers(0, 2),
    with_bias=st.booleans(),
)
def test_a_convolution_is_torch_s(window: dict[str, Any], groups: int, more: int, with_bias: bool) -> None:
    axes, pads = len(window["sides"]), window["pads"]
    pixels = drawn(0, 2, 2 * groups, *window["sides"])
    weight = drawn(1, 3 * groups, 2, *window["kernel"])
    bias = {"bias": drawn(2, 3 * groups)} if with_bias else {}
    tail = [pad + more for pad in pads]  # padding need not be the same on both sides
    model = one("Conv", group=groups, pads=[*pads, *tail], strides=window["strides"], dilations=window["dilations"])(
        weight=weight, **bias
    )
    around = [side for head, end in reversed([*zip(pads, tail, strict=True)]) for side in (head, end)]
    expected = CONV[axes](
        F.pad(wide(pixels), around),
        wide(weight),
        wide(bias["bias"]) if bias else None,
        stride=window["strides"],
        dilation=window["dilations"],
        groups=groups,
    )
    close(evaluated(model, pixels), expected)


@small
@given(window=windows(most_padding=lambda _: 0), groups=st.sampled_from([1, 2]), more=st.integers(0, 1))
def test_a_transposed_convolution_is_torch_s(window: dict[str, Any], groups: int, more: int) -> None:
    axes, strides, dilations = len(window["sides"]), window["strides"], window["dilations"]
    pixels = drawn(0, 2, 2 * groups, *window["sides"])
    weight, bias = drawn(1, 2 * groups, 3, *window["kernel"]), drawn(2, 3 * groups)
    extra = [min(more, max(stride, step) - 1) for stride, step in zip(strides, dilations, strict=True)]
    model = one("ConvTranspose", group=groups, strides=strides, dilations=dilations, output_padding=extra)(
        weight=weight, bias=bias
    )
    turned = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[axes]
    expected = turned(
        wide(pixels),
        wide(weight),
        wide(bias),
        stride=strides,
        output_padding=extra,
        groups=groups,
        dilation=dilations,
    )
    close(evaluated(model, pixels), expected)


@small
@given(window=windows(most_padding=lambda size: size // 2), ceil_mode=st.booleans())
def test_a_largest_value_is_torch_s(window: dict[str, Any], ceil_mode: bool) -> None:
    pixels = drawn(0, 2, 3, *window["sides"])
    model = one(
        "MaxPool",
        kernel_shape=window["kernel"],
        pads=window["pads"] * 2,
        strides=window["strides"],
        dilations=window["dilations"],
        ceil_mode=int(ceil_mode),
    )()
    expected = MAX_POOL[len(window["sides"])](
        wide(pixels), window["kernel"], window["strides"], window["pads"], window["dilations"], ceil_mode
    )
    close(evaluated(model, pixels), expected)


@small
@given(window=windows(most_padding=lambda size: size // 2), ceil_mode=st.booleans(), padding=st.booleans())
def test_an_average_is_torch_s(window: dict[str, Any], ceil_mode: bool, padding: bool) -> None:
    assume(all(side >= size for side, size in zip(window["sides"], window["kernel"], strict=True)))  # torch's own limit
    pixels = drawn(0, 2, 3, *window["sides"])
    model = one(
        "AveragePool",
        kernel_shape=window["kernel"],
        pads=window["pads"] * 2,
        strides=window["strides"],
        ceil_mode=int(ceil_mode),
        count_include_pad=int(padding),
    )()
    expected = AVERAGE_POOL[len(window["sides"])](
        wide(pixels), window["kernel"], window["strides"], window["pads"], ceil_mode, padding
    )
    close(evaluated(model, pixels), expected)


@given(side=st.integers(1, 9), size=st.integers(1, 4), stride=st.integers(1, 3), step=st.integers(1, 2))
def test_padding_by_name_gives_one_place_per_stride_and_the_odd_pixel_where_the_name_says(
    side: int, size: int, stride: int, step: int
) -> None:
    """As in the ONNX standard: ceil(side / stride) places; SAME_UPPER pads the end more, SAME_LOWER the beginning."""
    pixels, weight = drawn(0, 1, 1, side), drawn(1, 1, 1, size)
    total = max((math.ceil(side / stride) - 1) * stride + (size - 1) * step + 1 - side, 0)
    half = (total // 2, total - total // 2)
    for name, around in {"SAME_UPPER": half, "SAME_LOWER": half[::-1]}.items():
        model = one("Conv", auto_pad=name, strides=[stride], dilations=[step])(weight=weight)
        expected = F.conv1d(F.pad(wide(pixels), around), wide(weight), stride=stride, dilation=step)
        assert expected.shape[2] == math.ceil(side / stride)
        close(evaluated(model, pixels), expected)


def test_padding_by_the_name_of_valid_is_none() -> None:
    pixels, weight = drawn(0, 1, 1, 5, 5), drawn(1, 2, 1, 3, 3)
    found = evaluated(one("Conv", auto_pad="VALID")(weight=weight), pixels)
    close(found, F.conv2d(wide(pixels), wide(weight)))


# --- other kernels ----------------------------------------------------------------------------------------------------


def test_the_error_function_is_torch_s() -> None:
    pixels = np.linspace(-4, 4, 101, dtype=np.float32)
    close(evaluated(one("Erf")(), pixels), torch.erf(wide(pixels)))


@pytest.mark.parametrize("largest", [0, 1])
def test_values_that_are_asked_for_without_an_order_are_not_in_that_of_sorted_ones(largest: int) -> None:
    """A file whose order may be any is another function of the image than one with an order."""
    pixels = drawn(0, 2, 5)
    model = one("TopK", axis=1, largest=largest, sorted=0)(k=np.array([3], np.int64))
    expected = torch.topk(wide(pixels), 3, largest=bool(largest)).values.flip(1)
    close(evaluated(model, pixels), expected)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_padding_of_negative_width_cuts_off(mode: str) -> None:
    pixels = drawn(0, 1, 1, 4, 5)
    pads = np.array([-1, 2, 0, -2], np.int64)  # heads, then tails, of the last two axes
    model = one("Pad", mode=mode)(pads=pads, value=np.float32(0.25), axes=np.array([2, 3], np.int64))
    given = {"value": 0.25} if mode == "constant" else {}
    close(evaluated(model, pixels), F.pad(wide(pixels), (2, -2, -1, 0), mode=mode, **given))


def test_a_kernel_of_another_shape_than_its_weight_is_refused() -> None:
    model = one("Conv", kernel_shape=[2, 2])(weight=drawn(0, 1, 1, 3, 3))
    with pytest.raises(CnnbenchError, match="kernel_shape"):
        evaluated(model, drawn(1, 1, 1, 5, 5))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(
    ("mode", "padding"),
    # not bicubic at a border: ONNX moves the point there, torch each of the pixels around it
    [*itertools.product(["bilinear", "nearest"], ["zeros", "border", "reflection"]), ("bicubic", "zeros")],
)
def test_a_sampled_grid_is_torch_s(mode: str, padding: str, align: bool) -> None:
    pixels, grid = drawn(0, 1, 2, 6, 7), drawn(1, 1, 3, 4, 2)
    model = one("GridSample", mode=mode, padding_mode=padding, align_corners=int(align))(grid=grid)
    expected = F.grid_sample(wide(pixels), wide(grid), mode=mode, padding_mode=padding, align_corners=align)
    np.testing.assert_allclose(evaluated(model, pixels), expected.numpy(), rtol=1e-12, atol=1e-12)


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_a_literal_has_the_value_that_it_is_a_rounding_of() -> None:
    pixels = np.zeros(1, np.float32)
    model = one("Add")(epsilon=np.float32(1e-5))
    assert evaluated(model, pixels, literals=[1e-5]).tolist() == [1e-5]
    assert evaluated(model, pixels).tolist() == [float(np.float32(1e-5))]


def test_several_literals_of_one_constant_have_their_values_each() -> None:
    model = one("Add")(scales=np.array([0.1, 0.7, 0.1, 2], np.float32))
    assert evaluated(model, np.zeros(4, np.float32), literals=[0.1, 0.7]).tolist() == [0.1, 0.7, 0.1, 2]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({"value": numpy_helper.from_array(np.float32(0.1))}, 0.1),
        ({"value_float": 0.1}, 0.1),
        ({"value_floats": [0.1]}, 0.1),
    ],
    ids=["a tensor", "a number", "a list"],
)
def test_a_constant_node_is_a_constant_too(made: dict[str, Any], expected: float) -> None:
    nodes = [
        helper.make_node("Constant", [], ["tenth"], **made),
        helper.make_node("Add", ["pixels", "tenth"], ["logits"]),
    ]
    zero = np.zeros(1, np.float32)
    assert evaluated(graph_of(nodes), zero, literals=[0.1]).tolist() == [expected]
    assert evaluated(graph_of(nodes), zero, literals=[0.1], parameters=["tenth"]).tolist() == [float(np.float32(0.1))]


def test_a_parameter_keeps_its_float32_value_though_it_is_that_of_a_literal() -> None:
    pixels = np.zeros(1, np.float32)
    found = evaluated(one("Add")(bias=np.float32(0.1)), pixels, literals=[0.1], parameters=["bias"])
    assert found.tolist() == [float(np.float32(0.1))]


def test_attributes_are_widened_and_have_the_value_that_they_round() -> None:
    pixels = np.full(1, -1, np.float32)
    model = one("LeakyRelu", alpha=0.07)()
    assert evaluated(model, pixels, literals=[0.07]).tolist() == [-0.07]
    assert evaluated(model, pixels).tolist() == [-float(np.float32(0.07))]


def test_the_epsilon_of_a_normalisation_is_the_network_s() -> None:
    pixels = drawn(0, 2, 3, 4) / 1000  # so small that the epsilon matters
    weight, bias = drawn(1, 4), drawn(2, 4)
    found = evaluated(one("LayerNormalization", epsilon=1e-5, axis=-1)(weight=weight, bias=bias), pixels, [1e-5])
    close(found, F.layer_norm(wide(pixels), [4], wide(weight), wide(bias), eps=1e-5))


def test_a_cast_to_float32_is_one_to_float64() -> None:
    nodes = [
        helper.make_node("Cast", ["pixels"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["cast", "three"], ["logits"]),
    ]
    found = evaluated(graph_of(nodes, three=np.float32(3)), np.array([1.5, 2], np.float32))
    assert found.tolist() == [1 / 3, 2 / 3]


def test_a_number_within_a_branch_is_widened_too() -> None:
    def branch(value: float) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node("Constant", [], ["out"], value_float=value)],
            "branch",
            [],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, [])],
        )

    nodes = [
        helper.make_node("If", ["always"], ["tenth"], then_branch=branch(0.1), else_branch=branch(0.2)),
        helper.make_node("Add", ["pixels", "tenth"], ["logits"]),
    ]
    model = graph_of(nodes, always=np.array(True))
    assert evaluated(model, np.zeros(1, np.float32), literals=[0.1]).tolist() == [0.1]


def test_the_model_that_is_evaluated_is_left_as_it_was() -> None:
    model = one("LeakyRelu", alpha=0.07)()
    before = model.SerializeToString()
    evaluated(model, np.zeros(1, np.float32), literals=[0.07])
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (one("Reshape")(shape=np.array([7], np.int64)), "cannot be evaluated in float64: .*reshape"),
        (one("NoSuchOperator")(), "cannot be evaluated in float64"),
    ],
    ids=["shapes that do not fit", "an unknown operator"],
)
def test_what_cannot_be_evaluated_is_one_line(model: onnx.ModelProto, reason: str) -> None:
    with pytest.raises(CnnbenchError, match=reason) as caught:
        evaluated(model, np.zeros(3, np.float32))
    assert caught.value.code == Exit.VERDICT
    assert "\n" not in str(caught.value)
