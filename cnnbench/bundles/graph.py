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

from cnnbench.bundles import contract
from cnnbench.pixels import LEVELS
from cnnbench.types import CnnbenchError, Exit, ImageSpec

LARGEST_BATCH = 65_536  # torch.export wants a bound; memory is the real one


class Deployable(nn.Module):
    """The network with all preprocessing inside: pixels to logits `(N, num_classes)` float32.

    Args:
        network: Float pixels `(N, C, H, W)` in [0, 1] to logits.
        kind: "uint8" takes `(N, H, W, C)` as a decoder gives them, "float" `(N, C, H, W)` in [0, 1].
        probabilities: Whether to return the logits' softmax, too.
    """

    def __init__(self, network: nn.Module, kind: contract.InputKind = "uint8", probabilities: bool = False) -> None:
        super().__init__()
        self.network, self.kind, self.probabilities = network, kind, probabilities

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.kind == "uint8":
            # as pixels.to_float; contiguous() becomes one Transpose, else the exporter emulates strides node by node
            pixels = pixels.permute(0, 3, 1, 2).contiguous().float() / LEVELS  # N, C, H, W in [0, 1]
        logits: Tensor = self.network(pixels)
        return (logits, logits.softmax(dim=1)) if self.probabilities else logits


def to_onnx(
    network: nn.Module,
    spec: ImageSpec,
    *,
    metadata: dict[str, str],
    kind: contract.InputKind = "uint8",
    probabilities: bool = False,
) -> onnx.ModelProto:
    """Export `network` (float pixels `(N, C, H, W)` to logits) as a deployable ONNX model.

    Raises:
        CnnbenchError: The network cannot be exported with a free batch size, or what came out breaks the contract
            (exit 4).
    """
    agreed = contract.contract_of(spec, kind=kind, probabilities=probabilities)
    deployable = Deployable(network, kind, probabilities).eval()  # in training mode Dropout would stay active
    dtype = {"uint8": torch.uint8, "float32": torch.float32}[agreed.input.dtype]
    example = torch.zeros(2, *(int(side) for side in agreed.input.shape[1:]), dtype=dtype)
    try:
        model = _convert(deployable, example, outputs=[output.name for output in agreed.outputs])
    except (CnnbenchError, MemoryError):
        raise
    except Exception as error:  # torch.export's and the exporter's own, or whatever a network raises while it is traced
        raise CnnbenchError(
            f"the network cannot be exported with a free batch size: {_reason(error)}", Exit.VERDICT
        ) from None
    sign(model, metadata)
    contract.check(model, agreed, metadata=metadata)
    return model


def _convert(deployable: Deployable, example: Tensor, *, outputs: list[str]) -> onnx.ModelProto:
    """Export in two steps: in one, a branch on the batch size would be frozen in silence."""
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # by default a batch of one is a special case, and a branch on it would be frozen, too
        with fx_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            program = torch.export.export(deployable, (example,), dynamic_shapes=({0: batch},))
        exported = torch.onnx.export(
            program,
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            opset_version=contract.OPSET,
            verbose=False,
            input_names=[contract.INPUT],
            output_names=outputs,
        )
    assert exported is not None
    model: onnx.ModelProto = exported.model_proto
    return model


def sign(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Leave nothing in `model` but the graph and `metadata`: no source paths of this machine, no names of tools."""
    for part in contract.graphs(model.graph):
        for item in (part, *part.node, *part.value_info, *part.input, *part.output, *part.initializer):
            del item.metadata_props[:]
            item.doc_string = ""
    model.ir_version = contract.IR_VERSION
    model.producer_name, model.producer_version, model.doc_string = "cnnbench", "", ""
    for item in [item for item in model.opset_import if item.domain]:  # quantisers import domains that no node uses
        model.opset_import.remove(item)
    del model.metadata_props[:]
    for key, value in sorted(metadata.items()):
        model.metadata_props.add(key=key, value=value)


def weights_sha256(network: nn.Module) -> str:
    """Hash of every parameter and buffer by name: the same for the same trained network, whatever file it is in."""
    digest = hashlib.sha256()
    tensors = {**dict(network.named_buffers()), **network.state_dict()}  # also buffers that a state_dict leaves out
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return digest.hexdigest()


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write the model, the same bytes for the same model."""
    path.write_bytes(model.SerializeToString(deterministic=True))


def _reason(error: Exception) -> str:
    """The line of the exporter's message that names the cause: a bullet where there is one, else the first."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return next((line.removeprefix("- ") for line in lines if line.startswith("- ")), lines[0])
