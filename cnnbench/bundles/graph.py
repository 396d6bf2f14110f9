"""torch -> ONNX: one self-contained file from decoded images to logits, for any batch size."""

from __future__ import annotations

import hashlib
import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from cnnbench.bundles import contract, program
from cnnbench.pixels import LEVELS
from cnnbench.types import CnnbenchError, Exit, ImageSpec, first_line


class Deployable(nn.Module):
    """The network with all preprocessing inside: pixels to logits `(N, num_classes)` float32.

    Args:
        network: Float pixels `(N, C, H, W)` in [0, 1] to logits.
        kind: "uint8" takes `(N, H, W, C)` as a decoder gives them, "float" `(N, C, H, W)` in [0, 1].
        probabilities: Whether to return the logits' softmax, too.
        temperature: By which the logits are divided before that.
    """

    def __init__(
        self,
        network: nn.Module,
        kind: contract.InputKind = "uint8",
        probabilities: bool = False,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, self.kind, self.probabilities = network, kind, probabilities
        self.temperature = temperature

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.kind == "uint8":
            # as pixels.to_float; contiguous() becomes one Transpose, else the exporter emulates strides node by node
            pixels = pixels.permute(0, 3, 1, 2).contiguous().float() / LEVELS  # N, C, H, W in [0, 1]
        logits: Tensor = self.network(pixels)
        if not self.probabilities:
            return logits
        # without a division where there is nothing to divide by
        scaled = logits if self.temperature == 1.0 else logits / self.temperature
        return logits, scaled.softmax(dim=1)


@dataclass(frozen=True)
class Exported:
    """A network as ONNX, and what it must equal."""

    model: onnx.ModelProto
    deployable: Deployable
    """The trained network."""
    reference: program.ReferenceNetwork
    """The same, simplified in float64; see `program`."""


def to_onnx(
    network: nn.Module,
    spec: ImageSpec,
    *,
    metadata: dict[str, str],
    kind: contract.InputKind = "uint8",
    probabilities: bool = False,
    temperature: float = 1.0,
) -> Exported:
    """Export `network` (float pixels `(N, C, H, W)` to logits) as a deployable ONNX model.

    Raises:
        CnnbenchError: The network cannot be exported with a free batch size, an operator of it has no ONNX form, or
            what came out breaks the contract (exit 4).
    """
    agreed = contract.contract_of(spec, kind=kind, probabilities=probabilities)
    deployable = Deployable(
        network, kind, probabilities, temperature
    ).eval()  # in training mode Dropout would stay active
    dtype = {"uint8": torch.uint8, "float32": torch.float32}[agreed.input.dtype]
    example = torch.zeros(2, *(int(side) for side in agreed.input.shape[1:]), dtype=dtype)
    try:
        with _quiet():
            reference = program.reference_network(deployable, example)
    except MemoryError:
        raise
    except Exception as error:  # torch.export's own, or whatever a network raises while it is traced
        raise CnnbenchError(
            f"the network cannot be exported with a free batch size: {_reason(error)}", Exit.VERDICT
        ) from None
    try:
        with _quiet():
            model = _convert(reference, outputs=[output.name for output in agreed.outputs])
    except MemoryError:
        raise
    except Exception as error:
        raise CnnbenchError(_without_onnx_form(error, reference), Exit.VERDICT) from None
    sign(model, metadata)
    contract.check(model, agreed, metadata=metadata, control_flow=reference.control_flow)
    return Exported(model, deployable, reference)


def _convert(reference: program.ReferenceNetwork, *, outputs: list[str]) -> onnx.ModelProto:
    """The reference network as ONNX. It was traced before: in one step, a branch on the batch size would be frozen."""
    with torch.no_grad(), _equal_constants():
        exported = torch.onnx.export(
            reference.program,
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            opset_version=contract.OPSET,
            verbose=False,
            input_names=[contract.INPUT],
            output_names=outputs,
        )
    assert exported is not None
    model: onnx.ModelProto = exported.model_proto
    _drop_allowzero(model.graph)
    return model


def _drop_allowzero(graph: onnx.GraphProto) -> None:
    """Leave `allowzero` out where the new shape is a constant without a zero: some readers stop at it for nothing."""
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in shapes and shapes[node.input[1]].all():
            for attribute in [attribute for attribute in node.attribute if attribute.name == "allowzero"]:
                node.attribute.remove(attribute)


@contextmanager
def _equal_constants() -> Iterator[None]:
    """Within it onnxscript drops `x + 0` and `x * 1`, and no longer `x + 1e-8` and `x * 1.000005`.

    Its rewrite rules ask math.isclose whether a constant is theirs, with tolerances that no caller can set.
    """
    with mock.patch.object(math, "isclose", lambda one, other, **_: one == other):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch.export and the exporter print."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _without_onnx_form(error: Exception, reference: program.ReferenceNetwork) -> str:
    """Which operator of which module the exporter cannot translate, where its message says so; else its reason."""
    said, cause = str(error), _cause(error)
    missing = re.search(r"No ONNX function found for <OpOverload\(op='\w+\.(\w+)'", said)
    failing = missing or re.search(r"Error when translating node .*target=torch\.ops\.\w+\.(\w+)", said)
    failing = failing or re.search(r"Cannot find a compatible OpOverload for \w+\.(\w+)", said)
    if not failing:
        return f"the network cannot be written as ONNX: {cause}"
    operator = failing[1]
    if missing and not any(program.operator_places(reference.traced, operator)):
        operator = program.original_operator(reference.traced, operator)
    places = list(dict.fromkeys(program.operator_places(reference.traced, operator)))
    where = f" of {', '.join(places[:3])}" if places else ""
    if missing:
        numbers = " for complex numbers" if "complex-valued" in cause else ""
        return f"the operator {operator}{where} has no ONNX form{numbers} in opset {contract.OPSET}"
    return f"the operator {operator}{where} cannot be written as ONNX: {cause}"


def _cause(error: BaseException) -> str:
    """The first line of what an exception began with, without the colours that the exporter writes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return re.sub(r"\x1b\[[0-9;]*m", "", first_line(error))


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
    """The line of torch.export's message that names the cause: a bullet where there is one, else the first."""
    if fixed := re.search(r"your code specialized it to be a constant \((\d+)\)", str(error)):
        return f"it takes the batch for {fixed[1]} images: write x.shape[0], which stays free, not len(x) or a number"
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return next((line.removeprefix("- ") for line in lines if line.startswith("- ")), lines[0])
