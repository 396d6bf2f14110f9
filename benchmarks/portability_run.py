"""One ONNX file in one runtime, run by the Python of the environment that benchmarks/portability.py made for it.

    python benchmarks/portability_run.py RUNTIME MODEL IMAGES LOGITS

IMAGES is a .npy file `(N, H, W, C)` uint8, LOGITS the .npy file to write. Knows nothing of cnnbench.
"""

import argparse
import sys
from collections.abc import Callable

import numpy as np

BATCH = 64

Logits = Callable[[np.ndarray], np.ndarray]


def onnxruntime(model: str) -> Logits:
    """ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["logits"], {"pixels": pixels})[0]


def openvino(model: str, **options: str) -> Logits:
    """OpenVINO on the CPU, without its telemetry."""
    sys.modules["openvino_telemetry"] = None
    import openvino

    compiled = openvino.Core().compile_model(model, "CPU", options)
    return lambda pixels: compiled({"pixels": pixels})["logits"]


def openvino_f32(model: str) -> Logits:
    """OpenVINO, told to compute in float32."""
    return openvino(model, INFERENCE_PRECISION_HINT="f32")


def opencv(model: str) -> Logits:
    """OpenCV's dnn, with its default engine."""
    import cv2

    network = cv2.dnn.readNetFromONNX(model)

    def logits(pixels: np.ndarray) -> np.ndarray:
        network.setInput(pixels)
        return network.forward()

    return logits


def onnx_reference(model: str) -> Logits:
    """The reference implementation of onnx."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    return lambda pixels: evaluator.run(["logits"], {"pixels": pixels})[0]


def onnx2torch(model: str) -> Logits:
    """The network that onnx2torch makes of the file."""
    import onnx2torch
    import torch

    network = onnx2torch.convert(model).eval()

    def logits(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(pixels)).numpy()

    return logits


def main(runtime: str, model: str, images: str, out: str) -> None:
    """Write the logits, computed 64 images at a time."""
    pixels = np.load(images)
    logits = globals()[runtime](model)
    starts = range(0, len(pixels), BATCH)
    np.save(out, np.concatenate([logits(pixels[start : start + BATCH]) for start in starts]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("runtime", "model", "images", "out"):
        parser.add_argument(name)
    main(**vars(parser.parse_args()))
