"""Mutants whose model.onnx must not be followed, run or believed: hostile as a file or as a graph."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from export_helpers import Forger, Graph
from mutants_network import before_last, layers
from mutations import of_claim, of_file, of_graph
from onnx import TensorProto, helper, numpy_helper


def constants(model: Graph, **values: Any) -> None:
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in values.items())


# --- what the contract refuses ----------------------------------------------------------------------------------------


def fix_batch(model: Graph) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 24


def fix_batch_inside(model: Graph) -> None:
    """The contract says that it is free, but within the graph it is the number of golden images."""
    constants(model, shape=np.array([24, -1], np.int64))
    before_last(model, helper.make_node("Reshape", ["", "shape"], ["changed"], "reshape"))


def foreign_operator(declared: bool, model: Graph) -> None:
    before_last(model, helper.make_node("Gelu", [""], ["changed"], "gelu", domain="com.microsoft"))
    if declared:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def own_function(model: Graph) -> None:
    body = [helper.make_node("Identity", ["a"], ["b"])]
    model.functions.append(helper.make_function("", "Mine", ["a"], ["b"], body, [helper.make_opsetid("", 18)]))


def training_step(model: Graph) -> None:
    model.training_info.add().algorithm.CopyFrom(model.graph)


def second_output(model: Graph) -> None:
    model.graph.output.append(helper.make_tensor_sequence_value_info("sequence", TensorProto.FLOAT, None))
    model.graph.node.append(helper.make_node("SequenceConstruct", ["logits"], ["sequence"]))


def weight_as_input(model: Graph) -> None:
    weight = layers(model)[0]
    model.graph.input.append(helper.make_tensor_value_info(weight.name, TensorProto.FLOAT, list(weight.dims)))


def looping(model: Graph) -> None:
    """A Loop of no step on the way to the last layer."""
    values = {"index": (TensorProto.INT64, []), "on": (TensorProto.BOOL, []), "x": (TensorProto.FLOAT, None)}
    nodes = [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Identity", ["x"], ["same"])]
    body = helper.make_graph(
        nodes,
        "body",
        [helper.make_tensor_value_info(name, *kind) for name, kind in values.items()],
        [helper.make_tensor_value_info(name, *values[of]) for name, of in (("still", "on"), ("same", "x"))],
    )
    constants(model, times=np.int64(2**62), go=np.bool_(True))
    loop = helper.make_node("Loop", ["times", "go", model.graph.node[-1].input[0]], ["changed"], body=body)
    model.graph.node[-1].input[0] = "changed"
    model.graph.node.insert(len(model.graph.node) - 1, loop)


# --- constants --------------------------------------------------------------------------------------------------------


def external(place: str, model: Graph) -> None:
    tensor = layers(model)[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)


def external_by_a_link(forger: Forger) -> None:
    (forger.path / "weights").symlink_to("/etc/passwd")
    forger.graph(partial(external, "weights"))


def in_place_of_the_input(model: Graph) -> None:
    constants(model, pixels=np.zeros((1, 32, 32, 3), np.uint8))


def twice(model: Graph) -> None:
    """Two initializers of one name; readers take the first or the last."""
    first = model.graph.initializer[0]
    model.graph.initializer.append(numpy_helper.from_array(2 * numpy_helper.to_array(first), first.name))


def shaped(dims: list[int], model: Graph) -> None:
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend(dims)


def sparse(model: Graph) -> None:
    """A constant that is 40 GB where it is made dense, in 16 bytes, that adds nothing to the logits."""
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("sparse_places", TensorProto.INT64, [1], [3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [100_000, 100_000]))
    model.graph.node[-1].output[0] = "honest"
    model.graph.node.append(helper.make_node("ReduceMin", ["sparse"], ["nothing"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", ["honest", "nothing"], ["logits"]))


def text(model: Graph) -> None:
    constants(model, words=np.array(["a", "b"], object))


def text_of_a_node(model: Graph) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["words"], value_strings=[b"\xff\xfe" * 10] * 1000))


# --- size and time ----------------------------------------------------------------------------------------------------

MUCH = "x" * (100 * 2**20)


def idle_nodes(model: Graph) -> None:
    names = [f"idle{index}" for index in range(100_000)]
    model.graph.node[-1].output[0] = names[0]
    for taken, given in zip(names, [*names[1:], "logits"], strict=True):
        model.graph.node.append(helper.make_node("Identity", [taken], [given]))


def in_a_circle(model: Graph) -> None:
    model.graph.node[0].input[0] = model.graph.node[-2].output[0]


def more_metadata(value: str, model: Graph) -> None:
    model.metadata_props.add(key="k", value=value)


def large_at(size: int, side: int, products: int, model: Graph) -> None:
    """At one batch size, products of zeros of `side` x `side` that are added to the logits; else of one number."""
    model.graph.node[-1].output[0] = "honest"
    more = {"more": np.array([side], np.int64), "size": np.array([size], np.int64)}
    constants(model, one=np.array([1], np.int64), zero=np.int64(0), **more)
    nodes = [
        helper.make_node("Shape", ["pixels"], ["count"], start=0, end=1),
        helper.make_node("Equal", ["count", "size"], ["hit"]),
        helper.make_node("Where", ["hit", "more", "one"], ["side"]),
        helper.make_node("Concat", ["side", "side"], ["square"], axis=0),
        helper.make_node("Cast", ["zero"], ["nothing"], to=TensorProto.FLOAT),
        helper.make_node("Expand", ["nothing", "square"], ["product0"]),
    ]
    for index in range(products):
        factor = f"product{index}"
        nodes.append(helper.make_node("MatMul", [factor, factor], [f"product{index + 1}"]))
    nodes.append(helper.make_node("ReduceMax", [f"product{products}"], ["largest"], keepdims=0))
    nodes.append(helper.make_node("Add", ["honest", "largest"], ["logits"]))
    model.graph.node.extend(nodes)


# --- the bytes of the file --------------------------------------------------------------------------------------------


def unknown_field(data: bytes) -> bytes:
    """Field 2000, of length 7: protobuf keeps what it does not know."""
    return data + b"\x82\x7d\x07payload"


def hidden_in_a_node(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    node = onnx.NodeProto.FromString(model.graph.node[0].SerializeToString() + b"\x82\x7d\x07payload")
    model.graph.node[0].CopyFrom(node)
    assert b"payload" in model.SerializeToString()
    return model.SerializeToString()


def not_utf8(data: bytes) -> bytes:
    """The name of an attribute as bytes that are no text."""
    model = onnx.load_model_from_string(data)
    next(node for node in model.graph.node if node.attribute).attribute[0].name = "a mark to find"
    return model.SerializeToString().replace(b"a mark to find", b"a mark to \xff\xfe\xff\xfe")


def in_two_formats(data: bytes) -> bytes:
    """An ONNX file whose bytes are one of ONNX Runtime's own format, too, of a graph that negates the logits.

    That format is a FlatBuffer: the place of its first table in 4 bytes, then "ORTM". Here these are ir_version 8 and
    the beginning of producer_name, "ORTM". The tables are the values of a constant that nothing uses, 68 MB behind.
    """
    model, other, mark = onnx.load_model_from_string(data), _in_own_format(data), b"a mark to find the place"
    model.producer_name = "ORTM"
    place = int.from_bytes(model.SerializeToString()[:4], "little")
    tables, first = _behind_a_first_table(other)
    start = place - first
    both = b""
    for content, where in ((mark, 0), (tables, start)):
        begins = max(both.find(mark), 0)
        values = np.zeros(start + len(tables) - begins, np.uint8)
        values[max(where - begins, 0) :][: len(content)] = np.frombuffer(content, np.uint8)
        model.graph.initializer.append(numpy_helper.from_array(values, "unused"))
        both = model.SerializeToString()
        del model.graph.initializer[-1]
    pixels = {"pixels": np.zeros((1, 32, 32, 3), np.uint8)}
    one, other_one = (onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]) for each in (data, both))
    assert np.allclose(one.run(None, pixels)[0], -other_one.run(None, pixels)[0], atol=1e-4)
    return both


def _behind_a_first_table(buffer: bytes) -> tuple[bytes, int]:
    """A FlatBuffer behind a copy of its first table, and where in these bytes that lies.

    8 bytes behind a multiple of 16 it leaves all others at multiples of 16, where the format wants them. The fields of
    the table are all distances to other tables.
    """
    (root,) = struct.unpack_from("<I", buffer)
    layout = root - struct.unpack_from("<i", buffer, root)[0]
    size, width = struct.unpack_from("<HH", buffer, layout)
    table, further = root - layout, 8 + 16 * width
    head = bytearray(buffer[layout : root + width]).ljust(table + further, b"\0")
    for (offset,) in struct.iter_unpack("<H", buffer[layout + 4 : layout + size]):
        if offset:
            (distance,) = struct.unpack_from("<I", head, table + offset)
            struct.pack_into("<I", head, table + offset, distance + root + further)
    return bytes(head) + buffer, table


def _in_own_format(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    model.graph.node[-1].output[0] = "honest"
    model.graph.node.append(helper.make_node("Neg", ["honest"], ["logits"]))
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = f"{folder}/model.ort"
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Path(folder, "model.ort").read_bytes()


def set_to(where: Callable[[Graph], Any], **values: Any) -> Callable[[Graph], None]:
    """A change of a part of the model."""

    def change(model: Graph) -> None:
        for name, value in values.items():
            setattr(where(model), name, value)

    return change


ONNX = "model.onnx"
CAUGHT = [
    of_graph("the batch fixed", fix_batch, "graph", "not the contract's"),
    of_graph("the batch fixed inside, at the number of golden images", fix_batch_inside, "graph", "with a batch of "),
    of_graph("a second output, of a sequence", second_output, "graph", "not the contract's"),
    of_graph("a weight that is an input, too", weight_as_input, "graph", "instead of its input"),
    of_graph("an operator of another domain", partial(foreign_operator, True), "graph", "com.microsoft"),
    of_graph("the same, its domain not declared", partial(foreign_operator, False), "graph", "com.microsoft"),
    of_graph("an operator of its own", own_function, "graph", "functions"),
    of_graph("a training step", training_step, "graph", "training steps"),
    of_graph("a loop that the network does not have", looping, "graph", "is a branch or a loop"),
    of_graph("weights outside the folder", partial(external, "../../weights"), "graph", "lie in ../../weights"),
    of_graph("weights at an absolute path", partial(external, "/etc/passwd"), "graph", "lie in /etc/passwd"),
    of_claim("weights behind a link in the folder", external_by_a_link, "files", "a link", sign=False),
    of_graph("a constant with the input's name", in_place_of_the_input, "graph", "instead of its input pixels"),
    of_graph("two constants with one name", twice, "graph", "not unique"),
    of_graph("a constant of 2^62 numbers", partial(shaped, [2**40, 2**22]), "graph", "too large"),
    of_graph("a constant of 2^64 numbers", partial(shaped, [2**32, 2**32]), "graph", "overflow"),
    of_graph("a constant of -1 rows", partial(shaped, [-1, 3]), "graph", "Negative"),
    of_graph("a sparse constant of 40 GB", sparse, "graph", "sparse"),
    of_graph("a constant of text", text, "graph", "is text"),
    of_graph("a node that gives text", text_of_a_node, "graph", "is text"),
    of_graph("nodes in a circle", in_a_circle, "graph", "topologically sorted"),
    of_graph("100,000 nodes", idle_nodes, "graph", "100,0"),
    of_graph("a comment of 100 MiB", set_to(lambda m: m.graph, doc_string=MUCH), "graph", "beside its constants"),
    of_graph(
        "a comment of 100 MiB of a node", set_to(lambda m: m.graph.node[0], doc_string=MUCH), "graph", "beside its"
    ),
    of_graph("100 MiB of metadata", partial(more_metadata, MUCH), "graph", "beside its"),
    of_graph("metadata that no manifest states", partial(more_metadata, ""), "graph", "on k"),
    of_graph("a matrix of 40 GB at batch 64", partial(large_at, 64, 100_000, 1), "graph", "with a batch of 64"),
    of_graph(
        "minutes of matrix products at batch 64, and 8 seconds for all",
        partial(large_at, 64, 4000, 2000),
        "graph",
        "was stopped",
        timeout=8,
        slow=True,
    ),
    of_graph(
        "the same, and scored again",
        partial(large_at, 64, 4000, 2000),
        "graph",
        "was stopped",
        timeout=8,
        rescore=True,
        slow=True,
    ),
    of_graph(
        "minutes of matrix products at batch 5, which only the end of the test split fills, and 20 seconds for all",
        partial(large_at, 5, 4000, 2000),
        "rescore",
        "was stopped",
        timeout=20,
        rescore=True,
        slow=True,
    ),
    of_file("the file truncated", ONNX, lambda data: data[:-1000], "graph", "not a readable ONNX file"),
    of_file("bytes appended", ONNX, lambda data: data + bytes(8), "graph", "not a readable ONNX file"),
    of_file("a field appended", ONNX, unknown_field, "graph", "no part of its ONNX model"),
    of_file("a field hidden in a node", ONNX, hidden_in_a_node, "graph", "no part of its ONNX model"),
    of_file("a name that is no UTF-8", ONNX, not_utf8, "graph", "one of its names is not UTF-8 text"),
    of_file("a file that is one of ONNX Runtime's own format, too", ONNX, in_two_formats, "graph", "own format"),
]
