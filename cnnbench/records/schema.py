"""What lies on disk: the records of runs that one verb writes and a later one reads; those of bundles: `bundle`.

Each is an immutable msgspec.Struct whose fields are its JSON keys; `records.read` validates every value once. A record
carries its schema's name; a reader refuses any other. Accuracies are fractions, times are seconds of wall clock unless
a name says otherwise.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from cnnbench.types import (
    LARGEST_COUNT,
    Augment,
    CnnbenchError,
    Cost,
    ImageSpec,
    Preprocessing,
    check_name,
    check_text,
)

Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_COUNT)]
Some = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_COUNT)]
"""A count of what there has to be."""
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e18)]
"""Seconds or joules."""


class Part(msgspec.Struct, frozen=True):
    """A part of a record. Keys that it does not know are passed over: they are of an older version."""


class TaskPart(Part, frozen=True):
    """A record of a task, which names a folder; names are checked when the record is read."""

    task: str
    arch: str

    def __post_init__(self) -> None:
        check_name(self.task)
        check_text(self.arch, "the architecture")


class DataChoice(Part, frozen=True, kw_only=True):
    """Which images: a registered dataset and its options.

    Args:
        dataset: Name of a registered dataset; `python -m cnnbench list datasets` prints them.
        root: Folder of the downloaded datasets; by default CNNBENCH_DATA, else the user's cache folder.
        folder: Your own images, which implies the dataset `folder`: a folder of train/<class>/*, with val and test if
            you like, or of <class>/*; a CSV or Parquet table of path and label; an .npz; a .zip or .tar.
        name: What records call the data; by default the dataset's name.
        split: A split of the dataset other than its own: left-right for `shapes`, which asks where objects were seen;
            for `folder` percent of the images for train, val and test where these have no folders, by default 70,15,15.
        size: Side in pixels to which the images of `folder` are resized.
        channels: 3 for colour, 1 for gray, for the images of `folder`.
        skip_broken: Leave out files of `folder` that cannot be read, and record how many.
        train_images: Train on this many of the training images, drawn class by class by a fixed seed; by default all.
        fold: Part of a cross-validation, such as 2/5: training and validation images together are divided into 5 parts,
            class by class by a fixed seed, and the second one is the validation split. Test images stay apart.
    """

    dataset: str = "mnist5k"
    root: str | None = None
    folder: str | None = None
    name: str | None = None
    split: str | None = None
    size: int = 32
    channels: int = 3
    skip_broken: bool = False
    train_images: int | None = None
    fold: str | None = None


class DataConfig(DataChoice, frozen=True, kw_only=True):
    """Which images, and how training reads them.

    Args:
        batch_size: Images per training step, over all processes together.
        download: Fetch the dataset into the root if it is not there.
        flip: Mirror each training image at random, left to right; by default as the dataset says, for `folder` never.
        pad: Pad training images by this many black pixels on each side and cut out at random; by default as the
            dataset says, for `folder` 0.
    """

    batch_size: int = 128
    download: bool = False
    flip: bool | None = None
    pad: int | None = None


class DataRecord(DataChoice, frozen=True, kw_only=True):
    """The images of a run: what reading them again needs, and what they were."""

    name: str
    train_images: Count
    sha256: str
    """SHA-256 of the decoded pixels and labels of all splits; for `folder`, of split, class and file of each image."""
    val_images: Count
    test_images: Count
    augment: Augment
    preprocessing: Preprocessing | None = None
    """How an image file becomes such an image; None where no file has as many channels, and in earlier versions."""
    broken: Count = 0
    """Files of `folder` that could not be read and were left out."""

    def __post_init__(self) -> None:
        check_text(self.name, "the data's name")


class ModelConfig(Part, frozen=True, kw_only=True):
    """The architecture and the figures of the recipe that a task may set; see `training.classifier`."""

    arch: str
    lr: float
    weight_decay: float
    compile: bool = False
    class_weights: Literal["balanced"] | None = None


TrainerOption = str | int | float | bool | list[int] | dict[str, int] | None
"""A value of one of Lightning's Trainer options."""


class RunConfig(Part, frozen=True, kw_only=True):
    """The resolved configuration of one run: what `fit` trains, on what and how."""

    model: ModelConfig
    data: DataConfig
    trainer: dict[str, TrainerOption]
    """Options of Lightning's Trainer, by name."""
    seed_everything: int
    task: str | None = None

    def trainer_count(self, option: str) -> int:
        """A trainer option that counts something, such as max_epochs; 1 where it is None or absent."""
        value = self.trainer.get(option)
        return value if isinstance(value, int) and value else 1


class Commit(Part, frozen=True):
    """Commit of cnnbench's checkout, and whether its tree was dirty."""

    commit: str
    dirty: bool


class Environment(Part, frozen=True, kw_only=True):
    """What a figure depends on besides the code: versions, machine, threads, commit. Names no host, user or path."""

    cnnbench: str
    python: str
    packages: dict[str, str]
    platform: str
    cpu: str
    cpu_count: int | None
    threads: int | None
    """Threads of torch, where it was loaded."""
    gpus: tuple[str, ...] | None
    git: Commit | None
    """None where cnnbench is an installed package."""
    processes: int | None = None
    """That trained together; of a run."""
    precision: str | None = None
    """That training computed in; of a run."""
    precision_reason: str | None = None


class Epoch(Part, frozen=True):
    """The state of training at one validation: epochs, steps, seconds and images so far, and the scores reached."""

    epoch: Count
    """Epochs finished."""
    steps: Count
    train_seconds: Amount
    """Since the first step, validation passes excluded."""
    images: Count
    """Images trained on so far, each counted as often as it was seen."""
    val_accuracy: Fraction
    val_loss: float
    train_loss: float | None
    """Mean over the epoch, with label smoothing; None for the last epoch before an interruption."""


class Resources(Part, frozen=True):
    """What training took from the machine besides time. What could not be measured is None, with the reason."""

    memory_bytes: Count | None
    """Peak from the first step to the last, above what was held before it: activations, gradients, momentum."""
    memory_kind: str
    """How it was measured, or why not."""
    energy_joules: Amount | None
    """Energy of the whole processor package or device, other processes included, from the first step to the last."""
    energy_kind: str
    """How it was measured, or why not."""


class FitResult(Part, frozen=True):
    """What `fit` leaves behind. Accuracies are fractions, times are seconds of wall clock."""

    epochs: Count
    steps: Count
    best_epoch: Count
    val_accuracy: Fraction
    val_images: Some
    train_images: Some
    train_seconds: Amount
    """From the first step to the end of the last epoch, validation passes included."""
    validation_seconds: Amount
    curve: tuple[Epoch, ...]
    resources: Resources
    forked: bool = False
    """Whether the process was forked from one that had imported torch, which a sweep does; else a new interpreter."""


class ClassTally(Part, frozen=True, kw_only=True):
    """Images of a split by class, in the order of the labels; see `analysis.per_class`."""

    images: tuple[Count, ...]
    """Images of the class."""
    correct: tuple[Count, ...]
    """Images of the class that were classified as it."""
    predicted: tuple[Count, ...]
    """Images of all classes that were classified as it."""

    def __post_init__(self) -> None:
        rows = tuple(zip(self.images, self.correct, self.predicted, strict=False))
        lengths = {len(self.images), len(self.correct), len(self.predicted)}
        possible = all(0 <= correct <= min(images, predicted) for images, correct, predicted in rows)
        if lengths != {len(rows)} or not possible or not 0 < sum(self.images) == sum(self.predicted):
            raise CnnbenchError("images by class do not add up: expected the same images in labels and answers")


class SplitResult(Part, frozen=True):
    """What the run's best checkpoint scores on a whole split."""

    accuracy: Fraction
    loss: float
    images: Some
    correct: Count
    checkpoint_sha256: str
    logits_sha256: str | None = None
    """SHA-256 of the logits that are kept beside the record, where they were computed in float32 on the CPU."""
    by_class: ClassTally | None = None
    """None in records of earlier versions."""

    def __post_init__(self) -> None:
        if self.correct > self.images:
            raise CnnbenchError(f"{self.correct} of {self.images} images are right: expected no more than there are")


class TestResult(SplitResult, frozen=True):
    """What `test` measured; the logits are in predictions.parquet, and `export` uses them."""

    __test__: ClassVar[bool] = False  # no class of tests, whatever its name


class NetworkChecks(Part, frozen=True):
    """What was found when a network of others was tried before its first epoch; see `training.preflight`."""

    warnings: tuple[str, ...] = ()
    skipped: bool = False
    """Whether the user asked not to try it."""


class RunRecord(TaskPart, frozen=True, tag_field="schema", tag="cnnbench.run/2"):
    """`result.json` of one run: one task, one seed."""

    seed: Count
    data: DataRecord
    spec: ImageSpec
    cost: Cost
    config: RunConfig
    environment: Environment
    fit: FitResult
    identity: str
    """Hash of the configuration, the data and the sources that training reads: equal for runs that must come out
    alike; see `training.identity`."""
    fc_weights: Count
    """Weights that fully connected layers between the same tensors would need instead of its convolutions."""
    training_macs: Count | None = None
    """Multiply-adds of a forward and a backward pass, per image; None in records of earlier versions, and where the
    network could not be counted in training."""
    val: SplitResult | None = None
    """Figures of the best checkpoint, its logits in val_predictions.parquet; None in records of earlier versions, and
    where `--trainer.limit_val_batches` left images out."""
    test: TestResult | None = None
    checks: NetworkChecks | None = None
    """Checks of a network of others; None for those of cnnbench, which its tests try."""
    class_names: tuple[str, ...] = ()
    """In the order of the labels; empty in records of earlier versions."""
    class_weights: tuple[float, ...] | None = None
    """What an image of each class counts in the training loss; None where all count alike."""


class Failure(TaskPart, frozen=True, tag_field="schema", tag="cnnbench.failure/1"):
    """`failure.json` of a run that a sweep started and that gave no result: a row with its reason, not a hole."""

    arch: str
    dataset: str
    seed: Count
    identity: str
    code: int
    """The exit code of the run; negative is the signal that ended it."""
    reason: str
    seconds: Amount
    log: str = ""
    """Path of the log of the run, where it has one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text(self.dataset, "the dataset")

    @property
    def explained(self) -> str:
        """The reason, and where to read more."""
        return f"{self.reason}; see {self.log}" if self.log else self.reason


class Equivariance(Part, frozen=True):
    """How far feature maps are from moving with the image; see `lab.robustness`."""

    layer: str
    """The layer whose output was looked at, by its name in the network."""
    stride: int
    """Pixels of the image from one place of the map to the next."""
    errors: Annotated[tuple[Annotated[float, msgspec.Meta(ge=0)], ...], msgspec.Meta(min_length=1)]
    """Relative L2 error for shifts of 1, 2, ... pixels to the right; 0 is a map that moves with the image."""


class Robustness(TaskPart, frozen=True, tag_field="schema", tag="cnnbench.robustness/1"):
    """`robustness.json` of a run: what shifting the test images does to the best checkpoint."""

    arch: str
    dataset: str
    seed: Count
    checkpoint_sha256: str
    images: Some
    """Test images that were shifted, taken evenly from the first to the last of the split."""
    shifts: tuple[int, ...]
    """Pixels, for both axes: -4 to 4."""
    accuracy: tuple[tuple[Fraction, ...], ...]
    """Row by row: accuracy[i][j] at dy = shifts[i] (down), dx = shifts[j] (to the right)."""
    equivariance: Equivariance | None
    reason: str
    """Why there is no equivariance error; empty where there is."""
    environment: Environment

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text(self.dataset, "the dataset")
        if not self.shifts or {len(self.accuracy), *map(len, self.accuracy)} != {len(self.shifts)}:
            raise CnnbenchError(f"accuracies of {len(self.shifts)} shifts: expected a row and a column for each")

    @property
    def mean(self) -> float:
        """Over all shifts, none included."""
        return sum(map(sum, self.accuracy)) / len(self.shifts) ** 2

    @property
    def worst(self) -> float:
        return min(map(min, self.accuracy))
