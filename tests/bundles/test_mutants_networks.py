"""Mutants made of the trained network itself: batch norm left in training mode, and weights changed at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_helpers import Colour, Forger, Graph, one_block
from mutants_network import edit_tensor, layers
from mutations import Table, caught, of_claim
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench import records
from cnnbench.bundles import graph
from cnnbench.bundles.parity import exact, weights
from cnnbench.bundles.parity.comparison import EXACT
from cnnbench.records.bundle import Manifest
from cnnbench.training.checkpoints import load_classifier


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
    mutants: Table,
    request: pytest.FixtureRequest,
) -> None:
    forger.graph(lambda _: in_training(kind))
    if marked:
        forger.graph(in_training_mode)
    forger.restate()
    forger.sign()
    how = request.node.callspec.id
    mutant = of_claim(f"batch norm in training mode: {how}", lambda _: None, check, word)
    mutants.add(caught(forger, mutant))


@pytest.mark.slow
def test_a_weight_changed_by_one_unit_shows_in_the_golden_logits(colour: Colour, mutants: Table) -> None:
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
    mutants.note(
        f"Of 50 weights drawn at random and changed by one unit in the last place, one at a time, {found} "
        f"({2 * found} %) move a golden logit by more than {EXACT:g} of the largest. A hash in the proof shows all."
    )
    assert found >= 40
