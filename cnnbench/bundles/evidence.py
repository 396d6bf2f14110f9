"""What a bundle holds besides its graphs, as the checks of `verify` read it; and the logits of its files."""

from __future__ import annotations

import io
import math
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cnnbench import records
from cnnbench.bundles import contract
from cnnbench.bundles.parity import child
from cnnbench.bundles.parity import run as parity
from cnnbench.bundles.parity.golden import Golden, as_made
from cnnbench.records.bundle import Manifest, PrecisionFile
from cnnbench.types import CnnbenchError, Exit, first_line

LARGEST_ARRAYS, LARGEST_READ = 2**27, 2**20
"""Bytes of all arrays of a file, 24 images of 1024 x 1024 x 3 among them; and of one read of it."""

SECONDS = 300.0
"""What checking one file and running its few golden images may take."""


@dataclass(frozen=True)
class Check:
    """One check that passed, what it saw, and what a user must know although it passed."""

    name: str
    detail: str
    warnings: tuple[str, ...] = ()


class CheckError(CnnbenchError):
    """A check that failed; `check` is its name."""

    def __init__(self, check: str, message: str, code: Exit) -> None:
        super().__init__(message, code)
        self.check = check


def failed(check: str, message: str) -> CheckError:
    """The error of a check whose verdict is no."""
    return CheckError(check, message, Exit.VERDICT)


@dataclass(frozen=True)
class StoredGolden(Golden):
    """What golden.npz holds: the golden images, and the reference network's float64 logits `(N, num_classes)`."""

    logits: np.ndarray


