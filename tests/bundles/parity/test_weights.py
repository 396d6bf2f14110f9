"""Every floating-point constant of a file is accounted for: whose bits it has, or which number it rounds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from builders import PROOF
from onnx import TensorProto, helper, numpy_helper

from cnnbench import records
from cnnbench.bundles.parity import weights
from cnnbench.records.bundle import Constant
from cnnbench.types import CnnbenchError, Exit


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


WEIGHT, BIAS, GATES = drawn(0, 6, 5), drawn(1, 6), drawn(2, 12, 5)
TENSORS = {"layer.weight": WEIGHT, "layer.bias": BIAS, "gru.weight": GATES, "ones": np.ones(12, np.float32)}


def holding(nodes: Sequence[onnx.NodeProto] = (), **constants: Any) -> onnx.ModelProto:
    """A graph that holds these constants, and uses each in an Identity."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    users = [helper.make_node("Identity", [name], [f"{name}_again"]) for name in constants]
    return helper.make_model(helper.make_graph([*nodes, *users], "tested", [], [], tensors))


def account(model: onnx.ModelProto, floats: Sequence[float] = (), integers: Sequence[int] = ()) -> weights.Accounts:
    return weights.account(model, TENSORS, floats=floats, integers={*integers})


def only(model: onnx.ModelProto, **numbers: Any) -> tuple[str, str]:
    """Rule and source of the one constant."""
    (entry,) = account(model, **numbers).constants
    return entry.rule, entry.source


def refused(model: onnx.ModelProto, **numbers: Any) -> str:
    with pytest.raises(CnnbenchError, match="the ONNX file is not the trained network: its constant") as caught:
        account(model, **numbers)
    assert caught.value.code == Exit.VERDICT
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ulp(values: np.ndarray, place: int = 0) -> np.ndarray:
    """One unit in the last place of one number off."""
    changed = values.copy()
    changed.flat[place] = np.nextafter(changed.flat[place], np.float32(np.inf))
    return changed


def swapped(values: np.ndarray) -> np.ndarray:
    changed = values.copy()
    changed.flat[[0, 7 % values.size]] = changed.flat[[7 % values.size, 0]]
    return changed


# --- tensors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("layer.weight", WEIGHT, ("tensor", "layer.weight")),
        ("val_1", WEIGHT, ("tensor", "layer.weight")),
        ("val_1", WEIGHT.reshape(1, 6, 5, 1), ("tensor", "layer.weight")),
        ("val_1", WEIGHT.T.copy(), ("transpose", "layer.weight as 1,0")),
        ("val_1", WEIGHT.T.copy()[None], ("transpose", "layer.weight as 1,0")),
        ("val_1", WEIGHT[2:5], ("pieces", "layer.weight[2:5]")),
        ("val_1", WEIGHT[:, 1:3].copy(), ("pieces", "layer.weight[:,1:3]")),
        ("val_1", np.concatenate([BIAS, np.ones(12, np.float32)]), ("pieces", "layer.bias[0:6], ones[0:12]")),
        (
            "val_1",
            np.concatenate([GATES[4:8], GATES[:4], GATES[8:]])[None],
            ("pieces", "gru.weight[4:8], gru.weight[0:4], gru.weight[8:12]"),
        ),
        (
            "val_1",
            np.stack([np.concatenate([WEIGHT[3:], WEIGHT[:3]]), np.concatenate([GATES[6:9], GATES[:3]])]),
            ("pieces", "layer.weight[3:6], layer.weight[0:3], gru.weight[6:9], gru.weight[0:3]"),
        ),
        ("val_1", np.zeros((0, 3), np.float32), ("empty", "")),
    ],
    ids=[
        "by its name",
        "by another name",
        "in another shape",
        "transposed",
        "transposed with an axis more",
        "some rows",
        "some columns",
        "put together",
        "gates in another order",
        "gates of two directions",
        "empty",
    ],
)
def test_whose_bits_a_constant_has(name: str, values: np.ndarray, expected: tuple[str, str]) -> None:
    assert only(holding(**{name: values})) == expected


def test_of_axes_in_any_order() -> None:
    kernel = drawn(5, 4, 3, 2, 5)
    model = holding(val_1=kernel.transpose(2, 0, 3, 1).copy())
    (entry,) = weights.account(model, {"kernel": kernel}, floats=[], integers=set()).constants
    assert (entry.rule, entry.source) == ("transpose", "kernel as 2,0,3,1")


