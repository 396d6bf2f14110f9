"""torch -> ONNX: one self-contained file from decoded images to logits, for any batch size."""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as fx_config

from cnnbench.export import contract
from cnnbench.types import CnnbenchError, Exit, ImageSpec

OPSET = 18  # the lowest that torch's exporter writes without converting, so that old runtimes can read it
LARGEST_BATCH = 65_536  # torch.export wants a bound; memory is the real one


class Deployable(nn.Module):
    """The network with all preprocessing inside: pixels `(N, H, W, C)` uint8 -> logits `(N, num_classes)` float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        # contiguous() becomes one Transpose; without it the exporter emulates strides node by node
        planes = pixels.permute(0, 3, 1, 2).contiguous().float() / 255  # N, C, H, W in [0, 1]
        logits: Tensor = self.network(planes)
        return logits


def to_onnx(network: nn.Module, spec: ImageSpec, metadata: dict[str, str]) -> onnx.ModelProto:
    """Export `network` (float pixels `(N, C, H, W)` to logits) as a deployable ONNX model.

    Raises:
        CnnbenchError: The network cannot be exported with a free batch size, or what came out is not one input,
            one output, in inference mode (exit 4).
    """
    deployable = Deployable(network).eval()  # in training mode Dropout would stay active in the file
    example = torch.zeros(2, spec.height, spec.width, spec.channels, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            # two steps: exported in one, a branch on the batch size would be frozen without a word; by default a batch
            # of one is taken for a case apart, and a branch on it frozen too
            with fx_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
                program = torch.export.export(deployable, (example,), dynamic_shapes=({0: batch},))
            exported = torch.onnx.export(
                program, dynamo=True, dynamic_shapes=({0: "batch"},), opset_version=OPSET, verbose=False,
                input_names=[contract.INPUT], output_names=[contract.OUTPUT],
            )  # fmt: skip
        except RuntimeError as error:  # what torch.export and the ONNX exporter raise derives from it
            raise CnnbenchError(
                f"the network cannot be exported with a free batch size: {_reason(error)}", Exit.VERDICT
            ) from None
    assert exported is not None
    model: onnx.ModelProto = exported.model_proto
    _strip(model)
    model.producer_name, model.doc_string = "cnnbench", ""
    del model.metadata_props[:]
    for key, value in sorted(metadata.items()):
        model.metadata_props.add(key=key, value=value)
    contract.check(model, spec)
    return model


def weights_sha256(network: nn.Module) -> str:
    """Hash of every parameter and buffer by name: the same for the same trained network, whatever file it is in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return digest.hexdigest()


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write the model, the same bytes for the same model."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def _reason(error: RuntimeError) -> str:
    """The line of the exporter's message that names the cause: a bullet where there is one, else the first."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return next((line.removeprefix("- ") for line in lines if line.startswith("- ")), lines[0])


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes in passing: source paths of this machine, on every node."""
    for item in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
        item.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
