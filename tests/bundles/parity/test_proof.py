"""The proof: a network that is not a function of the image is refused, and so is a file that is another network."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import small_networks
import torch
from onnx import helper, numpy_helper
from small_networks import SPEC, Around, Call, made
from torch import Tensor, nn

from cnnbench.bundles import graph
from cnnbench.bundles.graph import Exported
from cnnbench.bundles.parity import comparison, proof
from cnnbench.bundles.parity.golden import golden_images
from cnnbench.bundles.parity.proof import Proven, prove
from cnnbench.bundles.program import ReferenceNetwork, reference_network
from cnnbench.types import CnnbenchError, Exit

TEST_IMAGES = np.random.RandomState(0).randint(0, 256, (20, SPEC.height, SPEC.width, 1)).astype(np.uint8)
IMAGES = golden_images(TEST_IMAGES).pixels

Build = Callable[[], nn.Module]
Graph = onnx.ModelProto


def proven(exported: Exported, images: np.ndarray = IMAGES) -> Proven:
    return prove(exported, images=images, dtype="uint8")


def refused(exported: Exported, code: Exit = Exit.VERDICT) -> str:
    with pytest.raises(CnnbenchError) as caught:
        proven(exported)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    return str(caught.value)


def reference_of(network: nn.Module) -> ReferenceNetwork:
    example = torch.zeros(2, SPEC.height, SPEC.width, 1, dtype=torch.uint8)
    return reference_network(graph.Deployable(network).eval(), example)


@pytest.fixture(scope="module")
def nothing() -> ReferenceNetwork:
    """The reference of some network, for one that is refused before its own is looked at."""
    return reference_of(made(lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 3))))


# --- is the network a function of the image? --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        small_networks.noise,
        small_networks.dropout_in_evaluation,
        small_networks.drawn_elsewhere,
        small_networks.counting,
        small_networks.remembering,
        small_networks.of_the_first,
    ],
    ids=lambda build: build.__name__,
)
def test_a_network_whose_answers_depend_on_the_call_is_refused(build: Build, nothing: ReferenceNetwork) -> None:
    said = refused(Exported(Graph(), graph.Deployable(made(build)).eval(), nothing))
    assert said.startswith("the trained network is not a function of the image: its answers differ between two calls")


@pytest.mark.parametrize(
    "build",
    [small_networks.batch_mean, small_networks.untracked, small_networks.other_for_one, small_networks.neighbour],
    ids=lambda build: build.__name__,
)
def test_a_network_that_mixes_the_images_of_a_batch_is_refused(build: Build, nothing: ReferenceNetwork) -> None:
    said = refused(Exported(Graph(), graph.Deployable(made(build)).eval(), nothing))
    assert said.startswith("the trained network is not a function of the image: it mixes the images of a batch")


@pytest.mark.parametrize(
    "build", [small_networks.least_of_the_batch, small_networks.range_of_the_batch], ids=lambda build: build.__name__
)
def test_the_range_of_a_batch_is_found_although_every_image_holds_black_and_white(
    build: Build, nothing: ReferenceNetwork
) -> None:
    pixels = IMAGES.copy()
    pixels[:, 0, :2] = [[0], [255]]
    with pytest.raises(CnnbenchError, match="mixes the images of a batch"):
        proven(Exported(Graph(), graph.Deployable(made(build)).eval(), nothing), pixels)


def test_a_generator_that_is_set_anew_at_random_does_not_hide_noise(nothing: ReferenceNetwork) -> None:
    """Two calls that follow each other agree; a call after another seed does not."""

    class Frozen(nn.Module):
        noise: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.noise is None or self.seed != torch.initial_seed():
                self.seed, self.noise = torch.initial_seed(), 1e-6 * torch.randn(x.shape[1:])
            return x + self.noise

    said = refused(Exported(Graph(), graph.Deployable(made(lambda: Around(Frozen()))).eval(), nothing))
    assert "differ between two calls" in said


def test_logits_that_are_not_finite_are_nothing_to_export(nothing: ReferenceNetwork) -> None:
    network = made(lambda: Around(Call(lambda x: x / 0)))
    assert "not finite" in refused(Exported(Graph(), graph.Deployable(network).eval(), nothing), Exit.DATA)


def test_the_trained_network_and_the_random_numbers_are_left_as_they_were(nothing: ReferenceNetwork) -> None:
    network = made(small_networks.counting)
    torch.manual_seed(7)
    expected = torch.get_rng_state()
    refused(Exported(Graph(), graph.Deployable(network).eval(), nothing))
    assert torch.equal(torch.get_rng_state(), expected)
    assert int(network.inner.calls) == 0
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


# --- is the reference network that function? --------------------------------------------------------------------------


def test_a_branch_that_was_frozen_while_tracing_shows() -> None:
    """Traced as if it were always exported; in use it is another network."""
    network = made(lambda: Around(Call(lambda x: x if torch.compiler.is_exporting() else x * 1.001)))
    said = refused(Exported(Graph(), graph.Deployable(network).eval(), reference_of(network)))
    assert said.startswith("traced and folded, the network computes something else")


@pytest.mark.parametrize(
    ("function", "dtype"),
    [
        (lambda x: x.half().float(), "float16"),
        pytest.param(lambda x: (x.double() * (1 / 3)).float(), "float64", marks=pytest.mark.slow),
    ],
)
def test_a_network_that_leaves_float32_is_told_where(function: Callable[[Tensor], Tensor], dtype: str) -> None:
    network = made(lambda: Around(Call(function)))
    said = refused(graph.to_onnx(network, SPEC, metadata={}))
    assert said.startswith("the ONNX file is not the trained network")
    assert said.endswith(f"; the network computes in {dtype} within network.inner (Call): keep it in float32")


def test_another_network_s_reference_shows(nothing: ReferenceNetwork) -> None:
    network = made(small_networks.halves)
    assert "computes something else" in refused(Exported(Graph(), graph.Deployable(network).eval(), nothing))


# --- is the file the reference network? -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported() -> Exported:
    return graph.to_onnx(made(small_networks.normalised), SPEC, metadata={})


def with_graph(exported: Exported, change: Callable[[Graph], object]) -> Exported:
    model = Graph.FromString(exported.model.SerializeToString())
    change(model)
    assert model != exported.model
    return replace(exported, model=model)


def node_of(model: Graph, kind: str, number: int = 0) -> onnx.NodeProto:
    return [node for node in model.graph.node if node.op_type == kind][number]


def edit(model: Graph, name: str, change: Callable[[np.ndarray], Any]) -> None:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def up(values: np.ndarray) -> None:
    """One unit in the last place of the first number."""
    values.flat[0] = np.nextafter(values.flat[0], np.float32(np.inf))


def exchange(values: np.ndarray) -> None:
    values.flat[[0, 1]] = values.flat[[1, 0]]


def attribute(model: Graph, kind: str, **values: Any) -> None:
    node = node_of(model, kind)
    for name, value in values.items():
        for old in [old for old in node.attribute if old.name == name]:
            node.attribute.remove(old)
        node.attribute.append(helper.make_attribute(name, value))


def renamed(model: Graph, kind: str, other: str) -> None:
    node_of(model, kind).op_type = other


def without(model: Graph, kind: str) -> None:
    node = node_of(model, kind)
    for other in model.graph.node:
        for place, name in enumerate(other.input):
            if name == node.output[0]:
                other.input[place] = node.input[0]
    model.graph.node.remove(node)


def fixed(model: Graph) -> None:
    """The batch is seven before the last layer."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([7, 4], np.int64), "shape"))
    last = node_of(model, "Gemm")
    last.input[0], read = "reshaped", last.input[0]
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Reshape", [read, "shape"], ["reshaped"]))


