#!/usr/bin/env python3
"""Predict with the bundle this file lies in: `python predict.py image.png ...`.

Needs numpy and onnxruntime; Pillow only to read image files. This one file is both cnnbench's own runtime and the
copy that travels in every bundle, so what was verified is what is deployed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class Model:
    """The network of a bundle, on one ONNX Runtime session.

    Args:
        bundle: The folder with model.onnx and manifest.json.
        session: A session made elsewhere, for another provider; by default one on the CPU.
    """

    def __init__(self, bundle: str | Path, session: Any = None) -> None:
        bundle = Path(bundle)
        self.manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
        self.class_names: list[str] = self.manifest["class_names"]
        self.session = session or onnxruntime.InferenceSession(
            str(bundle / "model.onnx"), providers=["CPUExecutionProvider"]
        )

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Raw logits `(N, num_classes)` float32 of images `(N, H, W, C)` uint8, as an image decoder gives them.

        Raises:
            ValueError: The images have another type or shape than the network takes.
        """
        _, height, width, channels = self.manifest["contract"]["input"]["shape"]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, channels):
            raise ValueError(
                f"images are {images.dtype} {images.shape}; expected uint8 (N, {height}, {width}, {channels})"
            )
        result: np.ndarray = self.session.run(["logits"], {"pixels": images})[0]
        return result

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Softmax of the logits: `(N, H, W, C)` uint8 -> `(N, num_classes)` float32, each row summing to 1."""
        logits = self.logits(images)
        weights: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
        return result

    def predict(self, images: np.ndarray) -> list[str]:
        """The name of the most likely class of each image, `(N, H, W, C)` uint8."""
        return [self.class_names[index] for index in self.logits(images).argmax(axis=1)]

    def read(self, path: str | Path) -> np.ndarray:
        """An image file as `(1, H, W, C)` uint8, see `decode`."""
        _, height, width, channels = self.manifest["contract"]["input"]["shape"]
        return decode(path, height, width, channels)[None]


def decode(path: str | Path, height: int, width: int, channels: int) -> np.ndarray:
    """An image file as `(height, width, channels)` uint8: upright, RGB or gray, resized whole with bilinear filtering.

    Transparency is ignored; of 16 bits a channel the upper 8 are kept.

    Raises:
        OSError: The file is missing or is not an image that can be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "F" or (upright.mode == "I" and image.format != "PPM"):
                raise ValueError(f"its pixels are of mode {upright.mode}; expected 8 or 16 bits a channel")
            if upright.mode.startswith("I"):  # 16-bit gray, which convert() would clip at 255
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            if upright.mode == "P":
                upright = upright.convert("RGBA")  # as Pillow asks for where a palette has transparency
            upright = upright.convert("RGB" if channels == 3 else "L")
            if upright.size != (width, height):
                upright = upright.resize((width, height), Image.Resampling.BILINEAR)
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises at times
        raise OSError(str(error)) from None
    return np.asarray(upright, dtype=np.uint8).reshape(height, width, channels)


def main() -> int:
    """Print one line an image: path, class name, probability. Exit 2 without arguments, 3 on an unreadable image."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(f"usage: {Path(sys.argv[0]).name} IMAGE [IMAGE ...]", file=sys.stderr)
        return 2
    model = Model(Path(__file__).parent)
    for path in sys.argv[1:]:
        try:
            probabilities = model.probabilities(model.read(path))[0]
        except OSError as error:
            print(f"cannot read {path} as an image: {error}", file=sys.stderr)
            return 3
        best = int(probabilities.argmax())
        print(f"{path}\t{model.class_names[best]}\t{probabilities[best]:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
