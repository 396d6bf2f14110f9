"""What shifting test images by a few pixels does to a trained network: to its accuracy and to its feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench import environment, pixels, progress, records
from cnnbench.analysis.confidence import read_predictions
from cnnbench.analysis.tracer import trace
from cnnbench.architectures.handling import copy_network
from cnnbench.datasets.choice import open_recorded
from cnnbench.datasets.splits import evenly_spaced, subset
from cnnbench.records.schema import Equivariance, Robustness, RunRecord
from cnnbench.training.checkpoints import load_classifier
from cnnbench.training.data import EVAL_BATCH_SIZE
from cnnbench.training.folder import RunFolder, is_set_aside, runs_below
from cnnbench.types import CnnbenchError, Exit, ImageSpec, Split

SHIFTS = tuple(range(-4, 5))
"""Pixels, for both axes."""
FEATURE_SHIFTS = (1, 2, 3, 4)
"""Pixels to the right, for feature maps."""
FEATURE_IMAGES = 256
ROUNDING = 0.01
"""Part of the images that may be scored otherwise than by `test`, where that ran on a GPU or in lower precision."""


def find_tested_runs(paths: Sequence[str | Path]) -> list[Path]:
    """The folders of tested runs: each of `paths`, or those below it.

    Raises:
        CnnbenchError: There is none below a path (exit 3).
    """
    runs: dict[Path, None] = {}
    for path in map(Path, paths):
        runs_at_path = [] if is_set_aside(Path(path.name)) else [RunFolder(path)]
        trained = [run for run in (*runs_at_path, *runs_below(path)) if run.best.is_file() and run.result.is_file()]
        tested = [run.path for run in trained if records.read(run.result, RunRecord).test]
        if not tested:
            reason = "run `cnnbench test` first" if trained else "expected the folder of a run, or one above it"
            raise CnnbenchError(f"no tested run at {path}: {reason}", Exit.DATA)
        runs |= dict.fromkeys(tested)
    return list(runs)


def stored_robustness(run: Path, *, images: int) -> Robustness | None:
    """The record that was measured on this checkpoint and as many images; None if there is none.

    Raises:
        CnnbenchError: A record cannot be read or was edited (exit 3 or 4).
    """
    files = RunFolder(run)
    if not files.robustness.is_file():
        return None
    stored = records.read(files.robustness, Robustness)
    expected = min(images, records.read(files.result, RunRecord).data.test_images)
    same = stored.images == expected and stored.checkpoint_sha256 == records.sha256(files.best)
    return stored if same else None


def measure_robustness(
    run: str | Path, *, images: int = 2000, root: str | None = None, folder: str | None = None
) -> Robustness:
    """Score the best checkpoint of a tested run on shifted test images, on the CPU, and write robustness.json.

    Args:
        run: The folder of the run.
        images: How many test images to shift, evenly from the first to the last of the split.
        root: Folder of the downloaded datasets, if the data has moved.
        folder: Folder of your own images, if the data has moved.

    Raises:
        CnnbenchError: `images` is less than 1 (exit 2); the data or a file of the run is missing or has changed, or the
            unshifted images are not scored as they were by `test` (exit 3).
    """
    if images < 1:
        raise CnnbenchError(f"--images {images}: expected at least 1")
    files = RunFolder(Path(run))
    record = _tested_record(files)
    records.require_writable(files.robustness)
    network = load_classifier(files.best).network
    test = open_recorded(record.data, root=root, folder=folder).test
    chosen = evenly_spaced(len(test), images)
    correct = correct_by_shift(network, subset(test, chosen))
    _check_unshifted(int(correct[SHIFTS.index(0), SHIFTS.index(0)]), chosen, test, files, record)
    features, reason = equivariance(network, test.images[evenly_spaced(len(test), FEATURE_IMAGES)], spec=record.spec)
    assert record.test is not None
    robustness = Robustness(
        task=record.task,
        arch=record.arch,
        dataset=record.data.name,
        seed=record.seed,
        checkpoint_sha256=record.test.checkpoint_sha256,
        images=len(chosen),
        shifts=SHIFTS,
        accuracy=tuple(tuple(row) for row in (correct / len(chosen)).tolist()),
        equivariance=features,
        reason=reason,
        environment=environment.describe(),
    )
    records.write(files.robustness, robustness)
    return robustness


def _tested_record(files: RunFolder) -> RunRecord:
    """The run's record, which is of the best checkpoint that is there."""
    record = records.read(files.result, RunRecord)
    if record.test is None or record.test.checkpoint_sha256 != records.sha256(files.best):
        raise CnnbenchError(f"{files.best} is not what was tested: run `cnnbench test` first", Exit.DATA)
    return record


def _check_unshifted(correct: int, chosen: np.ndarray, test: Split, files: RunFolder, record: RunRecord) -> None:
    """Compare the images at shift (0, 0) with predictions.parquet: otherwise something else is being measured."""
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
    """How many images of `test` are classified correctly at each shift: `(len(SHIFTS), len(SHIFTS))`, [dy, dx]."""
    correct = np.zeros((len(SHIFTS), len(SHIFTS)), dtype=np.int64)
    with torch.inference_mode():
        for start in range(0, len(test), EVAL_BATCH_SIZE):
            progress.within(start / len(test))
            place = slice(start, start + EVAL_BATCH_SIZE)
            images, labels = torch.from_numpy(test.images[place]), torch.from_numpy(test.labels[place])
            for i, dy in enumerate(SHIFTS):
                for j, dx in enumerate(SHIFTS):
                    logits = network(pixels.to_float(shift(images, dx=dx, dy=dy)))
                    correct[i, j] += int((logits.argmax(dim=1) == labels).sum())
    return correct