CONSTANT, GRAPH = (
    "is neither a tensor of the network nor a number of its operators",
    "evaluated in float64 its logits differ",
)
ATTRIBUTE = "which no operator of the network is given"
MUTANTS: dict[str, tuple[Callable[[Graph], object], str]] = {
    "a weight": (lambda m: edit(m, "folded_0", up), CONSTANT),
    "two weights exchanged": (lambda m: edit(m, "folded_0", exchange), CONSTANT),
    "two numbers of a bias exchanged": (lambda m: edit(m, "folded_1", exchange), CONSTANT),
    "the mean": (lambda m: edit(m, "network.0.mean", up), CONSTANT),
    "the deviation": (lambda m: edit(m, "network.0.std", up), CONSTANT),
    "the levels of a pixel": (lambda m: edit(m, node_of(m, "Div").input[1], up), CONSTANT),
    "the epsilon": (lambda m: attribute(m, "LayerNormalization", epsilon=1.001e-5), ATTRIBUTE),
    "the padding": (lambda m: attribute(m, "AveragePool", count_include_pad=0), GRAPH),
    "a ReLU that leaks": (
        lambda m: (renamed(m, "Relu", "LeakyRelu"), attribute(m, "LeakyRelu", alpha=1e-9)),
        ATTRIBUTE,
    ),
    "an operator left out": (lambda m: without(m, "Relu"), GRAPH),
    "another operator": (lambda m: renamed(m, "Sub", "Add"), GRAPH),
    "the wrong constant": (lambda m: node_of(m, "Sub").input.__setitem__(1, "network.0.std"), GRAPH),
    "a fixed batch": (fixed, "cannot be evaluated in float64"),
}