@pytest.mark.parametrize("change", [ulp, swapped], ids=["one unit in the last place", "two weights swapped"])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("layer.weight", WEIGHT),
        ("val_1", WEIGHT),
        ("val_1", WEIGHT.T.copy()),
        ("layer.bias", BIAS),
        ("val_1", np.concatenate([GATES[4:8], GATES[:4], GATES[8:]])[None]),
    ],
    ids=["a tensor", "under another name", "transposed", "a bias", "gates"],
)
def test_a_constant_that_is_a_little_off_is_no_tensor(name: str, values: np.ndarray, change: Any) -> None:
    said = refused(holding(**{name: change(values)}))
    assert f"its constant {name} ({'x'.join(map(str, values.shape))}, first value " in said
    assert "which Identity uses" in said


def test_pieces_are_few() -> None:
    """Else anything could be put together from single numbers."""
    forged = np.random.RandomState(3).permutation(np.concatenate([BIAS, GATES.ravel(), WEIGHT.ravel()]))
    refused(holding(val_1=forged))
    refused(holding(val_1=forged.reshape(6, -1)))


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_a_tensor_of_another_type_is_none(dtype: type) -> None:
    refused(holding(val_1=WEIGHT.astype(dtype)))
    refused(holding(**{"layer.weight": WEIGHT.astype(dtype)}))


def test_a_tensor_s_own_name_is_no_place_for_other_numbers() -> None:
    refused(holding(**{"layer.bias": np.zeros(6, np.float32)}))
    refused(holding(**{"layer.bias": GATES[0]}))
    refused(holding(**{"layer.bias": np.ones(6, np.float32)}))


def test_integers_are_not_asked() -> None:
    assert account(holding(shape=np.array([7, 5], np.int64), flag=np.array(True))).constants == ()


# --- literals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "numbers", "exact"),
    [
        (1e-5, {"floats": [1e-5]}, (1e-5,)),
        (255, {"integers": [255]}, ()),
        (1 / 255, {"integers": [255]}, (1 / 255,)),
        (8**-0.25, {"integers": [8]}, (8**-0.25,)),
        (1 - 0.3, {"floats": [0.3]}, (1 - 0.3,)),
        (-0.2, {"floats": [0.2]}, (-0.2,)),
        (0, {}, ()),
        (1, {}, ()),
        (-np.inf, {}, ()),
        (2**0.5, {}, (2**0.5,)),
        ([1, 1, 0.5, 0.5], {}, ()),
        (np.full((3, 5), 0.1), {"floats": [0.1]}, (0.1,)),
    ],
    ids=[
        "an epsilon",
        "an integer",
        "a reciprocal",
        "an attention's scale",
        "one less it",
        "negative",
        "0",
        "1",
        "a mask",
        "GELU's",
        "scales",
        "many of one",
    ],
)
def test_a_number_that_operators_are_given_is_a_literal(
    value: Any, numbers: dict[str, Any], exact: tuple[float, ...]
) -> None:
    model = holding(val_1=np.asarray(value, np.float32))
    assert only(model, **numbers) == ("literal", "")
    assert account(model, **numbers).literals == exact  # those that float32 does not hold


@pytest.mark.parametrize("value", [1e-5, 0.1, 8**-0.25, 255])
def test_a_literal_one_unit_off_is_none(value: float) -> None:
    numbers = {"floats": [1e-5, 0.1], "integers": [8, 255]}
    said = refused(holding(val_1=ulp(np.array(value, np.float32))), **numbers)
    assert "(a scalar, first value" in said


def test_a_few_literals_are_a_constant_and_many_different_ones_are_not() -> None:
    floats = [1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9]
    assert only(holding(val_1=np.array(floats[:8], np.float32)), floats=floats) == ("literal", "")
    refused(holding(val_1=np.array(floats, np.float32)), floats=floats)


def test_constants_of_nodes_and_of_branches_are_asked_too() -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["within"], value=numpy_helper.from_array(WEIGHT))], "branch", [], []
    )
    nodes = [
        helper.make_node("Constant", [], ["one"], value_float=0.1),
        helper.make_node("Constant", [], ["two"], value_floats=[0.1, 1.0]),
        helper.make_node("If", ["always"], ["out"], then_branch=inner, else_branch=inner),
    ]
    found = account(holding(nodes), floats=[0.1])
    assert [(entry.name, entry.rule) for entry in found.constants] == [
        ("one", "literal"),
        ("two", "literal"),
        ("within", "tensor"),
        ("within", "tensor"),
    ]
    refused(holding(nodes), floats=[0.3])


