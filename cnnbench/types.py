"""What crosses folders: the image a network sees, the error a user sees, and the records a later verb reads.

Everything here is plain data. Nothing imports torch, so a reader of results pays for none of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class Exit(IntEnum):
    """Exit codes of every verb; 130 and 143 (Ctrl-C, SIGTERM) follow the shell's rule of 128 + signal."""

    OK = 0
    BUG = 1  # an exception nobody expected: our fault
    USAGE = 2  # unknown name or key, bad value, a size the network cannot take, checkpoint and config disagree
    DATA = 3  # missing, truncated or altered data, checkpoint, record or ONNX file
    VERDICT = 4  # PyTorch and ONNX Runtime differ, or a bundle was edited
    REGRESSION = 5  # slower than before, beyond the noise
    ENVIRONMENT = 6  # provider, GPU or extra not there, two machines compared, or `doctor` found something broken
    SWEEP = 7  # a sweep whose runs did not all succeed
    INTERRUPTED = 130
    TERMINATED = 143


class CnnbenchError(Exception):
    """A mistake the user can mend: one line that says what, where, and what would be accepted.

    Args:
        message: The line shown on stderr, without a trailing period.
        code: The exit code of the process.
    """

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code


SMALL_SIDE = 64
"""Images of up to this many pixels a side are small."""


@dataclass(frozen=True)
class ImageSpec:
    """What a network sees and must answer.

    `mean` and `std` are per channel, of pixels in [0, 1] over the training split. Left empty, pixels are
    not normalised, which is what counting costs needs.
    """

    height: int
    width: int
    channels: int
    num_classes: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("height", "width", "channels", "num_classes"):
            if getattr(self, name) < 1:
                raise CnnbenchError(f"{name} is {getattr(self, name)}: an image spec needs at least 1")
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON and checkpoints bring lists
            if getattr(self, name) and len(getattr(self, name)) != self.channels:
                raise CnnbenchError(f"{name} has {len(getattr(self, name))} values for {self.channels} channels")

    @classmethod
    def of(cls, size: str | None, num_classes: int | None) -> ImageSpec:
        """From `HxWxC`, `HxW` (3 channels) or `S` (`SxSx3`), as on the command line; None is what `COST_SPEC` has.

        Raises:
            CnnbenchError: It is none of these, or a number is not at least 1.
        """
        size = COST_SPEC.size if size is None else size
        num_classes = COST_SPEC.num_classes if num_classes is None else num_classes
        parts = size.lower().split("x")
        if not 1 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise CnnbenchError(f"size {size!r}: expected HEIGHTxWIDTHxCHANNELS, such as 28x28x1, or 224 for 224x224x3")
        height, width, channels = {1: [*parts * 2, "3"], 2: [*parts, "3"], 3: parts}[len(parts)]
        return cls(int(height), int(width), int(channels), num_classes)

    @property
    def small(self) -> bool:
        """Whether networks take their small-image stem; above it their authors' original."""
        return max(self.height, self.width) <= SMALL_SIDE

    @property
    def size(self) -> str:
        """Height x width x channels, as sizes are written."""
        return f"{self.height}x{self.width}x{self.channels}"

    def __str__(self) -> str:
        return f"{self.size}, {self.num_classes} classes"


COST_SPEC = ImageSpec(height=32, width=32, channels=3, num_classes=10)
"""Where every architecture declares its cost."""


