"""Image files classified by a bundle or by a run: what each is taken for, and which could not be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from cnnbench.datasets.tree import shown
from cnnbench.runtime import predict
from cnnbench.types import CnnbenchError, Exit

BATCH = 64
"""Images per call."""


@dataclass(frozen=True)
class Answer:
    """One file, and the probability of each class."""

    file: str
    probabilities: tuple[float, ...] = ()
    """Empty where it could not be read."""
    error: str = ""
    """Why it could not be read."""


@dataclass(frozen=True)
class Answers:
    """Every image file of a folder, in the order of their names."""

    class_names: tuple[str, ...]
    answers: tuple[Answer, ...]
    skipped: tuple[str, ...]
    """Files that are hidden, links, or no images by their names."""

    @property
    def unread(self) -> int:
        """Files that could not be read."""
        return sum(bool(answer.error) for answer in self.answers)


@dataclass(frozen=True)
class _Network:
    """What classifies: names of classes, a file's pixels `(1, H, W, C)`, and probabilities `(N, K)` of such."""

    class_names: tuple[str, ...]
    read: Callable[[str], np.ndarray]
    probabilities: Callable[[np.ndarray], np.ndarray]


def classify(source: str | Path, images: str | Path, *, precision: str = "fp32") -> Answers:
    """Classify image files with a bundle or a run; a file that cannot be read does not end it.

    Args:
        source: A bundle; or a run folder, a task folder (its best seed on validation), or a checkpoint.
        images: A folder, whose subfolders are read too, or one file.
        precision: Which of a bundle's files: fp32, or fp16 or int8 where the bundle has them.

    Raises:
        CnnbenchError: The source is neither bundle nor run, is damaged, or there is no image (exit 3); it has no such
            precision (exit 2).
    """
    from cnnbench.bundles.manifest import is_bundle

    if is_bundle(source):
        network = _of_bundle(Path(source), precision)
    elif precision != "fp32":
        raise CnnbenchError(f"precision {precision} does not apply to {source}, which is not a bundle")
    else:
        network = _of_run(source)
    if not Path(images).exists():
        raise CnnbenchError(f"{images} does not exist; expected a folder of images, or an image", Exit.DATA)
    skipped: list[str] = []
    files = predict.find(str(images), skipped) if Path(images).is_dir() else iter([str(images)])
    answers = tuple(_answers(network, files))
    if not answers:
        raise CnnbenchError(f"no image in {images}: expected files that Pillow reads", Exit.DATA)
    return Answers(network.class_names, answers, tuple(map(_text, skipped)))


def _of_bundle(path: Path, precision: str) -> _Network:
    from cnnbench.bundles.manifest import open_manifest
    from cnnbench.runtime.providers import open_session

    files = {file.precision: file.file for file in open_manifest(path).kept}
    if precision not in files:
        raise CnnbenchError(f"{path} has no {precision} file: expected {' or '.join(files)}")
    try:
        model = predict.Model(path, open_session(path / files[precision], "cpu"), precision)
    except predict.BundleError as error:
        raise CnnbenchError(str(error), Exit.DATA) from None
    return _Network(tuple(model.class_names), model.read, model.probabilities)


def _of_run(source: str | Path) -> _Network:
    from cnnbench.analysis.temperature import scaled_softmax
    from cnnbench.bundles.parity.reference import torch_logits
    from cnnbench.training.checkpoints import load_classifier
    from cnnbench.training.folder import find

    classifier = load_classifier(find(source))
    spec, data = classifier.spec, classifier.data
    assert spec is not None
    assert data is not None
    rules = asdict(data.preprocessing) if data.preprocessing else None

    def read(file: str) -> np.ndarray:
        return predict.decode(file, spec.height, spec.width, spec.channels, rules=rules)[None]

    def probabilities(images: np.ndarray) -> np.ndarray:
        return scaled_softmax(torch_logits(classifier.network, images))

    return _Network(classifier.class_names, read, probabilities)


def _answers(network: _Network, files: Iterator[str | OSError]) -> Iterator[Answer]:
    while batch := list(islice(files, BATCH)):
        read = [_read(network, file) for file in batch]
        pixels = [image for image in read if not isinstance(image, str)]
        given = iter(network.probabilities(np.concatenate(pixels)) if pixels else [])
        for file, image in zip(batch, read, strict=True):
            name = _text(str(file.filename) if isinstance(file, OSError) else file)
            yield Answer(name, error=image) if isinstance(image, str) else _answer(name, next(given))


def _answer(name: str, probabilities: np.ndarray) -> Answer:
    if not np.isfinite(probabilities).all():
        return Answer(name, error="the network's answer is not finite")
    return Answer(name, tuple(probabilities.tolist()))


def _read(network: _Network, file: str | OSError) -> np.ndarray | str:
    """The pixels of a file, or why it cannot be read."""
    try:
        if isinstance(file, OSError):
            raise file
        return network.read(file)
    except Exception as error:  # whatever it is, the next file is read
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return reason or type(error).__name__


def _text(name: str) -> str:
    return shown(os.fsdecode(name))
