"""The card of a bundle, README.md: a Hugging Face model card, made from the manifest alone."""

from __future__ import annotations

import hashlib
import html
import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml
from jinja2 import Environment, StrictUndefined, Template

from cnnbench import records
from cnnbench.analysis import per_class
from cnnbench.bundles.parity import comparison
from cnnbench.records.bundle import Manifest, PrecisionFile
from cnnbench.types import CnnbenchError

CONTENTS = {
    "model.onnx": "the network in float32",
    "model_fp16.onnx": "weights and arithmetic in float16, float32 outside",
    "model_int8.onnx": "weights in 7 bits of int8 per channel, activations in uint8, calibrated on training images",
    "manifest.json": "contract, cost, verification, hashes of every file, environment",
    "golden.npz": "some test images and other inputs, with the network's logits in float64, and each smaller file's",
    "reference.npz": "labels and PyTorch's classes of test and validation images, each smaller file's of validation",
    "flips.csv": "every test image whose class differs from PyTorch's, with its margin",
    "predict.py": "decode, resize and predict: numpy, onnxruntime, and Pillow for image files",
    "README.md": "this card",
}

LARGEST_HEAD = 2**16
"""Characters of a card's YAML; ours has 1,000, and its parser takes a minute for some that have 900,000."""

MOST_CLASSES = 10
"""Of which the card states the recall."""


def write(path: Path, manifest: Manifest) -> None:
    """Write the card of `manifest`, with its `model-index`."""
    path.write_text(text(manifest))


def text(manifest: Manifest) -> str:
    """The card's text."""
    head = yaml.safe_dump(front_matter(manifest), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n{_body(manifest)}"


def version() -> str:
    """SHA-256 of what writes a card: this file and its template."""
    files = (Path(__file__), Path(__file__).with_name("card.md"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def front_matter(manifest: Manifest) -> dict[str, Any]:
    """What the Hugging Face Hub reads: https://huggingface.co/docs/hub/model-cards."""
    dataset = manifest.data.name
    metrics = [
        {
            "type": "accuracy",
            "name": f"top-1, {file.file}, {file.passes[0].active}",
            "value": manifest.accuracy(file),
        }
        for file in manifest.kept
    ]
    result = {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {"type": dataset, "name": dataset, "split": "test"},
        "metrics": metrics,
    }
    return {
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["onnx", "onnxruntime", "cnnbench", manifest.arch],
        "metrics": ["accuracy"],
        "model-index": [{"name": manifest.task, "results": [result]}],
    }


def recommended(manifest: Manifest) -> PrecisionFile:
    """The file to deploy: the smallest that loses no more on validation than was allowed and is not slower than fp32.

    Both times are medians of the export itself, one image on one thread, in turn. Where no other file is both, fp32.
    """
    fp32 = manifest.kept[0]  # the file of float32 is never refused
    fitting = [
        file
        for file in manifest.kept
        if file.latency_ms is not None and file.fp32_latency_ms is not None and file.latency_ms <= file.fp32_latency_ms
    ]
    return min([fp32, *fitting], key=lambda file: file.bytes)


def _recommendation(manifest: Manifest) -> str:
    file = recommended(manifest)
    if file.precision != "fp32":
        return (
            f"the smallest file that loses at most {file.budget_points:g} points on validation and whose median time "
            f"for one image on one thread, {file.latency_ms:.3f} ms, is not above that of fp32, "
            f"{file.fp32_latency_ms:.3f} ms"
        )
    if len(manifest.kept) == 1:
        return "the only file"
    return "no smaller file is at least as fast for one image on one thread"


CLEAR = 32
"""Levels between border and mean of the images from which on it is said which side is light."""


def _polarity(manifest: Manifest) -> str:
    """Whether the training images are light on dark, as far as their levels tell."""
    chosen, means = manifest.preprocessing, manifest.spec.mean
    if chosen is None or not means:
        return ""
    mean = 255 * sum(means) / len(means)
    words = (
        ": dark on light"
        if chosen.border - mean >= CLEAR
        else ": light on dark"
        if mean - chosen.border >= CLEAR
        else ""
    )
    return f"; the training images have a mean level of {mean:.0f}, at their borders of {chosen.border}{words}"


def read_front_matter(path: Path) -> Any:
    """The YAML at the head of a card; None where there is none, or more than `LARGEST_HEAD`."""
    try:
        _, _, rest = records.read_bytes(path).decode().partition("---\n")
        head, end, _ = rest.partition("\n---\n")
        return yaml.safe_load(head) if end and len(head) <= LARGEST_HEAD else None
    except CnnbenchError:
        raise
    except Exception:  # bytes that are no text, dates that are none, deep nesting, tags of other types
        return None


def _body(manifest: Manifest) -> str:
    spec, kind = manifest.spec, manifest.contract.input.dtype
    verified = [file for file in manifest.variants if file.passes]
    providers = {figures.provider for file in verified for figures in file.passes}
    fields = msgspec.to_builtins(manifest) | {"reference": manifest.reference, "thresholds": manifest.thresholds}
    contents = [(name, CONTENTS[name]) for name in CONTENTS if name in {*manifest.files, "manifest.json", "README.md"}]
    return _template().render(
        **fields | {"files": contents, "verified": verified},
        dataset=manifest.data.name,
        **_by_class(manifest),
        recommended=_Code(recommended(manifest).file),
        why=_recommendation(manifest),
        augment=str(manifest.data.augment),
        polarity=_polarity(manifest),
        example=(1, *manifest.contract.input.shape[1:]),
        pixels={
            "uint8": f"{'gray' if spec.channels == 1 else 'RGB'} as an image decoder gives it",
            "float32": "channels first, in [0, 1]",
        }[kind],
        room=f"{comparison.FLOAT32:g}",
        sizes=comparison.BATCH_SIZES,
        batch_images=min(manifest.reference.images, comparison.BATCH_SIZE_IMAGES),
        placement=verified[0].passes[0].placement.items(),
        unmade=[file for file in manifest.variants if not file.passes],
        runtime=next((v for k, v in manifest.environment.packages.items() if k.startswith("onnxruntime")), ""),
        gpu="" if "cuda" in providers else "It was not run on a GPU.",
    )


def _by_class(manifest: Manifest) -> dict[str, Any]:
    """The figures by class, with the classes of the lowest recall; no recalls in bundles of earlier versions."""
    counts = manifest.by_class
    if counts is None:
        return {"recalls": ()}
    label, share = per_class.majority(counts)
    recalls = sorted(per_class.recalls(counts), key=lambda recall: recall.share)[:MOST_CLASSES]
    return {
        "recalls": recalls,
        "majority": (manifest.class_names[label], share),
        "beats_majority": per_class.beats_majority(counts),
        "balanced": per_class.balanced_accuracy(counts),
        "f1": per_class.macro_f1(counts),
    }


@cache
def _template() -> Template:
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_as_text)
    environment.filters["code"] = _Code
    return environment.from_string((Path(__file__).parent / "card.md").read_text())


class _Code(str):
    """What stands between backticks or in a block of code, where nothing is markup but the end of it."""

    __slots__ = ()

    def __new__(cls, value: object) -> _Code:
        return super().__new__(cls, " ".join(str(value).replace("```", "` ` `").splitlines()))


def _as_text(value: Any) -> Any:
    """A text as it is read: names of classes, tasks and data are no HTML and no Markdown."""
    if not isinstance(value, str) or isinstance(value, _Code):
        return value
    return MARKUP.sub(r"\\\g<0>", html.escape(" ".join(value.splitlines()), quote=False))


MARKUP = re.compile(r"[\\`*\[\]|]")
