#!/usr/bin/env python3
"""Predict with the bundle this file lies in: `python predict.py image.png folder ...`.

Needs Python 3.10, numpy and onnxruntime; Pillow 11.3 only to read image files. This one file is both cnnbench's own
runtime and the copy that travels in every bundle, so what was verified is what is deployed.
"""

import os  # Python itself has loaded these two; any other module, __future__ too, is searched for
import sys


def _is_own_folder(entry: str) -> bool:
    """Whether an entry of the import path is the folder of this file, by its name or behind a link."""
    try:
        folders = [os.path.dirname(path) for path in (os.path.abspath(__file__), os.path.realpath(__file__))]
        return any(os.path.samefile(entry or os.curdir, folder) for folder in folders)
    except OSError:  # it does not exist
        return False


# Python searches the folder of a script first: a numpy.py in a bundle would be run in place of numpy.
sys.path[:] = [entry for entry in sys.path if not _is_own_folder(entry)]
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime 1.31 reads it when it is imported

import argparse
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

try:
    import numpy as np
    import onnxruntime
except ImportError as error:
    if __name__ != "__main__":
        raise
    print(f"predict.py needs numpy and onnxruntime: pip install {error.name}", file=sys.stderr)
    sys.exit(6)

SCHEMA = "cnnbench.bundle/3"
FOLLOWED = {
    "orientation": "upright",
    "frame": "first",
    "inverted": False,
    "resize": "bilinear, width then height",
    "antialias": True,
    "aspect": "stretched",
}
"""Of a manifest's preprocessing, what is the same in all; `background`, `shift` and `mode` are a bundle's own."""


class BundleError(ValueError):
    """The files of a bundle cannot be used."""


class Model:
    """The network of a bundle, on one ONNX Runtime session.

    Args:
        bundle: The folder with model.onnx and manifest.json.
        session: A session made elsewhere, for another provider; by default one on the CPU.
        precision: Which of the bundle's files to use: "fp32", or "fp16" or "int8" where the bundle has them.

    Raises:
        BundleError: The bundle is of another version, lacks a file, is damaged, or names more or fewer classes than its
            graph has.
        ValueError: The bundle has no file of this precision.
    """

    def __init__(self, bundle: str | Path, session: Any = None, precision: str = "fp32") -> None:
        bundle = Path(bundle)
        try:
            self.manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
            if self.manifest.get("schema") != SCHEMA:
                raise BundleError(f"it is of another version: expected {SCHEMA}; run `cnnbench export` again")
            self.class_names: list[str] = self.manifest["class_names"]
            if not isinstance(self.class_names, list) or not all(isinstance(name, str) for name in self.class_names):
                raise BundleError("its class_names are no list of texts")
            self._takes_pixels_as_they_are = self.manifest["contract"]["input"]["dtype"] == "uint8"
            if self.rules is not None:
                _check_rules(self.rules, self.size[2])
            files = [variant["precision"] for variant in self.manifest["variants"] if not variant["refused"]]
            if precision in files:
                file = "model.onnx" if precision == "fp32" else f"model_{precision}.onnx"  # whatever the manifest says
                self.session = session or self._open(bundle / file)
                outputs = {output.name: output.shape for output in self.session.get_outputs()}
                self._gives_probabilities = "probabilities" in outputs
                classes = outputs["logits"][-1]
                if classes != len(self.class_names):
                    raise BundleError(f"the manifest names {len(self.class_names)} classes, the graph has {classes}")
        except Exception as error:  # ONNX Runtime has classes of its own, a manifest can be any JSON
            raise BundleError(f"{bundle} cannot be used: {_reason(error)}") from None
        if precision not in files:
            raise ValueError(f"{bundle} holds no {precision} model; expected {' or '.join(files)}")

    def _open(self, file: Path) -> Any:
        """A session on the CPU, of a graph that takes images of the manifest's size."""
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        takes = session.get_inputs()[0].shape[1:]
        if {*takes} != {*self.size}:  # before room is made for an image
            raise BundleError(f"the manifest's images are {self.size}, the graph takes {takes}")
        return session

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
        return self._run("logits", images)

    def _run(self, output: str, images: np.ndarray) -> np.ndarray:
        # A small network takes so little time that checks ahead of it would be felt: they come where it fails.
        if not self._takes_pixels_as_they_are:
            self._check(images)
            images = as_input(images, self.manifest["contract"])
        try:
            result: np.ndarray = self.session.run([output], {"pixels": images})[0]  # any layout
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
        """Probabilities `(N, num_classes)` float32 of images `(N, H, W, C)` uint8, each row summing to 1.

        The graph's own where it has them, which may be calibrated; else the softmax of the logits.
        """
        if self._gives_probabilities:
            return self._run("probabilities", images)
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

    @property
    def rules(self) -> dict[str, Any] | None:
        """How image files become pixels; None in bundles of earlier versions. See `decode`."""
        rules: dict[str, Any] | None = self.manifest.get("preprocessing")
        return rules

    def read(self, path: str | Path) -> np.ndarray:
        """An image file as `(1, H, W, C)` uint8, see `decode`."""
        return decode(path, *self.size, rules=self.rules)[None]


