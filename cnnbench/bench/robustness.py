"""What shifting test images by a few pixels does to a trained network: to its accuracy and to its feature maps."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench import environment, records
from cnnbench.analysis.confidence import read_predictions
from cnnbench.analysis.tracer import trace
from cnnbench.bundles.parity.run import spread
from cnnbench.datasets.choice import open_recorded
from cnnbench.datasets.splits import subset
from cnnbench.records.schema import Equivariance, Robustness, RunRecord
from cnnbench.training.checkpoints import load_classifier
from cnnbench.training.data import EVAL_BATCH_SIZE, channels_first
from cnnbench.training.folder import RunFolder
from cnnbench.types import CnnbenchError, Exit, ImageSpec, Split

SHIFTS = tuple(range(-4, 5))
"""Pixels, for both axes."""
FEATURE_SHIFTS = (1, 2, 3, 4)
"""Pixels to the right, for feature maps."""
FEATURE_IMAGES = 256
ROUNDING = 0.01
"""Part of the images that may be scored otherwise than by `test`, where that ran on a GPU or in lower precision."""


def find(paths: list[str]) -> list[Path]:
    """The folders of tested runs: each of `paths`, or those below it.

    Raises:
        CnnbenchError: There is none below a path (exit 3).
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        folders = [path, *(checkpoint.parent for checkpoint in sorted(path.rglob("seed*/best.ckpt")))]
        runs = [folder for folder in folders if RunFolder(folder).best.is_file() and RunFolder(folder).result.is_file()]
        runs = [folder for folder in runs if not folder.name.endswith(".replaced")]  # `fit --overwrite` at work
        tested = [folder for folder in runs if records.read(RunFolder(folder).result, RunRecord).test]
        if not tested:
            reason = "run `cnnbench test` first" if runs else "expected the folder of a run, or one above, such as runs"
            raise CnnbenchError(f"no tested run at {path}: {reason}", Exit.DATA)
        found |= dict.fromkeys(tested)
    return list(found)


def measured(run: Path, images: int) -> Robustness | None:
    """What was measured of this checkpoint on as many images before; None if nothing was.

    Raises:
        CnnbenchError: A record cannot be read or was edited (exit 3 or 4).
    """
    folder = RunFolder(run)
    if not folder.robustness.is_file():
        return None
    before = records.read(folder.robustness, Robustness)
    wanted = min(images, records.read(folder.result, RunRecord).data.test_images)
    same = before.images == wanted and before.checkpoint_sha256 == records.sha256(folder.best)
    return before if same else None


def measure(run: Path, images: int, root: str | None = None, folder: str | None = None) -> Robustness:
    """Score the best checkpoint of a tested run on shifted test images, on the CPU, and write robustness.json.

    Args:
        run: The folder of the run.
        images: How many test images to shift, evenly from the first to the last of the split.
        root: Folder of the downloaded datasets, where the run's record does not say it rightly.
        folder: Folder of your own images, likewise.

    Raises:
        CnnbenchError: `images` is less than 1 (exit 2); the data or a file of the run is missing or another, or the
            unshifted images are not scored as they were by `test` (exit 3).
    """
    if images < 1:
        raise CnnbenchError(f"--images {images}: expected at least 1")
    files = RunFolder(run)
    record = records.read(files.result, RunRecord)
    checkpoint = records.sha256(files.best)
    if record.test is None or record.test.checkpoint_sha256 != checkpoint:
        raise CnnbenchError(f"{files.best} is not what was tested: run `cnnbench test` first", Exit.DATA)
    network = load_classifier(files.best).network
    test = open_recorded(record.data, root=root, folder=folder).test
    chosen = spread(len(test), images)
    some = subset(test, chosen)
    correct = correct_by_shift(network, some)
    _check_unshifted(int(correct[SHIFTS.index(0), SHIFTS.index(0)]), chosen, test, files, record)
    features, reason = equivariance(network, record.spec, test.images[spread(len(test), FEATURE_IMAGES)])
    found = Robustness(
        task=record.task,
        arch=record.arch,
        dataset=record.data.name,
        seed=record.seed,
        checkpoint_sha256=checkpoint,
        images=len(some),
        shifts=SHIFTS,
        accuracy=tuple(tuple(row) for row in (correct / len(some)).tolist()),
        equivariance=features,
        reason=reason,
        environment=environment.describe(),
    )
    records.write(files.robustness, found)
    return found


def _check_unshifted(correct: int, chosen: np.ndarray, test: Split, files: RunFolder, record: RunRecord) -> None:
    """Hold the images at (0, 0) against predictions.parquet: otherwise something else is being measured."""
    stored = read_predictions(files.predictions)
    if not np.array_equal(stored.labels, test.labels):
        raise CnnbenchError(f"{files.predictions} has other labels than the data: run `cnnbench test` again", Exit.DATA)
    recorded = int(stored.correct[chosen].sum())
    assert record.test is not None
    exact = record.test.logits_sha256 is not None  # computed in float32 on the CPU, as here
    if abs(correct - recorded) > (0 if exact else ROUNDING * len(chosen)):
        raise CnnbenchError(
            f"{files.path} scores {correct} of {len(chosen)} unshifted images, but predictions.parquet {recorded}: "
            "run `cnnbench test` again",
            Exit.DATA,
        )


