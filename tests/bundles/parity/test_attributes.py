"""Attributes that the evaluation in float64 does not compute are refused."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference.op_run import OpRun
from onnx.reference.ops._op_list import load_op

from cnnbench.bundles import contract
from cnnbench.bundles.parity import attributes
from cnnbench.bundles.parity.exact import OPERATORS, InFloat64
from cnnbench.types import CnnbenchError, Exit

IGNORED = {
    "GRU": {"activation_alpha", "activation_beta", "activations", "clip"},
    "LSTM": {"activation_alpha", "activation_beta", "activations", "clip", "input_forget"},
    "RNN": {"clip"},
    "SequenceEmpty": {"dtype"},  # of a list without elements
}
"""What onnx's reference implementation has in its signatures and never reads."""


def kernels() -> dict[str, type[OpRun]]:
    """The class that evaluates each operator of the opset, where it is not made of other operators."""
    found: dict[str, type[OpRun]] = {}
    for name in {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}:
        try:
            onnx.defs.get_schema(name, max_inclusive_version=contract.OPSET, domain="")
            kernel = load_op("", name, contract.OPSET)
        except Exception:  # newer than the opset, without an implementation, or made of others
            continue
        if isinstance(kernel, type) and issubclass(kernel, OpRun):
            found[name] = kernel
    return found | {kernel.__name__: kernel for kernel in OPERATORS}


def test_what_each_kernel_ignores_is_known() -> None:
    all_kernels = kernels()
    assert len(all_kernels) > 150
    ignored = {name: {*attributes.ignored(name, kernel)} for name, kernel in all_kernels.items()}
    assert {name: some for name, some in ignored.items() if some} == IGNORED


def recurrent(kind: str, **given: Any) -> onnx.ModelProto:
    gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[kind]
    drawn = np.random.RandomState(0).standard_normal
    tensors = {"w": drawn((1, 2 * gates, 3)), "r": drawn((1, 2 * gates, 2))}
    node = helper.make_node(kind, ["pixels", *tensors], ["logits"], "it", hidden_size=2, **given)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("pixels", "logits")]
    made = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()]
    graph = helper.make_graph([node], "tested", values[:1], values[1:], made)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", contract.OPSET)])


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("GRU", {"clip": 0.5}),
        ("GRU", {"activations": ["Relu", "Tanh"]}),
        ("LSTM", {"input_forget": 1}),
        ("RNN", {"clip": 0.5}),
    ],
)
def test_an_attribute_that_is_not_computed_is_refused_by_name(kind: str, given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(CnnbenchError, match=f"its {kind} it has {name} .*does not compute it") as caught:
        InFloat64(recurrent(kind, **given), literals={}, parameters=frozenset())
    assert caught.value.code == Exit.VERDICT


def test_an_attribute_may_have_its_default() -> None:
    pixels = np.ones((4, 1, 3), np.float32)
    said, unsaid = (
        InFloat64(recurrent("LSTM", **given), literals={}, parameters=frozenset()).logits(pixels)
        for given in ({"input_forget": 0}, {})
    )
    assert np.array_equal(said, unsaid)