def test_an_honest_file_is_proven(exported: Exported) -> None:
    found = proven(exported)
    assert max(found.proof.function_error, found.proof.fold_error, found.proof.graph_error) <= 1e-13
    assert (found.proof.folded, found.proof.graph_images, found.proof.graph_batches) == (1, 24, (1, 2, 7))
    assert not found.proof.control_flow
    with torch.no_grad():
        inputs = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).double() / 255
        expected = made(small_networks.normalised).double()(inputs).numpy()
    assert found.logits.dtype == np.float64
    np.testing.assert_allclose(found.logits, expected, atol=1e-6)  # folded weights are rounded to float32
    rules = {entry.name: entry.rule for entry in found.proof.constants}
    assert (rules["folded_0"], rules["network.0.mean"]) == ("tensor", "tensor")
    assert found.proof.literals == ()  # 1e-5 is rounded to float32 in both


@pytest.mark.parametrize("name", MUTANTS)
def test_a_file_that_is_another_network_is_refused(name: str, exported: Exported) -> None:
    change, word = MUTANTS[name]
    said = refused(with_graph(exported, change))
    assert word in said


def test_a_change_that_computes_the_same_is_accepted(exported: Exported) -> None:
    def renamed_node(model: Graph) -> None:
        model.graph.node[0].name = "another"

    assert proven(with_graph(exported, renamed_node)).proof == proven(exported).proof


def test_little_time_evaluates_fewer_images_and_never_fewer_than_some(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "SECONDS", 0.0)
    found = proven(exported)
    assert proof.LEAST_IMAGES <= found.proof.graph_images == 14 < len(IMAGES)  # two batches of seven
    assert len(found.logits) == len(IMAGES)


def test_exact_is_far_below_what_float32_rounds(exported: Exported) -> None:
    """Else a file of another network could hide in it."""
    found = proven(exported)
    with torch.no_grad():
        inputs = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255
        float32 = made(small_networks.normalised)(inputs).numpy()
    assert comparison.relative(found.logits, float32.astype(np.float64)) > 1e4 * comparison.EXACT


# --- networks of other people's kinds ---------------------------------------------------------------------------------

FAST = (small_networks.attention,)


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(build, marks=[] if build in FAST else pytest.mark.slow)
        for build in (
            small_networks.layer_norm,
            small_networks.attention,
            small_networks.encoder_layer,
            small_networks.gru,
            small_networks.lstm,
            small_networks.halves,
            small_networks.batch_norm,
            small_networks.weight_norm,
            small_networks.smooth,
            small_networks.warp,
        )
    ],
    ids=lambda build: build.__name__,
)
def test_a_function_of_the_image_is_exported_and_proven(build: Build) -> None:
    found = proven(graph.to_onnx(made(build), SPEC, metadata={}))
    assert max(found.proof.function_error, found.proof.fold_error, found.proof.graph_error) <= comparison.EXACT


@pytest.mark.parametrize("kind", [pytest.param("uint8", marks=pytest.mark.slow), "float"])
def test_floats_in_and_probabilities_out_are_proven(kind: Any) -> None:
    made_of = graph.to_onnx(made(small_networks.normalised), SPEC, metadata={}, kind=kind, probabilities=True)
    found = prove(made_of, images=IMAGES, dtype={"uint8": "uint8", "float": "float32"}[kind])
    assert found.proof.graph_error <= comparison.EXACT
