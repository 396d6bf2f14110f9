"""What every exported graph takes and returns, and what it says of itself. Needs onnx, not torch."""

from __future__ import annotations

import json

import onnx

from cnnbench.types import CnnbenchError, Exit, ImageSpec

INPUT, OUTPUT = "pixels", "logits"


def signature(spec: ImageSpec) -> dict[str, dict[str, object]]:
    """Names, types and shapes of the graph's input and output, as the manifest states them."""
    return {
        "input": {"name": INPUT, "dtype": "uint8", "shape": ["batch", spec.height, spec.width, spec.channels]},
        "output": {"name": OUTPUT, "dtype": "float32", "shape": ["batch", spec.num_classes]},
    }


def metadata(arch: str, dataset: str, class_names: tuple[str, ...], spec: ImageSpec, weights: str) -> dict[str, str]:
    """What the file says of itself, for someone who has nothing but the file."""
    return {
        "architecture": arch,
        "dataset": dataset,
        "class_names": json.dumps(class_names),
        "input": f"uint8 (batch, {spec.height}, {spec.width}, {spec.channels}), as an image decoder gives them",
        **{name: str(getattr(spec, name)) for name in ("height", "width", "channels", "num_classes")},
        "weights_sha256": weights,
    }


def check(model: onnx.ModelProto, spec: ImageSpec) -> None:
    """Hold a graph to the contract.

    Raises:
        CnnbenchError: It is not valid ONNX, needs another file, or breaks the contract (exit 4).
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _refused(f"the ONNX checker refuses it: {str(error).splitlines()[0]}") from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise _refused("its weights lie in another file")
    shapes = [(v.name, v.type.tensor_type.elem_type, _shape(v)) for v in (*model.graph.input, *model.graph.output)]
    expected = [
        (INPUT, onnx.TensorProto.UINT8, ["batch", spec.height, spec.width, spec.channels]),
        (OUTPUT, onnx.TensorProto.FLOAT, ["batch", spec.num_classes]),
    ]
    if shapes != expected:
        raise _refused(f"its inputs and outputs are {shapes}; expected {expected}")
    for node in model.graph.node:
        training = any(a.name == "training_mode" and a.i for a in node.attribute)
        if node.op_type == "Dropout" or training:
            raise _refused(f"node {node.name} ({node.op_type}) is in training mode")


def _shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _refused(reason: str) -> CnnbenchError:
    return CnnbenchError(f"the exported graph is refused: {reason}", Exit.VERDICT)