def test_attributes_are_told_where_an_argument_explains_them() -> None:
    nodes = [helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.07), helper.make_node("Elu", ["y"], ["z"], alpha=0.3)]
    assert account(holding(nodes), floats=[0.07, 0.3]).literals == (0.07, 0.3)
    with pytest.raises(
        CnnbenchError, match=r"its Elu  has alpha 0\.300000012, which no operator of the network is given"
    ):
        account(holding(nodes), floats=[0.07])


def test_an_attribute_by_default_has_the_value_that_it_rounds() -> None:
    """SELU's alpha and scale, which no argument gives."""
    alpha = 1.6732632423543772848170429916717  # Klambauer et al. 2017
    assert alpha in account(holding([helper.make_node("Selu", ["x"], ["y"])])).literals


def test_constants_that_are_no_literals_are_the_parameters() -> None:
    found = account(holding(val_1=WEIGHT, val_2=np.float32(0.1)), floats=[0.1])
    assert found.of_parameters == weights.of_parameters(found.constants) == {"val_1"}


def test_literals_are_found_by_what_they_round_to() -> None:
    assert weights.by_rounding([1e-5, 0.1]) == {np.float32(1e-5): 1e-5, np.float32(0.1): 0.1}


# --- the proof --------------------------------------------------------------------------------------------------------


def test_a_hash_knows_type_shape_and_every_bit() -> None:
    others = [WEIGHT.astype(np.float64), WEIGHT.reshape(5, 6), ulp(WEIGHT), swapped(WEIGHT), WEIGHT.T]
    assert len({weights.sha256(values) for values in (WEIGHT, *others)}) == 6
    assert weights.sha256(WEIGHT.T) == weights.sha256(WEIGHT.T.copy())


MODEL = holding(**{"layer.weight": WEIGHT, "val_1": np.float32(0.1)})


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (holding(**{"layer.weight": ulp(WEIGHT), "val_1": np.float32(0.1)}), "layer.weight is not the one"),
        (holding(**{"layer.weight": WEIGHT, "val_1": ulp(np.array(0.1, np.float32))}), "val_1 is not the one"),
        (holding(**{"layer.weight": WEIGHT}), "has no constant val_1"),
        (
            holding(**{"layer.weight": WEIGHT, "val_1": np.float32(0.1), "more": np.ones(3, np.float32)}),
            "more is in no",
        ),
        (holding(**{"layer.weight": WEIGHT, "val_1": np.float64(0.1)}), "val_1 is not the one"),
    ],
    ids=["a weight", "a literal", "one fewer", "one more", "another type"],
)
def test_a_file_that_is_not_the_one_proven_is_refused(model: onnx.ModelProto, reason: str) -> None:
    proof = records.replace(PROOF, constants=account(MODEL, floats=[0.1]).constants)
    weights.compare(MODEL, proof)
    with pytest.raises(CnnbenchError, match=reason) as caught:
        weights.compare(model, proof)
    assert caught.value.code == Exit.VERDICT


def test_two_constants_of_one_name_are_two() -> None:
    """A branch may hold a name that the graph has, too: both are compared."""
    inner = helper.make_graph([], "branch", [], [], [numpy_helper.from_array(ulp(WEIGHT), "layer.weight")])
    hidden = holding([helper.make_node("If", ["always"], ["out"], then_branch=inner, else_branch=inner)])
    hidden.graph.initializer.append(numpy_helper.from_array(WEIGHT, "layer.weight"))
    proof = records.replace(PROOF, constants=(Constant("layer.weight", "tensor", "", weights.sha256(WEIGHT)),))
    with pytest.raises(CnnbenchError, match=r"layer\.weight"):
        weights.compare(hidden, proof)


def test_a_type_that_numpy_lacks_is_a_floating_constant_too() -> None:
    tensor = helper.make_tensor("val_1", TensorProto.BFLOAT16, [2], [1.0, 2.0])
    model = holding()
    model.graph.initializer.append(tensor)
    assert [name for name, _, _ in weights.constants(model)] == ["val_1"]
    refused(model)