@dataclass(frozen=True)
class Split:
    """Images `(N, H, W, C)` uint8, as a decoder gives them, and labels `(N,)` int64 in [0, num_classes)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Augment:
    """Random crop after padding by `pad` pixels of zeros on each side, and random horizontal flip."""

    pad: int = 0
    flip: bool = False


@dataclass(frozen=True)
class Dataset:
    """A loaded dataset. `sha256` covers the decoded pixels and labels of all splits before `val` is split off."""

    name: str
    spec: ImageSpec
    class_names: tuple[str, ...]
    augment: Augment
    sha256: str
    train: Split
    val: Split
    test: Split


@dataclass(frozen=True)
class Cost:
    """What a network costs without running it, for one image in float32."""

    params: int
    macs: int
    """Multiply-adds, one each, in convolutions and matrix products only: batch norm, activations, pooling and
    additions are not counted. `flops` is `2 * macs` by definition."""
    activations: int
    """Elements that convolutions and matrix products put out (Radosavovic et al. 2020, arXiv:2003.13678)."""
    depth: int
    """Layers with weights on the longest path from image to logits, as papers count them."""

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def activation_bytes(self) -> int:
        return 4 * self.activations

    @property
    def weight_bytes(self) -> int:
        return 4 * self.params


@dataclass(frozen=True)
class Epoch:
    """Where training stood when the images were validated: what had been spent, and what it had bought."""

    epoch: int
    """Epochs finished."""
    steps: int
    train_seconds: float
    """Since the first step, validation passes excluded."""
    images: int
    """Images trained on so far, each counted as often as it was seen."""
    val_accuracy: float
    val_loss: float
    train_loss: float | None
    """Mean over the epoch, with label smoothing; None for the last epoch before an interruption."""


@dataclass(frozen=True)
class Resources:
    """What training took from the machine besides time. What could not be measured is None, with the reason."""

    memory_bytes: int | None
    """Peak from the first step to the last, above what was held before it: activations, gradients, momentum."""
    memory_kind: str
    """How it was measured, or why not."""
    energy_joules: float | None
    """Of the whole processor package or device, other processes included, from the first step to the last."""
    energy_kind: str
    """How it was measured, or why not."""


@dataclass(frozen=True)
class FitResult:
    """What `fit` leaves behind. Accuracies are fractions, times are seconds of wall clock."""

    epochs: int
    steps: int
    best_epoch: int
    val_accuracy: float
    val_images: int
    train_images: int
    train_seconds: float
    """From the first step to the end of the last epoch, validation passes included."""
    validation_seconds: float
    curve: tuple[Epoch, ...]
    resources: Resources


@dataclass(frozen=True)
class TestResult:
    """What `test` measured on the whole test split with the run's best checkpoint."""

    accuracy: float
    loss: float
    images: int
    correct: int
    checkpoint_sha256: str
    logits_sha256: str | None = None
    """Of the logits in predictions.parquet, where they were computed in float32 on the CPU: `export` uses those."""


@dataclass(frozen=True)
class RunRecord:
    """`result.json` of one run: one task, one seed."""

    task: str
    arch: str
    seed: int
    data: dict[str, Any]
    spec: ImageSpec
    cost: Cost
    config: dict[str, Any]
    environment: dict[str, Any]
    fit: FitResult
    identity: str
    """Hash of the configuration, the data and the sources that training reads: equal for runs that must come out
    alike; see `training.identity`."""
    fc_weights: int
    """Weights that fully connected layers between the same tensors would need in the place of its convolutions."""
    test: TestResult | None = None
    schema: str = field(default="cnnbench.run/2", init=False)


@dataclass(frozen=True)
class Failure:
    """`failure.json` of a run that a sweep started and that gave no result: a row with its reason, not a hole."""

    task: str
    arch: str
    dataset: str
    seed: int
    identity: str
    code: int
    """The exit code of the run; negative is the signal that ended it."""
    reason: str
    seconds: float
    schema: str = field(default="cnnbench.failure/1", init=False)


@dataclass(frozen=True)
class Equivariance:
    """How far feature maps are from moving with the image; see `lab.robustness`."""

    layer: str
    """The layer whose output was looked at, by its name in the network."""
    stride: int
    """Pixels of the image from one place of the map to the next."""
    errors: tuple[float, ...]
    """Relative L2 error for shifts of 1, 2, ... pixels to the right; 0 is a map that moves with the image."""


