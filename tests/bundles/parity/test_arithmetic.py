"""Float32 is told from less: a session that silently computes in bfloat16 or half is refused, one in float32 is not."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from cnnbench.architectures import build
from cnnbench.bundles import contract, graph
from cnnbench.bundles.float64 import in_float64
from cnnbench.bundles.parity import run as parity
from cnnbench.bundles.parity.golden import golden_images
from cnnbench.types import Augment, Dataset, ImageSpec, Split

SPEC = ImageSpec(28, 28, 1, 10, (0.13,), (0.31,))


def rounded(model: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """The graph with every operand of a product rounded to `kind` first, as such a session computes it."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    nodes = list(result.graph.node)
    del result.graph.node[:]
    for node in nodes:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            for index, name in enumerate(node.input[:2]):
                low, wide = f"{node.name}_{index}_low", f"{node.name}_{index}_wide"
                result.graph.node.append(helper.make_node("Cast", [name], [low], name=low, to=kind))
                result.graph.node.append(helper.make_node("Cast", [low], [wide], name=wide, to=TensorProto.FLOAT))
                node.input[index] = wide
        result.graph.node.append(node)
    return result


@pytest.mark.parametrize(
    ("kind", "refused"), [(None, False), (TensorProto.BFLOAT16, True), (TensorProto.FLOAT16, True)], ids=str
)
def test_a_session_in_less_than_float32_is_refused(kind: int | None, refused: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build("lenet5", SPEC).eval()
    random = np.random.RandomState(0)
    splits = [
        Split(random.randint(0, 256, (count, 28, 28, 1)).astype(np.uint8), random.randint(0, 10, count))
        for count in (2, 4, 120)
    ]
    data = Dataset("random", SPEC, tuple("0123456789"), Augment(), "", *splits)
    exported = graph.to_onnx(network, SPEC, metadata={})
    golden = golden_images(data.test.images)
    exact = in_float64(exported.deployable.double(), torch.tensor(golden.pixels))
    exported.deployable.float()
    file = tmp_path / "model.onnx"
    graph.save(rounded(exported.model, kind) if kind else exported.model, file)
    candidate = parity.Candidate("fp32", file, contract.contract_of(SPEC), {})
    with parity.reference_logits(network, data, golden=golden, exact=exact) as reference:
        outcome = parity.verify_file(candidate, reference, providers=["cpu"], max_accuracy_loss=0.2)
    assert bool(outcome.record.refused) == refused
    if refused:
        assert "largest logit error" in outcome.record.refused
