"""From uint8 to float, the same bits in pixels.py, in the exported graph, and in a bundle's predict.py."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from cnnbench import pixels
from cnnbench.bundles import graph
from cnnbench.runtime.predict import as_input
from cnnbench.runtime.providers import LEVELS, Level, open_session
from cnnbench.types import ImageSpec

images_of_any_size = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5))

EVERY_LEVEL = np.arange(256, dtype=np.uint8).reshape(2, 8, 16, 1)


def correctly_rounded(images: np.ndarray) -> np.ndarray:
    """x / 255 in float64, rounded once to float32, channels first."""
    return np.moveaxis(images / 255.0, 3, 1).astype(np.float32)


@given(images_of_any_size)
def test_torch_and_numpy_divide_with_one_rounding(images: np.ndarray) -> None:
    expected = correctly_rounded(images)
    assert np.array_equal(pixels.to_float(torch.from_numpy(images)).numpy(), expected)
    assert np.array_equal(pixels.to_graph_input(images, "float32"), expected)
    assert pixels.to_graph_input(images, "float32").flags.c_contiguous


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_another_type_is_divided_in_that_type(dtype: torch.dtype) -> None:
    found = pixels.to_float(torch.from_numpy(EVERY_LEVEL), dtype)
    assert found.dtype == dtype
    exact = torch.from_numpy(np.moveaxis(EVERY_LEVEL / 255.0, 3, 1))
    assert torch.equal(found, (torch.from_numpy(EVERY_LEVEL).permute(0, 3, 1, 2).to(dtype) / 255))
    assert (found.double() - exact).abs().max() <= torch.finfo(dtype).eps


@given(images_of_any_size)
def test_uint8_stays_as_it_is_for_a_graph_that_takes_it(images: np.ndarray) -> None:
    turned = np.asfortranarray(images)
    assert np.array_equal(pixels.to_graph_input(turned, "uint8"), images)
    assert pixels.to_graph_input(turned, "uint8").flags.c_contiguous


@given(images_of_any_size)
def test_predict_py_feeds_a_graph_the_same_bits(images: np.ndarray) -> None:
    for dtype in ("uint8", "float32"):
        theirs = as_input(images, {"input": {"dtype": dtype}})
        assert theirs.tobytes() == pixels.to_graph_input(images, dtype).tobytes()


class Floats(nn.Module):
    """A network whose logits are its pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return graph.to_onnx(Floats(), ImageSpec(8, 16, 1, num_classes=128), metadata={}).model


@pytest.mark.parametrize("level", LEVELS)
def test_the_exported_graph_computes_the_same_bits(exported: onnx.ModelProto, level: Level) -> None:
    session = open_session(exported.SerializeToString(), level=level)
    (logits,) = session.run(None, {"pixels": EVERY_LEVEL})
    assert np.array_equal(logits, pixels.to_float(torch.from_numpy(EVERY_LEVEL)).flatten(1).numpy())


def test_the_exported_graph_transposes_casts_and_divides(exported: onnx.ModelProto) -> None:
    assert [node.op_type for node in exported.graph.node][:3] == ["Transpose", "Cast", "Div"]
