"""Mutants whose file is another network: its weights, its graph, its proof; and what no behaviour shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx
import torch
from export_helpers import Forger, Graph
from mutations import NOTHING, of_claim, of_graph
from onnx import TensorProto, helper, numpy_helper

from cnnbench import records
from cnnbench.architectures import build
from cnnbench.bundles import graph
from cnnbench.bundles.parity import exact, weights
from cnnbench.records.bundle import Constant

OTHER = "is not the one that the proof is of"


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


def before_last(model: Graph, *nodes: onnx.NodeProto) -> None:
    """`nodes` read `features` and write `changed`, which the last layer takes instead."""
    last = model.graph.node[-1]
    nodes[0].input[0] = last.input[0]
    last.input[0] = nodes[-1].output[0]
    for node in nodes:
        model.graph.node.insert(len(model.graph.node) - 1, node)


def other_weights(model: Graph) -> None:
    random = np.random.RandomState(0)
    for tensor in layers(model):
        edit_tensor(tensor, lambda v: (random.standard_normal(v.shape) * v.std()).astype(np.float32))


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


def another_architecture(forger: Forger) -> None:
    torch.manual_seed(0)
    network = build("linear", forger.manifest.spec)
    graph.save(graph.to_onnx(network, forger.manifest.spec, metadata={}).model, forger.path / "model.onnx")
    forger.restate()


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


def unused_integers(model: Graph) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(50_000_000, np.int8), "unused"))


def idle_nodes(model: Graph) -> None:
    names = [f"idle{index}" for index in range(10_000)]
    model.graph.node[-1].output[0] = names[0]
    for taken, given in zip(names, [*names[1:], "logits"], strict=True):
        model.graph.node.append(helper.make_node("Identity", [taken], [given]))


def through_a_sequence(model: Graph) -> None:
    before_last(
        model,
        helper.make_node("SequenceConstruct", [""], ["sequence"]),
        helper.make_node("ConcatFromSequence", ["sequence"], ["changed"], axis=0),
    )


def negated_at(size: int, model: Graph) -> None:
    """Logits less twice themselves where the batch has this size; by integers, so that no float constant is new."""
    model.graph.node[-1].output[0] = "honest"
    constants = {"size": np.array([size], np.int64), "one": np.int64(1), "two": np.int64(2)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["pixels"], ["count"], start=0, end=1),
            helper.make_node("Equal", ["count", "size"], ["hit"]),
            helper.make_node("Cast", ["hit"], ["once"], to=TensorProto.INT64),
            helper.make_node("Mul", ["once", "two"], ["twice"]),
            helper.make_node("Sub", ["one", "twice"], ["sign"]),
            helper.make_node("Cast", ["sign"], ["factor"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["honest", "factor"], ["logits"]),
        ]
    )


def negated_where(conditions: Sequence[str], model: Graph) -> None:
    """Logits negated where every one of some conditions holds.

    "not basic": no optimisation of that level merges the factors 1e30 and 1e-30 of a convolution, which overflows.
    "basic": its weights are merged, those of a matrix product, which the level above merges, are not. "alone": batch 1.
    """
    model.graph.node[-1].output[0] = "honest"
    numbers = {"zero": 0, "big": 1e10, "up": 1e30, "down": 1e-30, "limit": 1e20}
    constants = {name: np.array(value, np.float32) for name, value in numbers.items()}
    side = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    constants |= {"ones": np.full((1, side, 1, 1), 1e30, np.float32), "eye": np.eye(3, dtype=np.float32)}
    constants |= {"one": np.array([1], np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    steps = [
        ("Cast", ["pixels"], "float", {"to": TensorProto.FLOAT}),
        ("Mul", ["float", "zero"], "nothing", {}),
        ("Add", ["nothing", "big"], "x", {}),
        ("Conv", ["x", "ones"], "convolved", {"kernel_shape": [1, 1]}),
        ("Mul", ["convolved", "down"], "back", {}),
        ("ReduceMax", ["back"], "largest", {"keepdims": 0}),
        ("Less", ["largest", "limit"], "merged", {}),
        ("Not", ["merged"], "not basic", {}),
        ("Mul", ["x", "up"], "raised", {}),
        ("MatMul", ["raised", "eye"], "product", {}),
        ("Mul", ["product", "down"], "lowered", {}),
        ("ReduceMax", ["lowered"], "largest of all", {"keepdims": 0}),
        ("Less", ["largest of all", "limit"], "merged more", {}),
        ("Not", ["merged more"], "not extended", {}),
        ("And", ["merged", "not extended"], "basic", {}),
        ("Shape", ["pixels"], "count", {"start": 0, "end": 1}),
        ("Equal", ["count", "one"], "alone", {}),
        ("And", [conditions[0], conditions[-1]], "hit", {}),
        ("Neg", ["honest"], "negated", {}),
        ("Where", ["hit", "negated", "honest"], "logits", {}),
    ]
    model.graph.node.extend(
        helper.make_node(kind, inputs, [output], f"step{index}", **more)
        for index, (kind, inputs, output, more) in enumerate(steps)
    )


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
    of_graph("the same architecture, other weights", other_weights, "proof", OTHER),
    of_graph("the same, not evaluated in float64", other_weights, "proof", OTHER, quick=True),
    of_claim("another architecture's graph", another_architecture, "proof", "which the proof names"),
    *(
        of_graph(f"logits negated at batch {size}", partial(negated_at, size), "golden", "golden logits of model.onnx")
        for size in (1, 64)
    ),
    of_graph("logits negated at a batch size that is drawn", partial(negated_at, 150), "golden", "at batch 150, graph"),
    of_claim(
        "logits negated at optimisation level basic, and the constants for it in the proof",
        proven_anew(partial(negated_where, ["basic"])),
        "golden",
        "graph optimisations basic",
    ),
    of_claim(
        "logits negated without optimisations at batch 1, and the constants for it in the proof",
        proven_anew(partial(negated_where, ["not basic", "alone"])),
        "golden",
        "at batch 1, graph optimisations off",
    ),
    of_graph(
        "logits negated at batch 5, which only the end of the test split fills",
        partial(negated_at, 5),
        "rescore",
        "answers otherwise at batch 65",
        rescore=True,
    ),
]

PASSING = [
    of_graph("an unused node", unused_node, NOTHING, "no behaviour can show it"),
    of_graph("a renamed node", rename_node, NOTHING, "no behaviour can show it"),
    of_graph(
        "a constant of 50 million integers that nothing uses", unused_integers, NOTHING, "no behaviour can show it"
    ),
    of_graph("10,000 nodes that do nothing", idle_nodes, NOTHING, "it computes the same, more slowly"),
    of_graph("a sequence on the way to the last layer", through_a_sequence, NOTHING, "it computes the same"),
    of_graph(
        "logits negated at batch 301",
        partial(negated_at, 301),
        NOTHING,
        "no batch of more than 300 images is run, as verify says itself",
    ),
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
]
