#!/usr/bin/env python3
"""Predict with the bundle this file lies in: `python predict.py image.png ...`.

Needs numpy and onnxruntime; Pillow only to read image files. This one file is both cnnbench's own runtime and the
copy that travels in every bundle, so what was verified is what is deployed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

SCHEMA = "cnnbench.bundle/3"


class Model:
    """The network of a bundle, on one ONNX Runtime session.

    Args:
        bundle: The folder with model.onnx and manifest.json.
        session: A session made elsewhere, for another provider; by default one on the CPU.
        precision: Which of the bundle's files to use: "fp32", or "fp16" or "int8" where the bundle has them.

    Raises:
        ValueError: The bundle is of another version, or has no such file.
    """

    def __init__(self, bundle: str | Path, session: Any = None, precision: str = "fp32") -> None:
        bundle = Path(bundle)
        self.manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
        if self.manifest.get("schema") != SCHEMA:
            raise ValueError(f"{bundle} is a bundle of another version: expected {SCHEMA}; run `cnnbench export` again")
        self.class_names: list[str] = self.manifest["class_names"]
        self._takes_pixels_as_they_are = self.manifest["contract"]["input"]["dtype"] == "uint8"
        files = {v["precision"]: v["file"] for v in self.manifest["variants"] if not v["refused"]}
        if precision not in files:
            raise ValueError(f"{bundle} holds no {precision} model; expected {' or '.join(files)}")
        self.session = session or onnxruntime.InferenceSession(
            str(bundle / files[precision]), providers=["CPUExecutionProvider"]
        )

    @property
    def size(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that the network takes."""
        spec = self.manifest["spec"]
        return spec["height"], spec["width"], spec["channels"]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Raw logits `(N, num_classes)` float32 of images `(N, H, W, C)` uint8, as an image decoder gives them.

        Raises:
            ValueError: The images have another type or shape than the network takes.
        """
        # A small network takes so little time that checks ahead of it would be felt: they come where it fails.
        if not self._takes_pixels_as_they_are:
            self._check(images)
            images = as_input(images, self.manifest["contract"])
        try:
            result: np.ndarray = self.session.run(["logits"], {"pixels": images})[0]  # any layout
        except Exception:
            self._check(images)  # ONNX Runtime looked at type and shape already; this says it better
            raise
        return result

    def _check(self, images: np.ndarray) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self.size:
            raise ValueError(
                f"images are {images.dtype} {images.shape}; expected uint8 (N, {', '.join(map(str, self.size))})"
            ) from None

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Softmax of the logits: `(N, H, W, C)` uint8 -> `(N, num_classes)` float32, each row summing to 1."""
        logits = self.logits(images)
        weights: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
        return result

    def predict(self, images: np.ndarray) -> list[str]:
        """The name of the most likely class of each image, `(N, H, W, C)` uint8."""
        best = self.logits(images).argmax(axis=1).tolist()  # an array's own numbers are slow to index with
        if len(best) == 1:  # the same again, without the price of a loop
            return [self.class_names[best[0]]]
        return [self.class_names[index] for index in best]

    def read(self, path: str | Path) -> np.ndarray:
        """An image file as `(1, H, W, C)` uint8, see `decode`."""
        return decode(path, *self.size)[None]


def as_input(images: np.ndarray, contract: dict[str, Any]) -> np.ndarray:
    """Images `(N, H, W, C)` uint8 as the graph of `contract` takes them."""
    if contract["input"]["dtype"] == "uint8":
        return np.ascontiguousarray(images)
    planes: np.ndarray = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
    return planes


def decode(path: str | Path, height: int, width: int, channels: int) -> np.ndarray:
    """An image file as `(height, width, channels)` uint8: upright, RGB or gray, resized whole with bilinear filtering.

    Transparency is ignored; of 16 bits a channel the upper 8 are kept.

    Raises:
        OSError: The file is missing or is not an image that can be read, or no image file has so many channels.
    """
    if channels not in (1, 3):
        raise OSError(f"the network takes {channels} channels, image files have 1 or 3: give an array to Model.predict")
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
    """Print one line an image: path, then the likeliest classes, each with its probability. Exit 3 on a bad image."""
    parser = argparse.ArgumentParser(description="Name the likeliest classes of image files, with probabilities.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="any file that Pillow reads")
    parser.add_argument("--top", type=int, default=3, help="how many classes to name (default 3)")
    parser.add_argument("--precision", default="fp32", help="fp32, or fp16 or int8 where the bundle has it")
    chosen = parser.parse_args()
    if chosen.top < 1:
        parser.error(f"--top {chosen.top}: expected at least 1")
    try:
        model = Model(Path(__file__).parent, precision=chosen.precision)
    except ValueError as error:
        parser.error(str(error))
    for path in chosen.images:
        try:
            probabilities = model.probabilities(model.read(path))[0]
        except ImportError:
            print("image files are read with Pillow: pip install pillow", file=sys.stderr)
            return 6
        except OSError as error:
            print(f"cannot read {path} as an image: {error}", file=sys.stderr)
            return 3
        best = np.argsort(-probabilities, kind="stable")[: chosen.top]
        print("\t".join([path, *(f"{model.class_names[index]} {probabilities[index]:.4f}" for index in best)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
