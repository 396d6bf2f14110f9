"""An untrusted file, however it is made, gives an answer in one line: the calling process never goes down with it."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import sandboxed
from export_helpers import Forger, Graph
from onnx import TensorProto, helper, numpy_helper

from cnnbench import records
from cnnbench.bundles import answers, contract, verify
from cnnbench.bundles.evidence import CheckError
from cnnbench.bundles.parity import child
from cnnbench.records.bundle import Manifest
from cnnbench.runtime import sandbox
from cnnbench.types import CnnbenchError, Exit

ANSWERS = (Exit.DATA, Exit.VERDICT)


@pytest.fixture
def mine(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / bundle.name))


def refused(bundle: Path, *codes: Exit) -> str:
    """The message of `verify_bundle` for the bundle, signed anew with the model that lies there now."""
    Forger(bundle).sign()
    with pytest.raises(CheckError) as caught:
        verify.verify_bundle(bundle)
    assert caught.value.check == "graph"
    assert caught.value.code in (codes or ANSWERS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- many files in one process ----------------------------------------------------------------------------------------


def flipped(data: bytearray, random: np.random.RandomState) -> bytearray:
    for _ in range(random.randint(1, 9)):
        data[random.randint(len(data))] = random.randint(256)
    return data


def flipped_where_it_matters(data: bytearray, random: np.random.RandomState) -> bytearray:
    """In the nodes, not in the weights: they lie first."""
    for _ in range(random.randint(1, 4)):
        data[random.randint(2000)] ^= 1 << random.randint(8)
    return data


def cut(data: bytearray, random: np.random.RandomState) -> bytearray:
    return data[: random.randint(len(data))]


def left_out(data: bytearray, random: np.random.RandomState) -> bytearray:
    start = random.randint(len(data))
    return data[:start] + data[start + random.randint(1, 64) :]


def inserted(data: bytearray, random: np.random.RandomState) -> bytearray:
    start = random.randint(4000)
    return data[:start] + random.bytes(random.randint(1, 64)) + data[start:]


def repeated(data: bytearray, random: np.random.RandomState) -> bytearray:
    start = random.randint(4000)
    return data[: start + 40] + data[start:]


DAMAGES = (flipped, flipped_where_it_matters, cut, left_out, inserted, repeated)


class Damaged(msgspec.Struct):
    """Files of a bundle to examine, damaged by `count` seeds from `first`."""

    bundle: str
    first: int
    count: int


def examine_many(request: Damaged) -> dict[str, int]:
    """How many of the damaged files got each answer. In a child: a crash is that of all."""
    bundle = Path(request.bundle)
    manifest = records.read(bundle / "manifest.json", Manifest)
    good = (bundle / "model.onnx").read_bytes()
    with np.load(bundle / "golden.npz") as golden:
        np.save("images.npy", golden["pixels"])
    examination = child.Examination(
        model="stranger.onnx",
        contract=manifest.contract,
        metadata=contract.manifest_metadata(manifest, "fp32"),
        provider="cpu",
        images="images.npy",
        passes=(child.PassRequest(level="on", sizes={16: 16}, profile=False),),
        out=".",
    )
    answers: dict[str, int] = {}
    for seed in range(request.first, request.first + request.count):
        random = np.random.RandomState(seed)
        Path("stranger.onnx").write_bytes(DAMAGES[seed % len(DAMAGES)](bytearray(good), random))
        try:
            child.examine(examination)
            answer = "ran"
        except CnnbenchError as error:
            answer = error.code.name if "\n" not in str(error) else "of several lines"
        answers[answer] = answers.get(answer, 0) + 1
    return answers


@pytest.mark.slow
def test_damaged_files_get_an_answer(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """120 of them. Where one kills the child, that is an answer too, and the others go on in a new one."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    total: dict[str, int] = {}
    for first in range(0, 120, 60):
        try:
            answers = sandbox.call(
                examine_many, Damaged(str(bundle), first, 60), about="a file", reads=[bundle], seconds=120
            )
        except CnnbenchError:
            answers = {"crashed": 60}
        for answer, count in answers.items():
            total[answer] = total.get(answer, 0) + count
    assert sum(total.values()) == 120
    assert total["DATA"] > 20  # what no longer parses
    assert total["VERDICT"] > 4  # what parses and breaks the contract
    assert {*total} <= {"DATA", "VERDICT", "ran", "crashed"}


@pytest.mark.parametrize("damage", [cut, left_out, inserted, repeated])
def test_a_damaged_file_in_a_bundle_is_refused(
    damage: Callable[[bytearray, np.random.RandomState], bytearray], mine: Path
) -> None:
    data = bytearray((mine / "model.onnx").read_bytes())
    (mine / "model.onnx").write_bytes(damage(data, np.random.RandomState(3)))
    refused(mine)


