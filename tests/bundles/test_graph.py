"""The exported file: what it holds, what it never holds, and that it computes what PyTorch computes."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import small_networks
import torch
from export_helpers import exact_logits
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from zoo import heavy

import cnnbench
from cnnbench.architectures import architecture, build
from cnnbench.bundles import contract, graph
from cnnbench.bundles.parity import comparison
from cnnbench.bundles.parity.reference import torch_logits
from cnnbench.pixels import to_graph_input
from cnnbench.runtime.providers import LEVELS, open_session
from cnnbench.types import CnnbenchError, Exit, ImageSpec

SPEC = ImageSpec(28, 28, 1, num_classes=10, mean=(0.1314,), std=(0.3086,))
IMAGES = np.random.RandomState(0).randint(0, 256, size=(16, 28, 28, 1), dtype=np.uint8)
METADATA = {"architecture": "tested", "class_names": '["a", "b"]'}
PLACES = [Path.home(), Path.cwd(), sys.prefix, Path(cnnbench.__file__).parents[1], "site-packages"]

Make = Callable[[Path], None]

kinds = pytest.mark.parametrize("kind", get_args(contract.InputKind))


@dataclass
class Written:
    name: str
    network: nn.Module
    model: onnx.ModelProto
    path: Path


def untrained(arch: str) -> nn.Module:
    """A network whose batch norms do something: fresh ones are the identity, which folding could not get wrong."""
    torch.manual_seed(0)
    network = build(arch, SPEC)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
    return network


FAST = ("linear", "lenet5")
"""A layer, and convolutions; test_mutants.py exports batch norm and joined branches."""
architectures = [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in architecture]


@pytest.fixture(scope="module", params=architectures)
def exported(request: pytest.FixtureRequest, once: Callable[[str, Make], Path]) -> Written:
    network = untrained(request.param)

    def make(folder: Path) -> None:
        graph.save(graph.to_onnx(network.train(), SPEC, metadata=METADATA).model, folder / "model.onnx")

    path = once(f"graph_{request.param}", make) / "model.onnx"
    return Written(request.param, network, onnx.load(path), path)


def bound(network: nn.Module, reference: np.ndarray) -> float:
    """The error bound that a bundle of `IMAGES` would state."""
    error = np.abs(reference - exact_logits(network, IMAGES)).max()
    return comparison.error_bound(float(error), float(np.abs(reference).max()))


def test_the_file_is_valid_onnx_and_needs_no_other_file(exported: Written) -> None:
    onnx.checker.check_model(str(exported.path), full_check=True)
    assert list(exported.path.parent.iterdir()) == [exported.path]
    assert all(t.data_location != TensorProto.EXTERNAL for t in exported.model.graph.initializer)


def test_it_is_of_opset_18_and_ir_version_8(exported: Written) -> None:
    stored = onnx.load(exported.path)
    assert [(item.domain, item.version) for item in stored.opset_import] == [("", 18)]
    assert stored.ir_version == 8
    assert helper.find_min_ir_version_for([helper.make_opsetid("", 18)]) == 8  # none older knows the opset


def test_a_reshape_to_a_constant_shape_has_no_allowzero() -> None:
    """`allowzero` matters where the shape has a zero; onnx2torch reads no file with it."""
    model = graph.to_onnx(build("lenet5", SPEC), SPEC, metadata={}).model
    reshapes = [node for node in model.graph.node if node.op_type == "Reshape"]
    assert [[attribute.name for attribute in node.attribute] for node in reshapes] == [[]]


def test_it_takes_decoded_images_of_any_number_and_returns_logits(exported: Written) -> None:
    session = open_session(exported.path, threads=1)
    (pixels,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (pixels.name, pixels.type, pixels.shape) == ("pixels", "tensor(uint8)", ["batch", 28, 28, 1])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 10])


def test_nothing_of_the_machine_that_exported_it_is_in_the_file(exported: Written) -> None:
    content = exported.path.read_bytes()
    assert [place for place in PLACES if str(place).encode() in content] == []
    assert not any(node.metadata_props or node.doc_string for node in exported.model.graph.node)
    assert {item.key: item.value for item in exported.model.metadata_props} == METADATA
    assert (exported.model.producer_name, exported.model.producer_version) == ("cnnbench", "")


def test_it_is_in_inference_mode_although_the_network_was_not(exported: Written) -> None:
    kinds = {node.op_type for node in exported.model.graph.node}
    assert not kinds & {"Dropout", "BatchNormalization"}  # batch norm is folded into the convolution before it


def test_onnx_runtime_is_within_half_the_error_bound_of_pytorch(exported: Written) -> None:
    reference = torch_logits(exported.network, IMAGES)
    allowed = bound(exported.network, reference) / 2
    for level in LEVELS[:2]:
        session = open_session(exported.path, threads=1, level=level)

        def logits(pixels: np.ndarray, session: object = session) -> np.ndarray:
            return session.run(["logits"], {"pixels": pixels})[0]

        for size in (1, 7, 16) if level == "on" and not heavy(exported.name) else (16,):
            error = comparison.errors(reference, comparison.batched(logits, IMAGES, size=size)).max_abs_error
            assert error <= allowed, (level, size)


@pytest.mark.parametrize(
    "exported",
    [pytest.param(name, marks=[] if name == "lenet5" else pytest.mark.slow) for name in architecture],
    indirect=True,
)
@pytest.mark.slow
def test_exporting_again_gives_the_same_bytes(
    exported: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_convert: Callable[..., onnx.ModelProto]
) -> None:
    monkeypatch.setattr(graph, "_convert", real_convert)
    graph.save(graph.to_onnx(exported.network, SPEC, metadata=METADATA).model, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == exported.path.read_bytes()


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = [sys.argv[1], sys.argv[1] + '/..']; from pathlib import Path\n"
        "import test_graph as t\n"
        "for arch in filter(lambda name: not t.heavy(name), t.architecture):\n"
        "    model = t.graph.to_onnx(t.untrained(arch), t.SPEC, metadata=t.METADATA).model\n"
        "    t.graph.save(model, Path(f'{sys.argv[2]}-{arch}.onnx'))"
    )
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / seed)]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True)
    for arch in (name for name in architecture if not heavy(name)):
        assert (tmp_path / f"1-{arch}.onnx").read_bytes() == (tmp_path / f"2-{arch}.onnx").read_bytes()


@pytest.mark.parametrize(
    ("kind", "probabilities"), [("uint8", True), pytest.param("float", True, marks=pytest.mark.slow)], ids=str
)
def test_every_kind_of_input_and_output_is_the_same_network(kind: contract.InputKind, probabilities: bool) -> None:
    network = untrained("lenet5")
    model = graph.to_onnx(network, SPEC, metadata=METADATA, kind=kind, probabilities=probabilities).model
    agreed = contract.contract_of(SPEC, kind=kind, probabilities=probabilities)
    contract.check(model, agreed, metadata=METADATA)
    with pytest.raises(CnnbenchError, match="inputs and outputs"):
        contract.check(model, contract.contract_of(SPEC), metadata=METADATA)
    session = open_session(model.SerializeToString(), threads=1)
    assert [(value.name, value.shape) for value in session.get_outputs()] == [
        (output.name, list(output.shape)) for output in agreed.outputs
    ]
    logits, *rest = session.run(None, {"pixels": to_graph_input(IMAGES, agreed.input.dtype)})
    reference = torch_logits(network, IMAGES)
    assert np.abs(logits - reference).max() <= bound(network, reference) / 2
    assert len(rest) == probabilities
    for found in rest:
        np.testing.assert_allclose(found, torch.tensor(reference).double().softmax(1).numpy(), atol=1e-6)


@kinds
def test_preprocessing_is_in_the_graph(kind: contract.InputKind) -> None:
    """A network that returns its input must return every pixel of every channel at its place, in [0, 1]."""
    spec = ImageSpec(4, 5, 3, num_classes=60)
    model = graph.to_onnx(nn.Flatten(), spec, metadata={}, kind=kind).model
    session = open_session(model.SerializeToString(), threads=1)
    images = np.random.RandomState(1).randint(0, 256, size=(6, 4, 5, 3), dtype=np.uint8)
    planes = np.stack([images[..., channel] for channel in range(3)], axis=1) / 255
    pixels = images if kind == "uint8" else planes.astype(np.float32)
    logits = session.run(["logits"], {"pixels": pixels})[0]
    np.testing.assert_allclose(logits, planes.reshape(6, -1), rtol=1e-6)


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))


class AsNumber(Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.reshape(len(x), -1))


class Branching(Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (2 if x.shape[0] > 32 else 1)


class OfTwo(Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.reshape(2, 28 * 28))


@pytest.mark.parametrize("network", [Branching(), OfTwo()], ids=lambda network: type(network).__name__)
def test_a_network_that_depends_on_the_batch_size_is_refused_in_one_line(network: nn.Module) -> None:
    with pytest.raises(CnnbenchError, match=r"free batch size: .*batch") as caught:
        graph.to_onnx(network, SPEC, metadata={})
    assert caught.value.code == Exit.VERDICT
    assert "\n" not in str(caught.value)


def test_a_batch_size_that_is_asked_for_as_a_number_is_told_with_what_to_write_instead() -> None:
    with pytest.raises(CnnbenchError, match=r"batch for 2 images: write x\.shape\[0\], .* not len\(x\)"):
        graph.to_onnx(AsNumber(), SPEC, metadata={})


def test_a_network_of_another_number_of_classes_is_refused() -> None:
    with pytest.raises(CnnbenchError, match="inputs and outputs") as caught:
        graph.to_onnx(Flat(), ImageSpec(28, 28, 1, num_classes=7), metadata={})
    assert caught.value.code == Exit.VERDICT


def test_dropout_left_active_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph.Deployable, "eval", lambda self: self.train())
    with pytest.raises(CnnbenchError, match=r"Dropout.* is in training mode") as caught:
        graph.to_onnx(nn.Sequential(Flat(), nn.Dropout()), SPEC, metadata={})
    assert caught.value.code == Exit.VERDICT


@pytest.mark.parametrize(
    "build",
    [pytest.param(small_networks.noise, marks=pytest.mark.slow), small_networks.reseeding],
    ids=lambda build: build.__name__,
)
def test_a_network_that_draws_random_numbers_in_evaluation_is_refused(build: Callable[[], nn.Module]) -> None:
    """Also one that sets its generator anew in each call, which no two calls of it would show."""
    with pytest.raises(CnnbenchError, match=r"\(RandomNormalLike\) draws random numbers") as caught:
        graph.to_onnx(small_networks.made(build), small_networks.SPEC, metadata={})
    assert caught.value.code == Exit.VERDICT


def test_an_operator_without_onnx_form_is_named_with_its_module() -> None:
    expected = (
        r"^the operator adaptive_max_pool2d of network\.inner\.0 \(AdaptiveMaxPool2d\) has no ONNX form in opset 18$"
    )
    with pytest.raises(CnnbenchError, match=expected) as caught:
        graph.to_onnx(small_networks.made(small_networks.odd_pool), small_networks.SPEC, metadata={})
    assert caught.value.code == Exit.VERDICT


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: torch.erfinv(x / 9), "the operator erfinv of network.inner (Call) has no ONNX form in opset 18"),
        pytest.param(
            lambda x: x.cumprod(1),
            "the operator cumprod of network.inner (Call) has no ONNX form in opset 18",
            marks=pytest.mark.slow,
        ),
        (
            lambda x: torch.einsum("nchw,ncwk->nchk", torch.fft.fft2(x), torch.fft.fft2(x).mT).real,
            "the operator einsum of network.inner (Call) has no ONNX form for complex numbers in opset 18",
        ),
    ],
    ids=["taken apart by torch", "taken apart into others", "of complex numbers"],
)
def test_the_operator_without_onnx_form_is_the_one_that_the_network_calls(
    function: Callable[[Tensor], Tensor], expected: str
) -> None:
    network = small_networks.made(lambda: small_networks.Around(small_networks.Call(function)))
    with pytest.raises(CnnbenchError) as caught:
        graph.to_onnx(network, small_networks.SPEC, metadata={})
    assert str(caught.value) == expected


def test_a_message_of_the_exporter_is_its_cause_without_colours() -> None:
    error = RuntimeError("\x1b[96mstep 2/3\x1b[0m failed\n- open an issue")
    error.__cause__ = ValueError("\x1b[96mthat is why\x1b[0m\nand more")
    assert graph._cause(error) == "that is why"


def test_what_is_exported_names_the_network_and_what_the_file_must_equal() -> None:
    network = small_networks.made(small_networks.batch_norm)
    found = graph.to_onnx(network, small_networks.SPEC, metadata=METADATA)
    assert found.deployable.network is network
    assert found.reference.folded == 1
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.model.graph.initializer}
    for name, tensor in found.reference.tensors().items():
        assert np.array_equal(stored[name], tensor), name


def marked() -> onnx.ModelProto:
    """y = x + w, with the marks of a tool, and paths, wherever ONNX has a place for them."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in "xy")
    node = helper.make_node("Add", ["x", "w"], ["y"])
    weights = numpy_helper.from_array(np.ones(1, np.float32), "w")
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
    inner = helper.make_graph([node], "tested", [x], [y], [weights], value_info=[value])
    model = helper.make_model(
        inner,
        producer_name="a-tool",
        producer_version="1.2.3",
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
    )
    inner = model.graph
    for item in (model, inner, *inner.node, *inner.value_info, *inner.input, *inner.output, *inner.initializer):
        item.doc_string = "/home/somebody/network.py"
        item.metadata_props.add(key="source", value="/home/somebody/network.py")
    return model