@dataclass(frozen=True)
class Robustness:
    """`robustness.json` of a run: what shifting the test images does to the best checkpoint."""

    task: str
    arch: str
    dataset: str
    seed: int
    checkpoint_sha256: str
    images: int
    """Test images that were shifted, taken evenly from the first to the last of the split."""
    shifts: tuple[int, ...]
    """Pixels, for both axes: -4 to 4."""
    accuracy: tuple[tuple[float, ...], ...]
    """Row by row: accuracy[i][j] at dy = shifts[i] (down), dx = shifts[j] (to the right)."""
    equivariance: Equivariance | None
    reason: str
    """Why there is no equivariance error; empty where there is."""
    environment: dict[str, Any]
    schema: str = field(default="cnnbench.robustness/1", init=False)

    @property
    def mean(self) -> float:
        """Over all shifts, none included."""
        return sum(map(sum, self.accuracy)) / len(self.shifts) ** 2

    @property
    def worst(self) -> float:
        return min(map(min, self.accuracy))


@dataclass(frozen=True)
class Reference:
    """What every file of a bundle is held against: PyTorch's float32 logits of the whole test split, on the CPU."""

    images: int
    correct: int
    logits_from: str
    """"test" where they are the ones that `test` scored; "export" where they were computed for the export."""
    float64_error: float
    """Largest difference of PyTorch's float32 logits from its float64 logits, on some test images and on noise."""
    error_bound: float
    """How far float32 logits of the same network may be apart by rounding alone; see `export.verdict`."""
    tf32: bool = False
    """TF32 rounds products to 10 bits of mantissa; it is off on every provider."""

    @property
    def accuracy(self) -> float:
        return self.correct / self.images


@dataclass(frozen=True)
class Share:
    """What part of a graph a provider really ran, by ONNX Runtime's own profile. Fractions of 1."""

    nodes: float
    time: float


@dataclass(frozen=True)
class Pass:
    """One pass of ONNX Runtime over the whole test split, against PyTorch. Errors are in logits.

    Relative errors are in parts of the largest logit of the same image, in absolute value.
    """

    provider: str
    """The one that was asked for."""
    active: str
    """ONNX Runtime's name of the one that the session used."""
    optimized: bool
    """Whether ONNX Runtime's graph optimisations were all on, as by default, or all off."""
    placement: dict[str, Share]
    correct: int
    flips: int
    """Images whose top-1 class differs although the margin exceeds what the error bound can explain: a bug."""
    rounding_flips: int
    """Images whose top-1 class differs within the bound: a tie that rounding decides."""
    largest_margin: float
    """The largest margin, in PyTorch's logits, of an image that changes class; 0 where none does."""
    max_abs_error: float
    p999_abs_error: float
    max_rel_error: float
    p999_rel_error: float
    batch_errors: dict[str, float]
    """Largest absolute error on the first images at each batch size that was tried."""


@dataclass(frozen=True)
class Variant:
    """One file of a bundle, or one that was refused, and why."""

    precision: str
    file: str
    bytes: int
    refused: str
    """The reason; empty where the file is kept."""
    budget_points: float
    """Points of accuracy (percent) that it may lose to PyTorch."""
    lost_points: float
    """Points that it loses, in the worst pass."""
    latency_ms: float | None
    """Median time of one image on one CPU thread, in turn with fp32; None where fp32 stands alone."""
    fp32_latency_ms: float | None
    passes: tuple[Pass, ...]


@dataclass(frozen=True)
class Manifest:
    """`manifest.json` of a bundle: what the files are, what they take and return, and the proof that they are right."""

    task: str
    arch: str
    seed: int
    data: dict[str, Any]
    spec: ImageSpec
    class_names: tuple[str, ...]
    cost: Cost
    contract: dict[str, Any]
    weights_sha256: str
    run: dict[str, Any]
    """The checkpoint's hash, how it was trained, and the commands that made it and this bundle."""
    reference: Reference
    variants: tuple[Variant, ...]
    files: dict[str, dict[str, Any]]
    environment: dict[str, Any]
    schema: str = field(default="cnnbench.bundle/2", init=False)

    @property
    def kept(self) -> tuple[Variant, ...]:
        return tuple(variant for variant in self.variants if not variant.refused)

    def accuracy(self, variant: Variant) -> float:
        """Top-1 of a file on the test split, on its first provider, as it runs by default."""
        return variant.passes[0].correct / self.reference.images