@dataclass(frozen=True)
class OpenBundle:
    """What every check reads: the folder, its manifest, and what to run its files on."""

    path: Path
    manifest: Manifest
    provider: str
    backend: child.Backend = "onnxruntime"
    ends: float = math.inf
    """When the whole verification is stopped, by `time.monotonic`."""

    def seconds(self, most: float = math.inf) -> float | None:
        """Seconds that a step may take: `most`, or what is left; None for no limit.

        Raises:
            CheckError: None is left (exit 3).
        """
        left = min(most, self.ends - time.monotonic())
        if left <= 0:
            reason = f"{self.path} was given up: it takes longer than is allowed; see --timeout"
            raise CheckError("time", reason, Exit.DATA)
        return None if left == math.inf else left

    @property
    def fp32(self) -> PrecisionFile:
        """The float32 file. Raises StopIteration where there is none; the check of the manifest comes before."""
        return next(file for file in self.manifest.kept if file.precision == "fp32")

    def place(self, file: PrecisionFile) -> str:
        """The absolute path of a file."""
        return str((self.path / file.file).absolute())

    @cached_property
    def golden(self) -> StoredGolden:
        """golden.npz, which fits the manifest.

        Raises:
            CheckError: It cannot be read (exit 3), or does not fit (exit 4).
        """
        spec, images = self.manifest.spec, self.manifest.reference.images
        pixels, places, logits = arrays("golden", self.path / "golden.npz", "pixels", "places", "logits")
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (spec.height, spec.width, spec.channels) or not len(pixels):
            raise failed("golden", f"golden.npz does not fit the graph: images are {pixels.dtype} {pixels.shape}")
        if logits.dtype != np.float64 or logits.shape != (len(pixels), spec.num_classes):
            raise failed("golden", f"golden.npz does not fit the graph: logits are {logits.dtype} {logits.shape}")
        fit = places.dtype == np.int32 and places.shape == (len(pixels),)
        if not fit or not (places >= 0).any() or places.max() >= images:
            raise failed("golden", f"golden.npz places its images {places.dtype} {places.shape}, not in the test split")
        if not np.isfinite(logits).all():
            raise failed("golden", "golden.npz holds logits that are not finite")
        golden = StoredGolden(pixels, places, logits)
        if not as_made(golden, test_images=images):
            raise failed(
                "golden",
                "golden.npz does not hold the golden images as `cnnbench export` makes them: test images over the "
                "whole split, noise, checkerboards, single pixels, black and white",
            )
        return golden

    def classes(self, split: str, *, of: str = "") -> tuple[np.ndarray, np.ndarray]:
        """Labels and predictions of a split in reference.npz, int32.

        Args:
            split: "" for the test split, "val_" for the validation split.
            of: A lower precision, "_fp16" or "_int8", whose predictions to read; by default PyTorch's.

        Raises:
            CheckError: They cannot be read (exit 3), or are no classes of images (exit 4).
        """
        names = (f"{split}labels", f"{split}predictions{of}")
        labels, predictions = arrays("reference", self.path / "reference.npz", *names)
        if not {labels.dtype, predictions.dtype} == {np.dtype(np.int32)} or not labels.ndim == predictions.ndim == 1:
            raise failed("reference", f"reference.npz does not hold two rows of classes, int32: {' and '.join(names)}")
        if len(labels) != len(predictions):
            raise failed("reference", f"reference.npz has {len(labels)} labels and {len(predictions)} predictions")
        return labels, predictions

    def logits(
        self, file: PrecisionFile, images: np.ndarray, *, passes: Sequence[child.PassRequest], most: float = math.inf
    ) -> list[dict[int, np.ndarray]]:
        """Logits `(M, num_classes)` of each pass, by batch size, of the first M images that were asked for.

        A separate process checks the file and runs it.

        Args:
            file: Which file.
            images: `(N, H, W, C)` uint8.
            passes: What to run.
            most: Seconds that it may take.
        """
        with records.temporary_folder() as out:
            np.save(Path(out) / "images.npy", images)
            request = child.Examination(
                model=self.place(file),
                contract=self.manifest.contract,
                metadata=contract.manifest_metadata(self.manifest, file.precision),
                provider=self.provider,
                images=f"{out}/images.npy",
                passes=tuple(passes),
                out=out,
                control_flow=self.manifest.proof.control_flow,
                temperature=self.manifest.calibration.temperature if self.manifest.calibration else 1.0,
                backend=self.backend,
            )
            parity.examine(request, about=str(self.path / file.file), seconds=self.seconds(most))
            return [
                {size: np.load(f"{out}/{index}-{size}.npy", allow_pickle=False) for size in each.sizes}
                for index, each in enumerate(passes)
            ]


def arrays(check: str, path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of an .npz file, never unpickled.

    Raises:
        CheckError: Of `check`: they cannot be read (exit 3).
    """
    try:
        with _InSmallReads(path) as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len({entry.filename for entry in entries}) < len(entries):
                raise ValueError("two of its arrays have one name")
            if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
                raise ValueError("it is packed in a way that numpy does not write")
            if (size := sum(entry.file_size for entry in entries)) > LARGEST_ARRAYS:
                raise ValueError(f"it unpacks to {size:,} bytes; expected at most {LARGEST_ARRAYS:,}")
            return [_array(archive, f"{name}.npy") for name in names]
    except Exception as error:  # zipfile, zlib and numpy's parser of headers each have their own
        raise CheckError(check, f"{path} cannot be read: {first_line(error)}", Exit.DATA) from None


class _InSmallReads(io.FileIO):
    """A file that gives few bytes at a time: zipfile reads the list of all members at once, however long it is."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LARGEST_READ:
            raise ValueError(f"its list of arrays has {size:,} bytes; expected at most {LARGEST_READ:,}")
        return super().read(LARGEST_READ if size is None or size < 0 else size) or b""


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array that is as large as its header says, which is looked at before room is made for it.

    Raises:
        ValueError: It is not, or it is of Python objects.
    """
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        expected = member.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject or expected != archive.getinfo(name).file_size:
        raise ValueError(f"{name} is {dtype} {shape}, which is not what it holds")
    with archive.open(name) as member:
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
    return array
