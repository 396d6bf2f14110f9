"""A graph is held to the contract, runs nothing but the standard's operators, and needs no other file."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cnnbench.bundles import contract
from cnnbench.records.bundle import Contract, TensorSpec
from cnnbench.types import CnnbenchError, Exit, ImageSpec

SPEC = ImageSpec(2, 3, 1, num_classes=4)
CONTRACT = contract.contract_of(SPEC)
METADATA = contract.metadata(
    arch="linear",
    precision="fp32",
    dataset="tested",
    class_names=("a", "b", "c", "d"),
    contract=CONTRACT,
    weights_sha256="00",
    accuracy=0.5,
)

kinds = pytest.mark.parametrize("kind", get_args(contract.InputKind))
softmax = pytest.mark.parametrize("probabilities", [False, True], ids=["logits", "probabilities"])
Damage = Callable[[onnx.ModelProto], Any]


def good(kind: contract.InputKind = "uint8", probabilities: bool = False) -> onnx.ModelProto:
    """Cast, flatten, multiply by a matrix of zeros."""
    shapes = {"uint8": (TensorProto.UINT8, ["batch", 2, 3, 1]), "float": (TensorProto.FLOAT, ["batch", 1, 2, 3])}
    weights = numpy_helper.from_array(np.zeros((6, 4), np.float32), "w")
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["cast"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["logits"], name="product"),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])]
    if probabilities:
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
        outputs.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 4]))
    pixels = helper.make_tensor_value_info("pixels", *shapes[kind])
    made = helper.make_graph(nodes, "good", [pixels], outputs, [weights])
    model = helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    helper.set_model_props(model, METADATA)
    return model


def elsewhere(tensor: TensorProto, place: str = "../weights.bin") -> TensorProto:
    """`tensor` with its values in another file."""
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value=place)
    return tensor


def ones(name: str, *shape: int, dtype: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def constant(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["other"], **attributes)


def sparse(external: str) -> onnx.SparseTensorProto:
    """Ones at two places of a matrix; the part that is named is in another file."""
    parts = {"values": ones("other", 2), "indices": ones("places", 2, dtype=np.int64)}
    elsewhere(parts[external])
    return helper.make_sparse_tensor(parts["values"], parts["indices"], [6, 4])


def branch(*nodes: onnx.NodeProto, weights: tuple[TensorProto, ...] = ()) -> onnx.NodeProto:
    """An If whose second branch holds `nodes` and `weights`."""
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])]
    plain = helper.make_node("Constant", [], ["out"], value=ones("one", 1))
    first = helper.make_graph([plain], "first", [], outputs)
    second = helper.make_graph([*nodes, plain], "second", [], outputs, weights)
    return helper.make_node("If", ["condition"], ["out"], then_branch=first, else_branch=second)


def node(made: onnx.NodeProto) -> Damage:
    """Put a node first, and the condition that an If may read."""

    def damage(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
        model.graph.node.insert(0, made)

    return damage


def between(kind: str, **attributes: int) -> Damage:
    """Put `kind` between the cast and the flattening."""

    def damage(model: onnx.ModelProto) -> None:
        extra = ["scale", "bias", "mean", "var"] if kind == "BatchNormalization" else []
        model.graph.initializer.extend(ones(name, 2) for name in extra)
        outputs = ["in"] + (["new_mean", "new_var"] if attributes.get("training_mode") else [])
        model.graph.node.insert(1, helper.make_node(kind, ["cast", *extra], outputs, **attributes))
        model.graph.node[2].input[0] = "in"

    return damage


def fixed_batch(model: onnx.ModelProto) -> None:
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2


def two_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", 6]))


def two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["batch", 6]))


def other_names(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = model.graph.output[0].name = "scores"


def wider(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].CopyFrom(ones("w", 7, 4))


def function(model: onnx.ModelProto) -> None:
    twice = helper.make_node("Add", ["x", "x"], ["y"])
    imports = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("", "Twice", ["x"], ["y"], [twice], imports))


def training_step(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.name = "step"


def half_external(model: onnx.ModelProto) -> None:
    """The values are inside, and another file is named all the same."""
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


EXTERNAL: dict[str, Damage] = {
    "an initializer": lambda model: elsewhere(model.graph.initializer[0]),
    "an initializer that has values, too": half_external,
    "a Constant": node(constant(value=elsewhere(ones("other", 2)))),
    "a list of tensors": node(constant(values=[ones("first", 2), elsewhere(ones("second", 2))])),
    "an initializer of a branch": node(branch(weights=(elsewhere(ones("other", 2)),))),
    "a Constant of a branch": node(branch(constant(value=elsewhere(ones("other", 2))))),
    "a branch of a branch": node(branch(branch(constant(value=elsewhere(ones("other", 2)))))),
    "values of a sparse initializer": lambda model: model.graph.sparse_initializer.append(sparse("values")),
    "indices of a sparse initializer": lambda model: model.graph.sparse_initializer.append(sparse("indices")),
    "values of a sparse Constant": node(constant(sparse_value=sparse("values"))),
    "a sparse Constant of a branch": node(branch(constant(sparse_value=sparse("indices")))),
}
FOREIGN: dict[str, Damage] = {
    "a node": node(helper.make_node("Evil", [], ["out"], domain="com.evil")),
    "a node of a branch": node(branch(helper.make_node("Evil", [], ["more"], domain="com.evil"))),
    "an import alone": lambda model: model.opset_import.append(helper.make_opsetid("com.evil", 1)),
}
BROKEN: dict[str, tuple[Damage, str]] = {
    "a fixed batch": (fixed_batch, "inputs and outputs .*: inputs .*expected"),
    "two inputs": (two_inputs, "inputs and outputs .*: inputs"),
    "two outputs": (two_outputs, "inputs and outputs .*: outputs"),
    "other names": (other_names, "inputs and outputs .*: outputs .*scores"),
    "an unknown operator": (lambda m: setattr(m.graph.node[0], "op_type", "Castt"), "checker"),
    "shapes that do not fit": (wider, "checker"),
    "nodes in a circle": (lambda m: m.graph.node[0].input.__setitem__(0, "logits"), "checker"),
    "a function": (function, "functions or training steps"),
    "a training step": (training_step, "functions or training steps"),
    "a constant in the place of the input": (lambda m: m.graph.initializer.append(ones("pixels", 2)), "input pixels"),
    "a constant of text": (node(constant(value=helper.make_tensor("t", TensorProto.STRING, [1], [b"a"]))), "is text"),
    "text": (node(constant(value_strings=["a"])), "is text"),
    "a long comment": (lambda m: setattr(m.graph, "doc_string", "x" * (contract.LARGEST_TEXT + 1)), "beside its const"),
    "dropout": (between("Dropout"), r"\(Dropout\) is in training mode"),
    "noise": (between("RandomNormalLike"), r"\(RandomNormalLike\) draws random numbers"),
    "noise without an input": (
        node(helper.make_node("RandomUniform", [], ["drawn"], shape=[2])),
        r"\(RandomUniform\) draws random numbers",
    ),
    "a random mask": (between("Bernoulli"), r"\(Bernoulli\) draws random numbers"),
    "batch norm in training mode": (
        between("BatchNormalization", training_mode=1),
        r"\(BatchNormalization\) is in training mode",
    ),
    "an older opset": (lambda m: setattr(m.opset_import[0], "version", 17), r"opset \[17\]; expected 8 and 18"),
    "a newer opset": (lambda m: setattr(m.opset_import[0], "version", 19), r"opset \[19\]; expected 8 and 18"),
    "an older IR": (lambda m: setattr(m, "ir_version", 7), "IR version 7|checker"),
    "a newer IR": (lambda m: setattr(m, "ir_version", 10), "IR version 10 .*expected 8"),
    "no IR": (lambda m: m.ClearField("ir_version"), "checker"),
    "no graph": (lambda m: m.ClearField("graph"), "checker"),
    "metadata twice": (lambda m: m.metadata_props.add(key="dataset", value="tested"), "checker"),
}


def check(model: onnx.ModelProto, control_flow: bool = False) -> None:
    contract.check(model, CONTRACT, metadata=METADATA, control_flow=control_flow)


def refused(model: onnx.ModelProto, reason: str, control_flow: bool = False) -> None:
    with pytest.raises(CnnbenchError, match=reason) as caught:
        check(model, control_flow)
    assert caught.value.code == Exit.VERDICT
    assert "\n" not in str(caught.value)


@kinds
@softmax
def test_a_good_graph_passes(kind: contract.InputKind, probabilities: bool) -> None:
    agreed = contract.contract_of(SPEC, kind=kind, probabilities=probabilities)
    contract.check(good(kind, probabilities), agreed, metadata=METADATA)


@pytest.mark.parametrize(
    "damage",
    [
        between("BatchNormalization"),
        node(constant(value=ones("other", 2))),
        lambda model: setattr(model.opset_import[0], "domain", "ai.onnx"),
    ],
    ids=["batch norm in inference mode", "a Constant", "the standard by its full name"],
)
def test_what_the_refusals_resemble_passes(damage: Damage) -> None:
    model = good()
    damage(model)
    check(model)


@pytest.mark.parametrize("name", EXTERNAL)
def test_data_in_another_file_is_refused_before_the_checker_follows_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[object] = []
    monkeypatch.setattr(onnx.checker, "check_model", lambda *_, **__: followed.append(1))
    model = good()
    EXTERNAL[name](model)
    refused(model, r"its weights \w+ lie in (\.\./weights\.bin|/etc/passwd)")
    assert followed == []


def test_data_in_a_file_without_a_name_is_refused() -> None:
    model = good()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    refused(model, "its weights w lie in another file")


@pytest.mark.parametrize("name", FOREIGN)
def test_operators_outside_the_standard_are_refused(name: str) -> None:
    model = good()
    FOREIGN[name](model)
    refused(model, r"operators of com\.evil; expected the ONNX standard's")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_graph_is_refused(name: str) -> None:
    damage, reason = BROKEN[name]
    model = good()
    damage(model)
    refused(model, reason)


def test_a_branch_passes_where_the_network_has_one_and_nowhere_else() -> None:
    model = good()
    node(branch())(model)
    check(model, control_flow=True)
    assert contract.has_control_flow(model)
    assert not contract.has_control_flow(good())
    refused(model, r"\(If\) is a branch or a loop, which the network does not have")


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (helper.make_node("Dropout", ["other"], ["dropped"]), r"\(Dropout\) is in training mode"),
        (helper.make_node("RandomUniformLike", ["other"], ["drawn"]), r"\(RandomUniformLike\) draws random numbers"),
    ],
    ids=["dropout", "noise"],
)
def test_a_branch_of_the_network_s_own_hides_nothing(made: onnx.NodeProto, reason: str) -> None:
    model = good()
    node(branch(constant(value=ones("v", 1)), made))(model)
    refused(model, reason, control_flow=True)


@pytest.mark.parametrize("change", [{"height": 3, "width": 2}, {"channels": 3}, {"num_classes": 5}], ids=str)
def test_a_graph_for_other_images_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(CnnbenchError, match="expected"):
        contract.check(good(), contract.contract_of(replace(SPEC, **change)), metadata=METADATA)


@kinds
@softmax
@pytest.mark.parametrize("wanted_kind", get_args(contract.InputKind))
@pytest.mark.parametrize("wanted", [False, True])
def test_a_graph_passes_as_what_it_is_alone(
    kind: contract.InputKind, probabilities: bool, wanted_kind: contract.InputKind, wanted: bool
) -> None:
    agreed = contract.contract_of(SPEC, kind=wanted_kind, probabilities=wanted)
    if (kind, probabilities) == (wanted_kind, wanted):
        contract.check(good(kind, probabilities), agreed, metadata=METADATA)
        return
    with pytest.raises(CnnbenchError, match="inputs and outputs") as caught:
        contract.check(good(kind, probabilities), agreed, metadata=METADATA)
    assert caught.value.code == Exit.VERDICT


@pytest.mark.parametrize(
    ("change", "named"),
    [
        *(({key: "other"}, key) for key in METADATA),
        *(({key: None}, key) for key in METADATA),
        ({"author": "somebody"}, "author"),
        ({"precision": "int8", "class_names": None, "author": "somebody"}, "author, class_names, precision"),
    ],
    ids=str,
)
def test_metadata_that_disagrees_is_named(change: dict[str, str | None], named: str) -> None:
    model = good()
    del model.metadata_props[:]
    stored = {key: value for key, value in {**METADATA, **change}.items() if value is not None}
    helper.set_model_props(model, stored)
    refused(model, f"file and manifest disagree on {named}$")


def test_the_contract_states_names_types_shapes_and_versions() -> None:
    spec = ImageSpec(28, 30, 3, num_classes=7)
    assert msgspec.to_builtins(contract.contract_of(spec)) == {
        "input": {"name": "pixels", "dtype": "uint8", "shape": ("batch", 28, 30, 3)},
        "outputs": ({"name": "logits", "dtype": "float32", "shape": ("batch", 7)},),
        "opset": 18,
        "ir_version": 8,
        "oldest_onnxruntime": "1.15.0",
    }
    both = contract.contract_of(spec, kind="float", probabilities=True)
    assert both.input == TensorSpec("pixels", "float32", ("batch", 3, 28, 30))
    assert [(output.name, output.shape) for output in both.outputs] == [
        ("logits", ("batch", 7)),
        ("probabilities", ("batch", 7)),
    ]
    assert msgspec.json.decode(msgspec.json.encode(both), type=Contract) == both  # as in the manifest


@kinds
def test_the_metadata_tells_who_has_nothing_but_the_file(kind: contract.InputKind) -> None:
    names = ('a "quoted" one', "a, b", "c", "é")
    said = contract.metadata(
        arch="mlp",
        precision="int8",
        dataset="mine",
        class_names=names,
        contract=contract.contract_of(SPEC, kind=kind),
        weights_sha256="00ff",
        accuracy=1 / 3,
    )
    assert tuple(json.loads(said["class_names"])) == names
    assert float(said["trained_accuracy"]) == 1 / 3
    assert (said["architecture"], said["precision"], said["dataset"]) == ("mlp", "int8", "mine")
    assert said["weights_sha256"] == "00ff"
    assert said["input"].startswith({"uint8": "uint8 (batch, 2, 3, 1)", "float": "float32 (batch, 1, 2, 3)"}[kind])


def unreadable(path: Path, reason: str) -> None:
    with pytest.raises(CnnbenchError, match=reason) as caught:
        contract.read(path)
    assert caught.value.code == Exit.DATA
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(good().SerializeToString())
    assert contract.read(path) == good()
    check(contract.read(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    unreadable(tmp_path / "model.onnx", "is missing")
    unreadable(tmp_path, "is missing")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(good().SerializeToString())
    monkeypatch.setattr(contract, "LARGEST_FILE", path.stat().st_size)
    assert contract.read(path) == good()
    monkeypatch.setattr(contract, "LARGEST_FILE", 1_000)
    with path.open("r+b") as file:
        file.truncate(2**40)  # holes: it takes no room on disk, and would not fit into memory
    unreadable(path, r"has 1,099,511,627,776 bytes; an ONNX file has at most 1,000$")


def test_the_largest_file_is_what_protobuf_can_hold() -> None:
    assert contract.LARGEST_FILE == 2**31 - 1


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x08", b"\xff" * 100], ids=str)
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    unreadable(path, "is not a readable ONNX file")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path, content = tmp_path / "model.onnx", good().SerializeToString()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CnnbenchError):
            check(contract.read(path))


@given(st.binary(max_size=200))
def test_whatever_is_read_is_a_model_or_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, some: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(some)
    try:
        found = contract.read(path)
    except CnnbenchError as error:
        found = error.code
    assert found == Exit.DATA or isinstance(found, onnx.ModelProto)


NAMES: dict[str, Callable[[onnx.ModelProto], Any]] = {
    "of a node": lambda model: setattr(model.graph.node[0], "name", "MARK"),
    "of an input": lambda model: model.graph.node[0].input.append("MARK"),
    "of an operator": lambda model: setattr(model.graph.node[0], "op_type", "MARK"),
    "of an attribute": lambda model: setattr(model.graph.node[0].attribute[0], "name", "MARK"),
    "of an initializer": lambda model: setattr(model.graph.initializer[0], "name", "MARK"),
    "of a dimension": lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim[0], "dim_param", "MARK"),
    "in a branch": node(branch(constant(value=ones("MARK", 1)))),
    "in the metadata": lambda model: setattr(model.metadata_props[0], "value", "MARK"),
}


@pytest.mark.parametrize("damage", NAMES.values(), ids=NAMES)
def test_a_name_that_is_no_text_is_refused(damage: Damage) -> None:
    model = good()
    damage(model)
    data = model.SerializeToString()
    assert data.count(b"MARK") == 1
    read = onnx.load_model_from_string(data.replace(b"MARK", b"MA\xff\xfe"))
    with pytest.raises(CnnbenchError, match=r"^the graph is refused: one of its names is not UTF-8 text$") as refused:
        contract.check(read, CONTRACT, metadata=METADATA)
    assert refused.value.code == Exit.VERDICT
