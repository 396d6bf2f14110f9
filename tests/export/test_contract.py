"""A graph is held to one input, one output, a free batch, no other file, and inference mode."""

import copy
import json
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cnnbench.export import contract
from cnnbench.types import CnnbenchError, Exit, ImageSpec

SPEC = ImageSpec(2, 3, 1, num_classes=4)


def good() -> onnx.ModelProto:
    """Flatten, cast, multiply by a matrix of zeros."""
    weights = numpy_helper.from_array(np.zeros((6, 4), np.float32), "w")
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["cast"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 2, 3, 1])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
    model = helper.make_graph(nodes, "good", [pixels], [logits], [weights])
    return helper.make_model(model, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


def insert(model: onnx.ModelProto, kind: str, **attributes: int) -> None:
    """`kind` between the cast and the flattening."""
    extra = ["scale", "bias", "mean", "var"] if kind == "BatchNormalization" else []
    for name in extra:
        model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), name))
    outputs = ["in"] + (["new_mean", "new_var"] if attributes.get("training_mode") else [])
    model.graph.node.insert(1, helper.make_node(kind, ["cast", *extra], outputs, **attributes))
    model.graph.node[2].input[0] = "in"


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2


def two_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", 6]))


def other_names(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = model.graph.output[0].name = "scores"


def external(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].external_data.add(key="location", value="model.onnx.data")


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Castt"


def shapes_that_do_not_fit(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((7, 4), np.float32), "w"))


BROKEN: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "a fixed batch": (fixed_batch, "inputs and outputs"),
    "two outputs": (two_outputs, "inputs and outputs"),
    "other names": (other_names, "inputs and outputs"),
    "weights in another file": (external, "another file|checker"),
    "an unknown operator": (unknown_operator, "checker"),
    "shapes that do not fit": (shapes_that_do_not_fit, "checker"),
    "dropout": (lambda model: insert(model, "Dropout"), "training mode"),
    "batch norm in training mode": (lambda model: insert(model, "BatchNormalization", training_mode=1), "training"),
}


def test_a_good_graph_passes() -> None:
    contract.check(good(), SPEC)


def test_batch_norm_in_inference_mode_passes() -> None:
    model = good()
    insert(model, "BatchNormalization")
    contract.check(model, SPEC)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_graph_is_refused(name: str) -> None:
    damage, reason = BROKEN[name]
    model = copy.deepcopy(good())
    damage(model)
    with pytest.raises(CnnbenchError, match=reason) as caught:
        contract.check(model, SPEC)
    assert caught.value.code == Exit.VERDICT


@pytest.mark.parametrize("spec", [ImageSpec(3, 2, 1, 4), ImageSpec(2, 3, 3, 4), ImageSpec(2, 3, 1, 5)], ids=str)
def test_a_graph_for_other_images_is_refused(spec: ImageSpec) -> None:
    with pytest.raises(CnnbenchError, match="expected"):
        contract.check(good(), spec)


def test_the_signature_is_what_the_graph_states() -> None:
    stated = contract.signature(SPEC)
    assert stated["input"] == {"name": "pixels", "dtype": "uint8", "shape": ["batch", 2, 3, 1]}
    assert stated["output"] == {"name": "logits", "dtype": "float32", "shape": ["batch", 4]}


def test_class_names_can_be_read_back_from_the_metadata() -> None:
    names = ('a "quoted" one', "a, b", "c")
    assert tuple(json.loads(contract.metadata("mlp", "mine", names, SPEC, "00")["class_names"])) == names