def _check_rules(rules: dict[str, Any], channels: int) -> None:
    own = {"background": range(256), "shift": range(9), "mode": ["RGB" if channels == 3 else "L"]}
    for name in (*FOLLOWED, *own):
        value = rules.get(name)
        if value not in own.get(name, [FOLLOWED.get(name)]):
            raise BundleError(f"its preprocessing has the {name} {value!r}, which this predict.py does not follow")


def as_input(images: np.ndarray, contract: dict[str, Any]) -> np.ndarray:
    """Images `(N, H, W, C)` uint8 as the graph of `contract` takes them."""
    if contract["input"]["dtype"] == "uint8":
        return np.ascontiguousarray(images)
    planes: np.ndarray = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
    return planes


def decode(path: Any, height: int, width: int, channels: int, *, rules: dict[str, Any] | None = None) -> np.ndarray:
    """An image file as `(height, width, channels)` uint8: upright, RGB or gray, resized whole with bilinear filtering.

    Args:
        path: The file, or one that is open for reading bytes.
        height: Of the result.
        width: Of the result.
        channels: 3 for RGB, 1 for gray.
        rules: A manifest's `preprocessing`: transparent pixels are composited on its `background`, and a value of 16
            bits becomes `min(value >> shift, 255)`. Without it transparency is ignored and the upper 8 bits are kept.

    Raises:
        OSError: The file is missing or is not an image that can be read, or no image file has so many channels.
    """
    if channels not in (1, 3):
        raise OSError(f"the network takes {channels} channels, image files have 1 or 3: give an array to Model.predict")
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                if image.format == "EPS":
                    raise OSError("it is PostScript, a program that Ghostscript would run; convert it first")
                image.filename = ""  # else Pillow maps raw pixels, and a damaged header can end the process
                upright = ImageOps.exif_transpose(image)
                if upright.mode == "F" or (upright.mode == "I" and image.format != "PPM"):
                    raise OSError(f"its pixels are of mode {upright.mode}; expected 8 or 16 bits a channel")
                if upright.mode.startswith("I"):  # 16-bit gray, which convert() would clip at 255
                    upright = Image.fromarray(_eight_bits(np.asarray(upright), upright.info, rules))
                if upright.mode == "1" and upright.info.get("transparency") == 1:
                    upright.info["transparency"] = 255  # white, whose number newer Pillow corrects itself
                if rules and upright.has_transparency_data:
                    upright = _composited(upright, rules["background"])
                if upright.mode == "P":
                    upright = upright.convert("RGBA")  # as Pillow asks for where a palette has transparency
                if rules or upright.mode == "LAB":
                    upright = upright.convert("RGB")  # gray is that of RGB, whatever a file holds
                upright = upright.convert("RGB" if channels == 3 else "L")
                if rules:  # one axis a call: newer Pillow takes the cheaper one first, and rounds otherwise
                    upright = upright.resize((width, upright.height), Image.Resampling.BILINEAR)
                if upright.size != (width, height):
                    upright = upright.resize((width, height), Image.Resampling.BILINEAR)
                return np.asarray(upright, dtype=np.uint8).reshape(height, width, channels)
    except Exception as error:  # of damaged files Pillow raises SyntaxError, struct.error, IndexError and others
        raise OSError(_reason(error)) from None


def _eight_bits(values: np.ndarray, info: dict[Any, Any], rules: dict[str, Any] | None) -> np.ndarray:
    """Values of 16 bits as uint8; those that a PNG names transparent are the background."""
    gray: np.ndarray = np.minimum(values >> (rules["shift"] if rules else 8), 255).astype(np.uint8)
    if rules and isinstance(info.get("transparency"), int):
        gray[values == info["transparency"]] = rules["background"]
    return gray


def _composited(image: Any, level: int) -> Any:
    """An image with transparency on a ground of one gray level."""
    from PIL import Image

    return Image.alpha_composite(Image.new("RGBA", image.size, (level, level, level, 255)), image.convert("RGBA"))


