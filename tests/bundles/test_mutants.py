"""`verify` tested by mutation: every fault is put into a good bundle, which is then signed anew.

Hashes catch an edit trivially, so each mutant's manifest is made to fit again, and so are card and metadata, as a
forger would. The check that understands the fault must catch it. What no behaviour can show must pass, and is named.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export_helpers import Arrays, Colour, Forger, Graph, one_block
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench import records
from cnnbench.architectures import build
from cnnbench.bundles import graph
from cnnbench.bundles.evidence import Check, CheckError
from cnnbench.bundles.parity import exact, weights
from cnnbench.bundles.parity.comparison import EXACT
from cnnbench.bundles.verify import verify_bundle
from cnnbench.records.bundle import Constant, Manifest
from cnnbench.training.checkpoints import load_classifier
from cnnbench.types import CnnbenchError, Exit

# --- the graph --------------------------------------------------------------------------------------------------------


def layers(model: Graph) -> list[TensorProto]:
    """The weights of every layer, in order."""
    return [tensor for tensor in model.graph.initializer if len(tensor.dims) in (2, 4) and tensor.dims[0] > 1]


def edit_tensor(tensor: TensorProto, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    values = numpy_helper.to_array(tensor).copy()
    result = change(values)
    tensor.CopyFrom(numpy_helper.from_array(values if result is None else result, tensor.name))


def scale_largest(factor: float, values: np.ndarray) -> None:
    values.flat[np.abs(values).argmax()] *= np.float32(factor)


def largest_weight(where: float, factor: float, model: Graph) -> None:
    found = layers(model)
    edit_tensor(found[round(where * (len(found) - 1))], partial(scale_largest, factor))


def drop_normalisation(model: Graph) -> None:
    """What the first convolution reads is [0, 1], not less the mean and not over the deviation."""
    nodes = {output: node for node in model.graph.node for output in node.output}
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    over_std = nodes[first.input[0]]
    less_mean = nodes[over_std.input[0]]
    assert (less_mean.op_type, over_std.op_type) == ("Sub", "Div")
    first.input[0] = less_mean.input[0]
    model.graph.node.remove(over_std)
    model.graph.node.remove(less_mean)


def swap_channels(model: Graph) -> None:
    edit_tensor(layers(model)[0], lambda values: np.ascontiguousarray(values[:, ::-1]))


def swap_outputs(model: Graph) -> None:
    last = model.graph.node[-1]
    assert last.op_type == "Gemm"

    def swap(values: np.ndarray) -> None:
        values[[0, 1]] = values[[1, 0]]

    for tensor in model.graph.initializer:
        if tensor.name in last.input[1:]:
            assert tensor.dims[0] == 10
            edit_tensor(tensor, swap)


def fix_batch(model: Graph) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 24


def before_last(model: Graph, *nodes: onnx.NodeProto) -> None:
    """`nodes` read `features` and write `changed`, which the last layer takes instead."""
    last = model.graph.node[-1]
    nodes[0].input[0] = last.input[0]
    last.input[0] = nodes[-1].output[0]
    for node in nodes:
        model.graph.node.insert(len(model.graph.node) - 1, node)


def fix_batch_inside(model: Graph) -> None:
    """The contract says that it is free, but within the graph it is the number of golden images."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([24, -1], np.int64), "shape"))
    before_last(model, helper.make_node("Reshape", ["", "shape"], ["changed"], "reshape"))


def external(place: str, model: Graph) -> None:
    tensor = layers(model)[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)


def foreign_operator(declared: bool, model: Graph) -> None:
    before_last(model, helper.make_node("Gelu", [""], ["changed"], "gelu", domain="com.microsoft"))
    if declared:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def own_function(model: Graph) -> None:
    body = [helper.make_node("Identity", ["a"], ["b"])]
    model.functions.append(helper.make_function("", "Mine", ["a"], ["b"], body, [helper.make_opsetid("", 18)]))


def other_weights(model: Graph) -> None:
    random = np.random.RandomState(0)
    for tensor in layers(model):
        edit_tensor(tensor, lambda v: (random.standard_normal(v.shape) * v.std()).astype(np.float32))


