"""The exported file: what it holds, what it never holds, and that it computes what PyTorch computes."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from zoo import heavy, with_weights

import cnnbench
from cnnbench.architectures import architecture, build
from cnnbench.export import contract, graph, verdict
from cnnbench.export.bundle import torch_logits
from cnnbench.runtime.providers import open_session
from cnnbench.types import CnnbenchError, Exit, ImageSpec

SPEC = ImageSpec(28, 28, 1, num_classes=10, mean=(0.1314,), std=(0.3086,))
IMAGES = np.random.RandomState(0).randint(0, 256, size=(64, 28, 28, 1), dtype=np.uint8)
METADATA = {"architecture": "tested", "class_names": '["a", "b"]'}


@dataclass
class Exported:
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


@pytest.fixture(scope="module", params=with_weights)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    network = untrained(request.param)
    model = graph.to_onnx(network.train(), SPEC, METADATA)
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    graph.save(model, path)
    return Exported(request.param, network, model, path)


def test_the_file_is_valid_onnx_and_needs_no_other_file(exported: Exported) -> None:
    onnx.checker.check_model(str(exported.path), full_check=True)
    assert list(exported.path.parent.iterdir()) == [exported.path]
    assert all(t.data_location != onnx.TensorProto.EXTERNAL for t in exported.model.graph.initializer)


def test_it_takes_decoded_images_of_any_number_and_returns_logits(exported: Exported) -> None:
    session = open_session(exported.path)
    (pixels,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (pixels.name, pixels.type, pixels.shape) == ("pixels", "tensor(uint8)", ["batch", 28, 28, 1])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 10])


def test_nothing_of_the_machine_that_exported_it_is_in_the_file(exported: Exported) -> None:
    content = exported.path.read_bytes()
    places = [Path.home(), sys.prefix, Path(cnnbench.__file__).parents[1], "site-packages"]
    assert [place for place in places if str(place).encode() in content] == []
    assert not any(node.metadata_props or node.doc_string for node in exported.model.graph.node)
    assert {item.key: item.value for item in exported.model.metadata_props} == METADATA


def test_it_is_in_inference_mode_although_the_network_was_not(exported: Exported) -> None:
    kinds = {node.op_type for node in exported.model.graph.node}
    assert not kinds & {"Dropout", "BatchNormalization"}  # batch norm is folded into the convolution before it


def test_onnx_runtime_equals_pytorch_with_room_to_the_tolerance(exported: Exported) -> None:
    room = 2 if heavy(exported.name) else 10  # sums of thousands of terms round more
    reference = torch_logits(exported.network, IMAGES)
    session = open_session(exported.path)

    def logits(pixels: np.ndarray) -> np.ndarray:
        return session.run(["logits"], {"pixels": pixels})[0]

    errors = [np.abs(verdict.batched(logits, IMAGES, size) - reference).max() for size in (1, 2, 7, 64)]
    assert max(errors) <= verdict.RELATIVE_TOLERANCE * max(1, np.abs(reference).max()) / room


def test_exporting_again_gives_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    graph.save(graph.to_onnx(exported.network, SPEC, METADATA), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == exported.path.read_bytes()


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = [sys.argv[1], sys.argv[1] + '/..']; from pathlib import Path\n"
        "import test_graph as t\n"
        "for arch in filter(lambda name: not t.heavy(name), t.architecture):\n"
        "    t.graph.save(t.graph.to_onnx(t.untrained(arch), t.SPEC, t.METADATA), Path(f'{sys.argv[2]}-{arch}.onnx'))"
    )
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / seed)]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True)
    for arch in (name for name in architecture if not heavy(name)):
        assert (tmp_path / f"1-{arch}.onnx").read_bytes() == (tmp_path / f"2-{arch}.onnx").read_bytes()


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))


class Branching(Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (2 if x.shape[0] > 32 else 1)


class OtherForOne(Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (2 if x.shape[0] == 1 else 1)


class OfTwo(Flat):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.reshape(2, 28 * 28))


@pytest.mark.parametrize("network", [Branching(), OtherForOne(), OfTwo()], ids=lambda network: type(network).__name__)
def test_a_network_that_depends_on_the_batch_size_is_refused_in_one_line(network: nn.Module) -> None:
    with pytest.raises(CnnbenchError, match=r"free batch size: .*batch") as caught:
        graph.to_onnx(network, SPEC, {})
    assert caught.value.code == Exit.VERDICT
    assert "\n" not in str(caught.value)


def test_dropout_left_active_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph.Deployable, "eval", lambda self: self.train())
    with pytest.raises(CnnbenchError, match=r"Dropout.* is in training mode") as caught:
        graph.to_onnx(nn.Sequential(Flat(), nn.Dropout()), SPEC, {})
    assert caught.value.code == Exit.VERDICT


def test_preprocessing_is_in_the_graph() -> None:
    """Of an image of one level v, a network that returns its input must return v / 255."""

    class Corner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :, 0, 0]  # N, C

    spec = ImageSpec(4, 5, 3, num_classes=3)
    session = open_session(graph.to_onnx(Corner(), spec, {}).SerializeToString())
    pixels = np.broadcast_to(np.array([0, 51, 255], np.uint8), (6, 4, 5, 3))
    logits = session.run([contract.OUTPUT], {contract.INPUT: np.ascontiguousarray(pixels)})[0]
    np.testing.assert_allclose(logits, np.tile([0, 0.2, 1], (6, 1)), rtol=1e-6)


def test_the_hash_of_the_weights_knows_every_value_and_every_name() -> None:
    torch.manual_seed(0)
    one, same = Flat(), Flat()
    same.load_state_dict(one.state_dict())
    assert graph.weights_sha256(one) == graph.weights_sha256(same)
    with torch.no_grad():
        same.linear.bias[3] += 1e-6
    assert graph.weights_sha256(one) != graph.weights_sha256(same)
    assert graph.weights_sha256(one) != graph.weights_sha256(nn.Sequential(one))