def find(folder: str, skipped: list[str]) -> Iterator[str | OSError]:
    """The image files in a folder and its subfolders, sorted by name; an error for each folder that cannot be read.

    What else is there is added to `skipped`: other files, hidden ones, and links to folders.
    """
    from PIL import Image

    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        yield error
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from find(entry.path, skipped)
            continue
        regular = os.path.isfile(entry.path) or not os.path.exists(entry.path)  # a named pipe may never end
        if regular and not entry.name.startswith(".") and Path(entry.name).suffix.lower() in suffixes:
            yield entry.path
        else:
            skipped.append(entry.path)


def printable(text: str) -> str:
    """Text as one line without control characters and undecodable bytes, which are escaped.

    Joiners, which Persian, Hindi and emoji need, and spaces that do not break are none.
    """
    return "".join(
        part if part.isprintable() or part in "\u200c\u200d\u00a0" else part.encode("unicode_escape").decode()
        for part in text
    )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, OSError | BundleError) else f"{type(error).__name__}: {error}"


def _complain(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


@contextmanager
def _no_output_of_c() -> Iterator[None]:
    """What C libraries write to stderr by themselves, such as libtiff, is dropped."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _answer(path: str, model: Model, chosen: argparse.Namespace) -> str:
    """The line for one image file, as text or JSON."""
    with _no_output_of_c():
        image = model.read(path)
    probabilities = model.probabilities(image)[0]
    if not np.isfinite(probabilities).all():
        raise ValueError("the network's answer is not finite")
    best = np.argsort(-probabilities, kind="stable")[: chosen.top]
    classes = [(model.class_names[index], float(probabilities[index])) for index in best]
    unknown = classes[0][1] < chosen.threshold
    if chosen.json:
        named = [{"class": name, "probability": probability} for name, probability in classes]
        return json.dumps({"path": path, "unknown": unknown, "classes": named})
    told = [f"{printable(name)} {probability:.4f}" for name, probability in classes]
    return "\t".join([printable(path), *["unknown"] * unknown, *told])


def _print_all(model: Model, chosen: argparse.Namespace) -> int:
    """Print a line per image, and on stderr one per file that cannot be read. Return the exit code."""
    code, found, skipped = 0, False, list[str]()
    for argument in chosen.images:
        for file in find(argument, skipped) if os.path.isdir(argument) else [argument]:
            found, path = True, file.filename if isinstance(file, OSError) else file
            try:
                if isinstance(file, OSError):
                    raise file
                line = _answer(path, model, chosen)
            except Exception as error:  # whatever it is, the next file is read
                code, reason = 3, _reason(error)
                _complain(f"cannot read {path} as an image: {reason}")
                line = json.dumps({"path": path, "error": reason}) if chosen.json else ""
            if line:
                print(line, flush=True)
    if skipped:
        names = ", ".join(skipped[:3]) + ", ..." * (len(skipped) > 3)
        _complain(f"skipped {len(skipped)} that are hidden, links, or no images by name: {names}")
    if not found:
        _complain(f"no image in {', '.join(chosen.images)}")
    return code if found else 3


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def main() -> int:
    """Predict the images that the command line names. Exit 3 if one cannot be read, or the bundle cannot be used."""
    parser = _Parser(
        description="Name the likeliest classes of image files, with probabilities.",
        epilog="Exit code: 0, or 3 if a file could not be read, 2 for wrong arguments, 6 without a package.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="any file that Pillow reads, or a folder of them")
    parser.add_argument("--top", type=int, default=3, help="how many classes to name (default 3)")
    parser.add_argument("--threshold", type=float, default=0, help='say "unknown" below this probability (default 0)')
    parser.add_argument("--json", action="store_true", help="a JSON object per file: path, unknown, classes; or error")
    parser.add_argument("--precision", default="fp32", help="fp32, or fp16 or int8 where the bundle has it")
    chosen = parser.parse_args()
    if chosen.top < 1:
        parser.error(f"--top {chosen.top}: expected at least 1")
    if not 0 <= chosen.threshold <= 1:
        parser.error(f"--threshold {chosen.threshold:g}: expected 0 to 1")
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        _complain("image files are read with Pillow: pip install pillow")
        return 6
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints its warnings
    try:
        return _print_all(Model(Path(__file__).parent, precision=chosen.precision), chosen)
    except BundleError as error:
        _complain(str(error))
        return 3
    except ValueError as error:
        parser.error(str(error))


def _run() -> int:
    """`main` on any terminal and any pipe."""
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")  # None where a shell closed it
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for letters that the terminal lacks
    try:
        return main()
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # of stdout: images that cannot be read are told above
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to fail when Python ends
        if isinstance(error, BrokenPipeError):  # `| head` has read enough
            return 0
        _complain(f"cannot write: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(_run())