class Functional(nn.Module):
    """Batch norm left in training mode: it normalises by its batch, not by what it learned."""

    def __init__(self, learned: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = learned.weight, learned.bias, learned.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.1, self.eps)


class Spelled(Functional):
    """The same in plain operators, with no batch norm to be seen."""

    def forward(self, x: Tensor) -> Tensor:
        less = x - x.mean((0, 2, 3), keepdim=True)
        normal = less * torch.rsqrt(less.square().mean((0, 2, 3), keepdim=True) + self.eps)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


@pytest.fixture(scope="session")
def in_training(colour: Colour, once: Callable[[str, Callable[[Path], None]], Path]) -> Callable[[type], Graph]:
    """The network exported again, with every batch norm of a kind."""

    def export(kind: type[Functional]) -> Graph:
        folder = once(f"in_training_{kind.__name__}", lambda place: export_in_training(colour, kind, place))
        return onnx.load(folder / "model.onnx")

    return export


def export_in_training(colour: Colour, kind: type[Functional], place: Path) -> None:
    with one_block():
        classifier = load_classifier(colour.checkpoint)
    network = classifier.network
    assert network is not None
    assert classifier.spec is not None
    batch_norms = [
        (parent, name)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.BatchNorm2d)
    ]
    assert batch_norms
    for parent, name in batch_norms:
        setattr(parent, name, kind(getattr(parent, name)))
    graph.save(graph.to_onnx(network, classifier.spec, metadata={}).model, place / "model.onnx")


def in_training_mode(model: Graph) -> None:
    """Say of every BatchNormalization node that it is in training mode."""
    for index, node in enumerate(node for node in model.graph.node if node.op_type == "BatchNormalization"):
        del node.output[1:]
        node.output.extend([f"mean{index}", f"var{index}"])
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("training_mode", 1))


# --- what no behaviour shows ------------------------------------------------------------------------------------------


def unused_node(model: Graph) -> None:
    model.graph.node.append(helper.make_node("Identity", [model.graph.node[0].output[0]], ["unused"], "unused"))


def unused_weights(model: Graph) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones(99, np.float32), "unused"))


def rename_node(model: Graph) -> None:
    model.graph.node[-1].name = "another"


def add_to_logits(model: Graph, signal: list[onnx.NodeProto]) -> None:
    """Add 1000 x what `signal` writes as `signal` (batch, 1), to the first logit."""
    model.graph.node[-1].output[0] = "honest"
    row = np.zeros((1, 10), np.float32)
    row[0, 0] = 1000
    model.graph.initializer.append(numpy_helper.from_array(row, "unreached"))
    model.graph.node.extend(signal)
    model.graph.node.append(helper.make_node("MatMul", ["signal", "unreached"], ["extra"]))
    model.graph.node.append(helper.make_node("Add", ["honest", "extra"], ["logits"]))