def correct_by_shift(network: nn.Module, test: Split) -> np.ndarray:
    """How many images of `test` are classified rightly at each shift: `(len(SHIFTS), len(SHIFTS))`, [dy, dx]."""
    correct = np.zeros((len(SHIFTS), len(SHIFTS)), dtype=np.int64)
    with torch.inference_mode():
        for start in range(0, len(test), EVAL_BATCH_SIZE):
            place = slice(start, start + EVAL_BATCH_SIZE)
            images, labels = torch.from_numpy(test.images[place]), torch.from_numpy(test.labels[place])
            for i, dy in enumerate(SHIFTS):
                for j, dx in enumerate(SHIFTS):
                    logits = network(pixels(shifted(images, dx, dy)))
                    correct[i, j] += int((logits.argmax(dim=1) == labels).sum())
    return correct


def shifted(images: Tensor, dx: int, dy: int) -> Tensor:
    """`(N, H, W, C)` moved by `dx` pixels to the right and `dy` down; zeros move in, as the training crop pads."""
    return F.pad(images, (0, 0, dx, -dx, dy, -dy))


def pixels(images: Tensor) -> Tensor:
    """`(N, H, W, C)` uint8 -> `(N, C, H, W)` float32 in [0, 1]."""
    return channels_first(images).float() / 255


@dataclass(frozen=True)
class FeatureMap:
    """A module whose output is a feature map."""

    name: str
    columns: int
    stride: int
    """Pixels of the image from one place to the next."""


def equivariance(network: nn.Module, spec: ImageSpec, images: np.ndarray) -> tuple[Equivariance | None, str]:
    """How far the last feature map before the head is from moving with the image; or None, and why.

    For images x and a shift T of d pixels to the right, zeros moving in, the map F is brought to the image's grid by
    repeating each place `stride` times (features upsampled to the image, as in Zhang 2019, arXiv:1904.11486, section
    3.1), and the error is ||T F(x) - F(T x)|| / ||T F(x)|| over all images, channels and rows. Columns are left out on
    the left and on the right: d, where T moves something in or out, and one place of the map, where the border reaches
    in. What a deep network sees of the border beyond that counts as error, since leaving out its whole receptive field
    would leave nothing. The last map that is wide enough for this is taken.

    Args:
        network: In evaluation mode, from pixels to logits.
        spec: Of its images.
        images: `(N, H, W, C)` uint8.
    """
    maps = feature_maps(network, spec)
    if not maps:
        return None, "no feature maps: every unit sees the whole image"
    wide = [found for found in maps if (found.columns - 2) * found.stride > 2 * max(FEATURE_SHIFTS)]
    if not wide:
        return None, f"no feature map has columns left between its borders; the widest has {maps[0].columns}"
    last = wide[-1]
    whole = np.zeros(len(FEATURE_SHIFTS))
    apart = np.zeros(len(FEATURE_SHIFTS))
    with torch.inference_mode():
        for start in range(0, len(images), 32):  # maps of large images are large
            batch = torch.from_numpy(images[start : start + 32])
            before = _upsampled(network, last, batch)
            for i, d in enumerate(FEATURE_SHIFTS):
                after = _upsampled(network, last, shifted(batch, d, 0))
                inner = slice(d + last.stride, before.shape[3] - d - last.stride)
                moved = before.roll(d, dims=3)[..., inner]
                whole[i] += float(moved.square().sum())
                apart[i] += float((moved - after[..., inner]).square().sum())
    if not whole.all():
        return None, f"the feature map of {last.name} is zero everywhere"
    return Equivariance(last.name, last.stride, tuple(np.sqrt(apart / whole).tolist())), ""


def feature_maps(network: nn.Module, spec: ImageSpec) -> list[FeatureMap]:
    """The modules that put out a map with several rows and columns, from the first convolution on, in their order.

    Left out are those whose stride is not known or not the same both ways.
    """
    with torch.device("meta"):
        twin = copy.deepcopy(network).to("meta")
        layers = trace(twin, spec)
        empty = torch.empty(1, spec.channels, spec.height, spec.width)
    jumps: dict[tuple[int, ...], tuple[int, int]] = {
        layer.output_shape[1:]: layer.jump for layer in layers if layer.field and len(layer.output_shape) == 3
    }
    seen: list[tuple[str, nn.Module, Any]] = []
    with ExitStack() as stack, torch.no_grad():
        for name, module in twin.named_modules():
            note = module.register_forward_hook(lambda m, _, output, name=name: seen.append((name, m, output)))
            stack.callback(note.remove)
        twin(empty)
    first = next((i for i, (_, module, _) in enumerate(seen) if isinstance(module, nn.Conv2d)), len(seen))
    found = []
    for name, _, output in seen[first:]:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            rows, columns = jumps.get(tuple(output.shape[2:]), (0, 0))
            if rows == columns > 0:
                found.append(FeatureMap(name, output.shape[3], columns))
    return found


def _upsampled(network: nn.Module, layer: FeatureMap, images: Tensor) -> Tensor:
    """The map of `images` `(N, H, W, C)`, `(N, C, rows, columns * stride)`: columns as wide as the image's pixels.

    Rows stay as they are, since nothing moves down.
    """
    outputs: list[Tensor] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if output.shape[3:] == (layer.columns,):  # a module may run several times
            outputs.append(output.double())  # a copy, as what follows may work in place

    handle = network.get_submodule(layer.name).register_forward_hook(note)
    try:
        network(pixels(images))
    finally:
        handle.remove()
    return outputs[-1].repeat_interleave(layer.stride, dim=3)