def test_signing_leaves_only_the_graph_and_the_metadata() -> None:
    model = marked()
    graph.sign(model, {"b": "2", "a": "1"})
    content = model.SerializeToString()
    assert [mark for mark in (b"somebody", b"source", b"a-tool", b"1.2.3", b"com.microsoft") if mark in content] == []
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]
    assert model.ir_version == contract.IR_VERSION
    assert [(item.key, item.value) for item in model.metadata_props] == [("a", "1"), ("b", "2")]
    onnx.checker.check_model(model, full_check=True)
    y = open_session(content, threads=1).run(None, {"x": np.full((3, 1), 2, np.float32)})[0]
    assert y.tolist() == [[3], [3], [3]]


def test_signing_again_replaces_what_the_file_said_before() -> None:
    model = marked()
    graph.sign(model, {"precision": "fp32", "old": "yes"})
    graph.sign(model, {"precision": "int8"})
    assert {item.key: item.value for item in model.metadata_props} == {"precision": "int8"}


def test_the_hash_of_the_weights_knows_every_value_and_every_name() -> None:
    torch.manual_seed(0)
    one, same = Flat(), Flat()
    same.load_state_dict(one.state_dict())
    assert graph.weights_sha256(one) == graph.weights_sha256(same)
    with torch.no_grad():
        same.linear.bias[3] += 1e-6
    assert graph.weights_sha256(one) != graph.weights_sha256(same)
    assert graph.weights_sha256(one) != graph.weights_sha256(nn.Sequential(one))


def test_whatever_a_network_raises_while_it_is_exported_is_one_line() -> None:
    class Raises(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.compiler.is_exporting():
                raise KeyError("a name")
            return x.flatten(1)[:, :3]

    with pytest.raises(CnnbenchError, match="the network cannot be exported") as refused:
        graph.to_onnx(Raises(), ImageSpec(4, 4, 1, 3), metadata={})
    assert refused.value.code == Exit.VERDICT
    assert "\n" not in str(refused.value)


def test_the_hash_of_weights_covers_buffers_that_a_state_dict_leaves_out() -> None:
    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor(scale), persistent=False)

    assert graph.weights_sha256(Scaled(1.0)) != graph.weights_sha256(Scaled(2.0))
    assert graph.weights_sha256(Scaled(1.0)) == graph.weights_sha256(Scaled(1.0))