# --- files made on purpose --------------------------------------------------------------------------------------------


def edit(bundle: Path, change: Callable[[Graph], None]) -> None:
    model = onnx.load(bundle / "model.onnx")
    change(model)
    (bundle / "model.onnx").write_bytes(model.SerializeToString())


def constants(model: Graph, **values: Any) -> None:
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in values.items())


def looping(model: Graph) -> None:
    """A Loop that runs 2 ** 62 times before the last layer."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Add", ["x", "x"], ["twice"])],
        "body",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("twice", TensorProto.FLOAT, None),
        ],
    )
    constants(model, times=np.int64(2**62), go=np.bool_(True))
    last = model.graph.node[-1]
    model.graph.node.insert(
        len(model.graph.node) - 1, helper.make_node("Loop", ["times", "go", last.input[0]], ["looped"], body=body)
    )
    last.input[0] = "looped"


def test_a_file_that_runs_for_ever_is_stopped(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the manifest claims that the network itself has loops; else a loop is refused before it runs."""
    edit(mine, looping)
    assert "(Loop) is a branch or a loop" in refused(mine, Exit.VERDICT)
    monkeypatch.setattr(answers, "SECONDS", 1.5)
    forger = Forger(mine)
    forger.claim(proof=records.replace(forger.manifest.proof, control_flow=True))
    forger.sign()
    assert "was stopped: it ran for more than 1.5 s" in refused(mine, Exit.DATA)


def enormous(model: Graph) -> None:
    """2 ** 40 floats, their sum added to what the last layer reads."""
    constants(model, much=np.array([2**20, 2**20], np.int64), zero=np.float32(0))
    last = model.graph.node[-1]
    nodes = [
        helper.make_node("Expand", ["zero", "much"], ["wide"]),
        helper.make_node("ReduceMean", ["wide"], ["mean"], keepdims=0),
        helper.make_node("Add", [last.input[0], "mean"], ["more"]),
    ]
    for node in nodes:
        model.graph.node.insert(len(model.graph.node) - 1, node)
    last.input[0] = "more"


def test_a_file_that_asks_for_all_memory_is_refused(mine: Path) -> None:
    edit(mine, enormous)
    refused(mine)


def nested(depth: int) -> bytes:
    """An If within an If within an If, as bytes: protobuf's own writer refuses to go as deep."""

    def field(number: int, content: bytes) -> bytes:
        size, length = b"", len(content)
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + content

    inner = b""
    for _ in range(depth):  # GraphProto.node.attribute.g
        inner = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, inner)))
    return field(7, inner)


@pytest.mark.parametrize("depth", [20, 3_000])
def test_a_deep_nesting_is_refused(depth: int, mine: Path) -> None:
    (mine / "model.onnx").write_bytes(nested(depth))
    refused(mine)


def huge_shape(model: Graph) -> None:
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend([2**40, 2**40])


def negative_shape(model: Graph) -> None:
    model.graph.initializer[0].dims[0] = -1


def cyclic(model: Graph) -> None:
    model.graph.node[0].input[0] = model.graph.node[-2].output[0]


def twice(model: Graph) -> None:
    model.graph.node.append(model.graph.node[-1])


def no_graph(model: Graph) -> None:
    model.ClearField("graph")


def nameless(model: Graph) -> None:
    model.graph.input[0].type.Clear()


@pytest.mark.parametrize("change", [huge_shape, negative_shape, cyclic, twice, no_graph, nameless])
def test_a_graph_that_makes_no_sense_is_refused(change: Callable[[Graph], None], mine: Path) -> None:
    edit(mine, change)
    refused(mine)


@pytest.mark.parametrize("data", [b"", bytes(1000), b"\xff" * 1000, b"PK\x03\x04", b"\x08" * 100_000])
def test_bytes_that_are_no_model_are_refused(data: bytes, mine: Path) -> None:
    (mine / "model.onnx").write_bytes(data)
    refused(mine)


def test_a_file_that_crashes_its_reader_is_refused(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a hole in a parser would."""
    monkeypatch.setenv("PYTHONPATH", str(Path(sandboxed.__file__).parent))
    honest = sandbox.call
    monkeypatch.setattr(sandbox, "call", lambda _, *rest, **more: honest(sandboxed.segfault, *rest, **more))
    assert "crashed the process that read it (SIGSEGV)" in refused(mine, Exit.DATA)


def test_a_file_too_large_for_protobuf_is_refused_before_it_is_read(mine: Path) -> None:
    with (mine / "model.onnx").open("r+b") as file:
        file.truncate(2**31)  # sparse: it takes no room
    with pytest.raises(CnnbenchError, match="has 2,147,483,648 bytes") as caught:
        contract.read(mine / "model.onnx")
    assert caught.value.code == Exit.DATA