def shift(images: Tensor, *, dx: int, dy: int) -> Tensor:
    """`(N, H, W, C)` moved by `dx` pixels to the right and `dy` down; zeros move in, as the training crop pads."""
    return F.pad(images, (0, 0, dx, -dx, dy, -dy))


@dataclass(frozen=True)
class FeatureMap:
    """A module whose output is a feature map."""

    name: str
    columns: int
    stride: int
    """Pixels of the image from one place to the next."""


def equivariance(network: nn.Module, images: np.ndarray, *, spec: ImageSpec) -> tuple[Equivariance | None, str]:
    """How far the last feature map before the head is from moving with the image; or None, and why.

    For images x and a shift T of d pixels to the right, zeros moving in, the map F is brought to the image's grid by
    repeating each place `stride` times (features upsampled to the image, as in Zhang 2019, arXiv:1904.11486, section
    3.1), and the error is ||T F(x) - F(T x)|| / ||T F(x)|| over all images, channels and rows. Columns are left out on
    the left and on the right: d, where T moves something in or out, and one place of the map, where the border reaches
    in. What a deep network sees of the border beyond that counts as error, since leaving out its whole receptive field
    would leave nothing. The last map that is wide enough for this is taken.

    Args:
        network: In evaluation mode, from pixels to logits.
        images: `(N, H, W, C)` uint8.
        spec: Spec of the images.
    """
    maps = feature_maps(network, spec)
    if not maps:
        return None, "no feature maps: every unit sees the whole image"
    wide = [layer for layer in maps if (layer.columns - 2) * layer.stride > 2 * max(FEATURE_SHIFTS)]
    if not wide:
        return None, f"no feature map has columns left between its borders; the widest has {maps[0].columns}"
    last = wide[-1]
    norms, differences = _squared_norms(network, last, images)
    if not norms.all():
        return None, f"the feature map of {last.name} is zero everywhere"
    return Equivariance(last.name, last.stride, tuple(np.sqrt(differences / norms).tolist())), ""


def _squared_norms(network: nn.Module, layer: FeatureMap, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squares of the norms of T F(x) and of T F(x) - F(T x), each `(len(FEATURE_SHIFTS),)`; see `equivariance`."""
    norms, differences = np.zeros((2, len(FEATURE_SHIFTS)))
    with torch.inference_mode():
        for start in range(0, len(images), 32):  # maps of large images are large
            batch = torch.from_numpy(images[start : start + 32])
            before = upsampled_map(network, batch, layer=layer)
            for i, d in enumerate(FEATURE_SHIFTS):
                after = upsampled_map(network, shift(batch, dx=d, dy=0), layer=layer)
                inner = slice(d + layer.stride, before.shape[3] - d - layer.stride)
                moved = before.roll(d, dims=3)[..., inner]
                norms[i] += float(moved.square().sum())
                differences[i] += float((moved - after[..., inner]).square().sum())
    return norms, differences


def feature_maps(network: nn.Module, spec: ImageSpec) -> list[FeatureMap]:
    """The modules that put out a map with several rows and columns, from the first convolution on, in their order.

    Left out are those whose stride is not known or not the same both ways.
    """
    with torch.device("meta"):
        twin = copy_network(network).to("meta")
        layers = trace(twin, spec)
        empty = torch.empty(1, spec.channels, spec.height, spec.width)
    jumps: dict[tuple[int, ...], tuple[float, float]] = {
        layer.output_shape[1:]: layer.jump for layer in layers if layer.field and len(layer.output_shape) == 3
    }
    outputs = _outputs(twin, empty)
    first = next((i for i, (_, module, _) in enumerate(outputs) if isinstance(module, nn.Conv2d)), len(outputs))
    maps = []
    for name, _, output in outputs[first:]:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            rows, columns = jumps.get(tuple(output.shape[2:]), (0, 0))
            if rows == columns > 0 and float(columns).is_integer():
                maps.append(FeatureMap(name, output.shape[3], int(columns)))
    return maps


def _outputs(network: nn.Module, images: Tensor) -> list[tuple[str, nn.Module, Any]]:
    """Name, module and output of every module that ran, in their order."""
    outputs: list[tuple[str, nn.Module, Any]] = []
    with ExitStack() as stack, torch.no_grad():
        for name, module in network.named_modules():
            handle = module.register_forward_hook(
                lambda module, _, output, name=name: outputs.append((name, module, output))
            )
            stack.callback(handle.remove)
        network(images)
    return outputs


def upsampled_map(network: nn.Module, images: Tensor, *, layer: FeatureMap) -> Tensor:
    """The map of `images` `(N, H, W, C)`, `(N, C, rows, columns * stride)`: columns as wide as the image's pixels.

    Rows stay as they are, since nothing moves down.
    """
    outputs: list[Tensor] = []

    def _keep(_: nn.Module, __: Any, output: Any) -> None:
        if output.shape[3:] == (layer.columns,):  # a module may run several times
            outputs.append(output.double())  # a copy, as what follows may work in place

    handle = network.get_submodule(layer.name).register_forward_hook(_keep)
    try:
        network(pixels.to_float(images))
    finally:
        handle.remove()
    return outputs[-1].repeat_interleave(layer.stride, dim=3)