def unreached_weight(model: Graph) -> None:
    """A branch that opens where a pixel is above 300, which no byte is."""
    constants = {"limit": np.float32(300), "axes": np.array([1, 2, 3], np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    add_to_logits(
        model,
        [
            helper.make_node("Cast", ["pixels"], ["as_float"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["as_float", "limit"], ["above"]),
            helper.make_node("Relu", ["above"], ["open"]),
            helper.make_node("ReduceSum", ["open", "axes"], ["sum"], keepdims=0),
            helper.make_node("Unsqueeze", ["sum", "one"], ["signal"]),
        ],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))


def back_door(model: Graph) -> None:
    """An image whose first pixel is (1, 2, 3) is of the first class."""
    constants = {
        "mark": np.array([1, 2, 3], np.float32),
        "start": np.array([0, 0], np.int64),
        "end": np.array([1, 1], np.int64),
        "axes": np.array([1, 2], np.int64),
        "last": np.array([1, 2, 3], np.int64),
        "one": np.array([1], np.int64),
        "zero": np.float32(0),
    }
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    add_to_logits(
        model,
        [
            helper.make_node("Cast", ["pixels"], ["as_float"], to=TensorProto.FLOAT),
            helper.make_node("Slice", ["as_float", "start", "end", "axes"], ["corner"]),
            helper.make_node("Sub", ["corner", "mark"], ["off"]),
            helper.make_node("Abs", ["off"], ["far"]),
            helper.make_node("ReduceSum", ["far", "last"], ["sum"], keepdims=0),
            helper.make_node("Equal", ["sum", "zero"], ["marked"]),
            helper.make_node("Cast", ["marked"], ["flag"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["flag", "one"], ["signal"]),
        ],
    )


# --- manifest, card and arrays ----------------------------------------------------------------------------------------


def swapped(names: tuple[str, ...]) -> tuple[str, ...]:
    return (names[1], names[0], *names[2:])


def more_right(forger: Forger) -> None:
    """The accuracy of PyTorch, of every pass and in the metadata, 15 images higher."""
    m = forger.manifest
    up = tuple(
        records.replace(v, passes=tuple(records.replace(p, correct=p.correct + 15) for p in v.passes))
        for v in m.variants
    )
    forger.claim(reference=records.replace(m.reference, correct=m.reference.correct + 15), variants=up)
    forger.restate()


def edit_passes(forger: Forger, **changes: int) -> None:
    def edited(found: Any) -> Any:
        return records.replace(found, **{key: getattr(found, key) + by for key, by in changes.items()})

    made = []
    for variant in forger.manifest.variants:
        passes = tuple(map(edited, variant.passes))
        lost = forger.manifest.reference.correct - min(found.correct for found in passes)
        points = 100 * lost / forger.manifest.reference.images
        made.append(records.replace(variant, passes=passes, test_lost_points=points))
    forger.claim(variants=tuple(made))


def a_module_beside(forger: Forger) -> None:
    (forger.path / "numpy.py").write_text("raise SystemExit('this ran in the stead of numpy')\n")


def other_half(forger: Forger) -> None:
    """Another network in float16, with errors, budget and accuracy claimed to fit."""
    file = forger.path / "model_fp16.onnx"
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16 and len(tensor.dims) == 4:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    graph.save(model, file)
    made = []
    for variant in forger.manifest.variants:
        if variant.precision == "fp16":
            passes = tuple(records.replace(p, max_abs_error=1e3, p999_abs_error=1e3) for p in variant.passes)
            variant = records.replace(variant, passes=passes, budget_points=100.0)
        made.append(variant)
    forger.claim(variants=tuple(made))


def relabel(forger: Forger) -> None:
    """Fifteen wrongly named images of the stored ones get the label that was predicted, and the claims follow."""

    def change(arrays: Arrays) -> None:
        rows = np.flatnonzero(arrays["labels"] != arrays["predictions"])[:15]
        assert len(rows) == 15
        arrays["labels"][rows] = arrays["predictions"][rows]

    forger.arrays("reference.npz", change)
    more_right(forger)


def predict_otherwise(arrays: Arrays) -> None:
    """Another wrong class for images that are named wrongly anyway; none of them golden."""
    rows = np.flatnonzero(arrays["labels"] != arrays["predictions"])
    rows = rows[rows >= 16][:3]
    assert len(rows) == 3
    for row in rows:
        taken = {int(arrays["labels"][row]), int(arrays["predictions"][row])}
        arrays["predictions"][row] = min({*range(10)} - taken)


def predict_a_golden_image_otherwise(arrays: Arrays) -> None:
    """The first image's, and where that changes the sum, one more."""
    labels, predictions = arrays["labels"], arrays["predictions"]
    was_right = labels[0] == predictions[0]
    predictions[0] = min({*range(10)} - {int(labels[0]), int(predictions[0])})
    if was_right:
        other = np.flatnonzero(labels != predictions)[-1]
        assert other >= 16
        predictions[other] = labels[other]


def other_contract(forger: Forger) -> None:
    agreed = forger.manifest.contract
    pixels = records.replace(agreed.input, shape=(*agreed.input.shape[:3], 1))
    forger.claim(contract=records.replace(agreed, input=pixels))
    forger.restate()


def looser(forger: Forger) -> None:
    """An error bound that would allow another network."""
    forger.claim(reference=records.replace(forger.manifest.reference, error_bound=1e3))


def other_spec(forger: Forger) -> None:
    forger.claim(spec=replace(forger.manifest.spec, mean=(0.1, 0.2, 0.3)))


def another_architecture(forger: Forger) -> None:
    torch.manual_seed(0)
    network = build("linear", forger.manifest.spec)
    graph.save(graph.to_onnx(network, forger.manifest.spec, metadata={}).model, forger.path / "model.onnx")
    forger.restate()


def unknown_field(data: bytes) -> bytes:
    """Field 2000, of length 7: protobuf keeps what it does not know."""
    return data + b"\x82\x7d\x07payload"


def hidden_in_a_node(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    node = onnx.NodeProto.FromString(model.graph.node[0].SerializeToString() + b"\x82\x7d\x07payload")
    model.graph.node[0].CopyFrom(node)
    assert b"payload" in model.SerializeToString()
    return model.SerializeToString()


def proven_anew(change: Callable[[Graph], Graph | None]) -> Callable[[Forger], None]:
    """Another graph, and what the manifest says of its constants made to fit."""

    def forge(forger: Forger) -> None:
        forger.graph(change)
        model = onnx.load(forger.path / "model.onnx")
        proof = forger.manifest.proof
        known = {entry.name: entry for entry in proof.constants}
        of_file = tuple(
            records.replace(known.get(name, new_constant(name)), sha256=weights.sha256(values))
            for name, _, values in weights.constants(model)
        )
        forger.claim(proof=records.replace(proof, constants=of_file))

    return forge


def new_constant(name: str) -> Constant:
    return Constant(name, "tensor", name, "")


def golden_anew(forger: Forger) -> None:
    """Other weights, and the proof, the golden logits and the claims of errors that they give: a whole forgery."""
    proven_anew(partial(largest_weight, 0.5, 1.0001))(forger)
    model, proof = onnx.load(forger.path / "model.onnx"), forger.manifest.proof
    file = exact.InFloat64(
        model, literals=weights.by_rounding(proof.literals), parameters=weights.of_parameters(proof.constants)
    )
    forger.arrays("golden.npz", lambda arrays: arrays.update(logits=file.logits(arrays["pixels"])))


def other_proof(**changes: Any) -> Callable[[Forger], None]:
    return lambda forger: forger.claim(proof=records.replace(forger.manifest.proof, **changes))


def no_proof_of_one(forger: Forger) -> None:
    forger.claim(proof=records.replace(forger.manifest.proof, constants=forger.manifest.proof.constants[1:]))


def other_epsilon(model: Graph) -> None:
    """What the network's normalisation divides by, a unit in the last place off."""
    for node in model.graph.node:
        if node.op_type == "Div":
            (tensor,) = (t for t in model.graph.initializer if t.name == node.input[1])
            edit_tensor(tensor, lambda values: np.nextafter(values, np.float32(np.inf)))


def other_activation(model: Graph) -> None:
    """A ReLU that lets a millionth of what is negative through."""
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type = "LeakyRelu"
    node.attribute.append(helper.make_attribute("alpha", 1e-6))


def mean_of_more(model: Graph) -> None:
    """An average in the place of a largest value."""
    node = next(node for node in model.graph.node if node.op_type == "MaxPool")
    node.op_type = "AveragePool"
    for attribute in [a for a in node.attribute if a.name in ("storage_order", "dilations")]:
        node.attribute.remove(attribute)


# --- the table --------------------------------------------------------------------------------------------------------

NOTHING = "nothing"
OTHER = "is not the one that the proof is of"


@dataclass(frozen=True)
class Mutant:
    """A fault and the check that must catch it: by `verify`, or only by `verify --rescore`."""

    name: str
    apply: Callable[[Forger], object]
    check: str
    word: str
    """Part of what verify says; for one that nothing catches, why."""
    rescore: bool = False
    quick: bool = False
    new_card: bool = True


def of_graph(name: str, change: Callable[[Graph], Graph | None], check: str, word: str, **more: bool) -> Mutant:
    return Mutant(name, lambda forger: forger.graph(change), check, word, **more)


def of_file(name: str, file: str, change: Callable[[bytes], bytes], check: str, word: str, **more: bool) -> Mutant:
    return Mutant(name, lambda forger: forger.file(file, change), check, word, **more)


def of_claim(name: str, change: Callable[[Forger], object], check: str, word: str, **more: bool) -> Mutant:
    return Mutant(name, change, check, word, **more)


def restated(**changes: Any) -> Callable[[Forger], None]:
    """Claims in the manifest and in the metadata both."""

    def change(forger: Forger) -> None:
        forger.claim(**{key: value(getattr(forger.manifest, key)) for key, value in changes.items()})
        forger.restate()

    return change


def claimed(**changes: Any) -> Callable[[Forger], None]:
    return lambda forger: forger.claim(**{key: value(getattr(forger.manifest, key)) for key, value in changes.items()})


CAUGHT = [
    *(
        of_graph(f"a weight {where} by one unit in its last place", partial(largest_weight, at, factor), "proof", OTHER)
        for where, at, factor in (
            ("of the first convolution", 0, 1 + 2**-23),
            ("a third of the way in", 1 / 3, 1 - 2**-23),
            ("two thirds of the way in", 2 / 3, 1 + 2**-23),
            ("of the last layer", 1, 1 - 2**-23),
        )
    ),
    of_claim(
        "the same in the middle, with the proof's hash made to fit",
        proven_anew(partial(largest_weight, 0.5, 1 + 2**-23)),
        "proof",
        "in float64 its logits differ by",
    ),
    of_graph("normalisation dropped", drop_normalisation, "proof", "in float64 its logits differ by"),
    of_graph("normalisation by one unit in its last place", other_epsilon, "proof", OTHER),
    of_graph("a ReLU that leaks a millionth", other_activation, "proof", "in float64 its logits differ by"),
    of_graph("an average in the place of a largest value", mean_of_more, "proof", "in float64 its logits differ by"),
    of_graph("input channels swapped", swap_channels, "proof", OTHER),
    of_graph("two output classes swapped", swap_outputs, "proof", OTHER),
    of_graph("unused weights", unused_weights, "proof", "in no proof"),
    of_graph("a weight that no input reaches", unreached_weight, "proof", "in no proof"),
    of_graph("a back door that a mark in the image opens", back_door, "proof", "in no proof"),
    of_claim("a constant that the proof leaves out", no_proof_of_one, "proof", "in no proof"),
    of_claim("a proof whose own error is too large", other_proof(graph_error=1e-9), "proof", "are no proof"),
    of_claim("a proof whose own error is below 0", other_proof(function_error=-1.0), "proof", "are no proof"),
    of_claim("a proof of no image", other_proof(graph_images=0), "proof", "is of 0 images"),
    of_claim("a proof at no batch size", other_proof(graph_batches=()), "proof", "at the batch sizes none"),
    of_claim("a proof with a literal of 1e300", other_proof(literals=(1e300,)), "proof", "which no float32 number"),
    of_claim("a proof of branches that are not there", other_proof(control_flow=True), "proof", "the file has none"),
    of_graph("the batch fixed", fix_batch, "graph", "not the contract's"),
    of_graph("the batch fixed inside, at the number of golden images", fix_batch_inside, "graph", "with a batch of "),
    of_graph("weights outside the folder", partial(external, "../../weights"), "graph", "lie in ../../weights"),
    of_graph("weights at an absolute path", partial(external, "/etc/passwd"), "graph", "lie in /etc/passwd"),
    of_graph("an operator of another domain", partial(foreign_operator, True), "graph", "com.microsoft"),
    of_graph("the same, its domain not declared", partial(foreign_operator, False), "graph", "com.microsoft"),
    of_graph("an operator of its own", own_function, "graph", "functions"),
    of_graph("the same architecture, other weights", other_weights, "proof", OTHER),
    of_graph("the same, not evaluated in float64", other_weights, "proof", OTHER, quick=True),
    of_claim("another architecture's graph", another_architecture, "proof", "which the proof names"),
    of_claim("an error bound that would hide another network", looser, "golden", "would hide"),
    of_file("the file truncated", "model.onnx", lambda data: data[:-1000], "graph", "not a readable ONNX file"),
    of_file("bytes appended", "model.onnx", lambda data: data + bytes(8), "graph", "not a readable ONNX file"),
    of_file("a field appended", "model.onnx", unknown_field, "graph", "no part of its ONNX model"),
    of_file("a field hidden in a node", "model.onnx", hidden_in_a_node, "graph", "no part of its ONNX model"),
    of_claim(
        "two class names swapped in the manifest", claimed(class_names=swapped), "graph", "disagree on class_names"
    ),
    of_claim(
        "two class names swapped in manifest and metadata",
        restated(class_names=swapped),
        "rescore",
        "class names",
        rescore=True,
    ),
    of_claim("another normalisation claimed", other_spec, "rescore", "image spec", rescore=True),
    of_claim(
        "another architecture claimed in the manifest", claimed(arch=lambda _: "resnet110"), "graph", "architecture"
    ),
    of_claim("another contract", other_contract, "manifest", "another contract"),
    of_claim("a flattered accuracy, in manifest, metadata and card", more_right, "reference", "the manifest claims"),
    of_claim(
        "a flattered accuracy of the file alone", partial(edit_passes, correct=15), "reference", "what its flips allow"
    ),
    of_claim(
        "an accuracy of the file alone, lower, with flips beyond rounding to explain it",
        partial(edit_passes, correct=-15, flips=15),
        "manifest",
        "is not the trained network",
    ),
    of_claim(
        "the same, with flips by rounding to explain it",
        partial(edit_passes, correct=15, rounding_flips=15),
        "rescore",
        "not what the manifest claims",
        rescore=True,
    ),
    of_claim("labels made to fit, and every claim with them", relabel, "rescore", "labels", rescore=True),
    of_claim(
        "reference predictions edited",
        lambda forger: forger.arrays("reference.npz", predict_otherwise),
        "rescore",
        "differ from the stored",
        rescore=True,
    ),
    of_claim(
        "a golden image's reference prediction edited",
        lambda forger: forger.arrays("reference.npz", predict_a_golden_image_otherwise),
        "reference",
        "disagree on the class",
    ),
    of_claim("a module named numpy beside predict.py", a_module_beside, "files", "could be loaded"),
    of_file("predict.py edited", "predict.py", lambda data: data + b"import os\n", "card", "--allow-predict"),
    of_claim(
        "golden logits edited",
        lambda forger: forger.arrays("golden.npz", lambda a: a.update(logits=a["logits"] * (1 + 1e-11))),
        "proof",
        "in float64 its logits differ by",
    ),
    of_file(
        "the card's accuracy edited",
        "README.md",
        lambda data: data.replace(b"value: 0.", b"value: 0.9", 1),
        "card",
        "claims something else",
        new_card=False,
    ),
]

PASSING = [
    of_graph("an unused node", unused_node, NOTHING, "no behaviour can show it"),
    of_graph("a renamed node", rename_node, NOTHING, "no behaviour can show it"),
    of_claim(
        "a back door, and its constants in the proof",
        proven_anew(back_door),
        NOTHING,
        "no image has the mark, and the proof in the manifest is the forger's",
    ),
    of_claim(
        "another network, with its proof and its golden logits",
        golden_anew,
        NOTHING,
        "a forgery of weights, logits and hashes together, as verify says itself",
    ),
    of_claim(
        "another architecture claimed, in manifest, metadata and card",
        restated(arch=lambda _: "resnet110"),
        NOTHING,
        "the graph computes what is claimed; its name is the forger's word",
    ),
]


@pytest.fixture
def forger(colour: Colour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Forger:
    monkeypatch.setenv("XDG_CACHE_HOME", str(colour.images.parent / "cache"))
    return Forger(Path(shutil.copytree(colour.bundle, tmp_path / colour.bundle.name)), colour.images)


def verified(forger: Forger, rescore: bool, quick: bool = False) -> list[Check]:
    folder = str(forger.images) if forger.images else None
    return verify_bundle(forger.path, rescore=rescore, quick=quick, folder=folder)


def caught(forger: Forger, mutant: Mutant, rows: list[str]) -> None:
    with pytest.raises(CheckError) as refused:
        verified(forger, mutant.rescore, quick=mutant.quick)
    said = str(refused.value).replace(f"{forger.path}{os.sep}", "")
    by = f"`{refused.value.check}`" + " with --rescore" * mutant.rescore + " with --quick" * mutant.quick
    rows.append(f"| {mutant.name} | {by} | {said} |")
    assert refused.value.check == mutant.check, said
    assert mutant.word in said
    assert refused.value.code in (3, 4)
    assert "\n" not in said


def test_a_bundle_signed_anew_without_a_change_is_verified(forger: Forger) -> None:
    forger.graph(lambda model: None)
    forger.restate()
    forger.sign()
    seen = {check.name: check.detail for check in verified(forger, rescore=True)}
    assert list(seen) == ["hashes", "manifest", "card", "confined", "graph", "proof", "golden", "reference", "rescore"]
    assert "edited" not in str(seen)


@pytest.mark.parametrize("mutant", CAUGHT, ids=lambda mutant: mutant.name)
def test_the_check_that_understands_the_fault_catches_it(mutant: Mutant, forger: Forger, mutants: list[str]) -> None:
    mutant.apply(forger)
    forger.sign(mutant.new_card)
    caught(forger, mutant, mutants)


@pytest.mark.parametrize(
    "mutant", [mutant for mutant in CAUGHT if mutant.rescore], ids=lambda mutant: f"{mutant.name}, not scored again"
)
def test_what_only_the_test_images_show_is_not_seen_without_them(mutant: Mutant, forger: Forger) -> None:
    mutant.apply(forger)
    forger.sign(mutant.new_card)
    verified(forger, rescore=False)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", PASSING, ids=lambda mutant: mutant.name)
def test_what_no_behaviour_shows_passes_and_is_named(mutant: Mutant, forger: Forger, mutants: list[str]) -> None:
    before = (forger.path / "model.onnx").read_bytes()
    mutant.apply(forger)
    forger.sign()
    assert (forger.path / "model.onnx").read_bytes() != before
    verified(forger, rescore=True)
    mutants.append(f"| {mutant.name} | nothing, and --rescore neither | verified: {mutant.word} |")


@pytest.mark.parametrize(
    ("kind", "marked", "check", "word"),
    [
        (Functional, True, "graph", "is in training mode"),
        (Functional, False, "proof", "which the proof names"),
        pytest.param(Spelled, False, "proof", "which the proof names", marks=pytest.mark.slow),
    ],
    ids=["a node in training mode", "a node that is given the batch's statistics", "in plain operators"],
)
def test_batch_norm_left_in_training_mode_is_caught(
    kind: type[Functional],
    marked: bool,
    check: str,
    word: str,
    forger: Forger,
    in_training: Callable[[type], Graph],
    mutants: list[str],
    request: pytest.FixtureRequest,
) -> None:
    forger.graph(lambda _: in_training(kind))
    if marked:
        forger.graph(in_training_mode)
    forger.restate()
    forger.sign()
    how = request.node.callspec.id
    caught(forger, Mutant(f"batch norm in training mode: {how}", lambda _: None, check, word), mutants)


@pytest.mark.slow
def test_another_variants_file_is_caught(three: Path, tmp_path: Path, mutants: list[str]) -> None:
    """The float16 file in the place of the float32 one, and the other way round."""
    swapped_files = {"model.onnx": "model_fp16.onnx", "model_fp16.onnx": "model.onnx"}
    for file, other in swapped_files.items():
        precision = "fp32" if file == "model.onnx" else "fp16"
        for restate, check in ((False, "graph"), (True, "proof" if precision == "fp32" else "lower")):
            forger = Forger(Path(shutil.copytree(three, tmp_path / f"{precision}{restate}")))
            shutil.copyfile(three / other, forger.path / file)
            if restate:
                forger.restate(precision)
            forger.sign()
            name = f"{other} in the place of {file}" + ", metadata made to fit" * restate
            word = {"graph": "disagree on precision", "proof": "the proof", "lower": "none of its constants is"}[check]
            caught(forger, Mutant(name, lambda _: None, check, word), mutants)


def test_another_network_of_lower_precision_is_caught_whatever_error_is_claimed(
    three: Path, tmp_path: Path, mutants: list[str]
) -> None:
    forger = Forger(Path(shutil.copytree(three, tmp_path / "other")))
    other_half(forger)
    forger.sign()
    name = "another network in float16, errors and budget made to fit"
    caught(forger, Mutant(name, other_half, "lower", "not the nearest half"), mutants)


def test_each_pass_of_lower_precision_is_scored_again_at_its_own_level(
    three: Path, tmp_path: Path, mutants: list[str]
) -> None:
    """Kernels of a processor may saturate with optimisations on, and not off: each claim is compared with its own."""
    forger = Forger(Path(shutil.copytree(three, tmp_path / "level")))
    fp32, fp16, int8 = forger.manifest.variants
    on, off = fp16.passes
    off = records.replace(off, correct=off.correct - 15, rounding_flips=off.rounding_flips + 15)
    reference = forger.manifest.reference
    lost = 100 * (reference.correct - off.correct) / reference.images
    forger.claim(variants=(fp32, records.replace(fp16, passes=(on, off), test_lost_points=lost), int8))
    forger.sign()
    verify_bundle(forger.path)
    name = "accuracy of float16 with optimisations off, 15 images lower"
    caught(forger, Mutant(name, lambda _: None, "rescore", "with graph optimisations off", rescore=True), mutants)


def test_prose_that_was_edited_is_noted(forger: Forger, mutants: list[str]) -> None:
    forger.file("README.md", lambda data: data + b"It is 99.99 % right.\n")
    forger.sign(new_card=False)
    seen = next(check.detail for check in verified(forger, rescore=False) if check.name == "card")
    assert "its text is of another version or edited" in seen
    mutants.append(f"| the text of the card edited | a note of `card` | {seen} |")


def test_a_task_that_leads_out_of_its_folder_is_refused_before_any_check(
    forger: Forger, mutants: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("cnnbench.records.schema.check_name", lambda name: name)
        forger.claim(task="..")
        forger.sign()
    with pytest.raises(CnnbenchError, match=r"the task's name is '\.\.'") as refused:
        verify_bundle(forger.path)
    assert refused.value.code == Exit.DATA
    said = str(refused.value).replace(f"{forger.path}{os.sep}", "")
    mutants.append(f"| a task that leads out of its folder | reading the manifest | {said} |")


def test_edits_that_nobody_signed_are_caught_by_their_hash(forger: Forger, mutants: list[str]) -> None:
    forger.graph(unused_node)
    caught(forger, Mutant("any file edited, nothing signed anew", lambda _: None, "hashes", "was edited"), mutants)


@pytest.mark.slow
def test_a_weight_changed_by_one_unit_shows_in_the_golden_logits(colour: Colour, mutants: list[str]) -> None:
    """50 weights drawn from all layers, each in proportion to its size, changed one at a time; the proof made to fit.

    What does not show cannot: a ReLU behind it is closed on every golden image, or a larger value is beside it.
    """
    model = onnx.load(colour.bundle / "model.onnx")
    proof = records.read(colour.bundle / "manifest.json", Manifest).proof
    literals, parameters = weights.by_rounding(proof.literals), weights.of_parameters(proof.constants)
    with np.load(colour.bundle / "golden.npz") as golden:
        images, expected = golden["pixels"], golden["logits"]
    largest = np.abs(expected).max()

    def shows() -> bool:
        logits = exact.InFloat64(model, literals=literals, parameters=parameters).logits(images)
        return bool(np.abs(logits - expected).max() > EXACT * largest)

    assert not shows()
    random, tensors = np.random.RandomState(0), layers(model)
    sizes = np.array([np.prod(tensor.dims) for tensor in tensors])
    found = 0
    for tensor in (tensors[index] for index in random.choice(len(tensors), 50, p=sizes / sizes.sum())):
        kept = onnx.TensorProto.FromString(tensor.SerializeToString())
        place = random.randint(np.prod(tensor.dims))
        edit_tensor(
            tensor, lambda values, place=place: values.put(place, np.nextafter(values.flat[place], np.float32(9)))
        )
        found += shows()
        tensor.CopyFrom(kept)
    mutants.append(
        f"Of 50 weights drawn at random and changed by one unit in the last place, one at a time, {found} "
        f"({2 * found} %) move a golden logit by more than {EXACT:g} of the largest. A hash in the proof shows all."
    )
    assert found >= 40


def test_the_metadata_hold_what_the_manifest_claims(colour: Colour) -> None:
    """Else `restate` would prove nothing."""
    said = {item.key: item.value for item in onnx.load(colour.bundle / "model.onnx").metadata_props}
    assert json.loads(said["class_names"]) == [*records.read(colour.bundle / "manifest.json", Manifest).class_names]
