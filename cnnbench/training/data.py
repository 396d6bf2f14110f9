"""The LightningDataModule: datasets in memory as uint8 on the device, batches by index, augmentation per batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from cnnbench import records
from cnnbench.arguments import check_fields
from cnnbench.datasets.choice import check_options, describe, open_choice
from cnnbench.pixels import to_float
from cnnbench.records.schema import DataConfig, DataRecord
from cnnbench.registry import hint
from cnnbench.training import augment
from cnnbench.types import Augment, CnnbenchError, Dataset, Split

EVAL_BATCH_SIZE = 250
"""More would be no faster on a CPU, and scoring, not training, would set how much memory a run needs."""

GPU_SHARE = 0.25
"""Part of a GPU's free memory that the images of a split may take; larger splits stay in the host's memory."""

Batch = tuple[Tensor, Tensor, Tensor]
"""pixels `(n, C, H, W)` float32 in [0, 1], labels `(n,)` int64, and the images' places in their split `(n,)`.

Pixels lie in memory as the images do, channels last, which is the layout that convolutions are fastest in."""


class TrainBatches:
    """Shuffled, augmented batches of one process's share; one pass is one epoch.

    A Trainer calls `set_epoch`; a loop of your own does so before each pass, else every pass draws alike.

    Order and draws follow from (seed, epoch) alone, whatever the number of processes: all of them shuffle the whole
    split alike, and each takes every `world`-th image. Batches have `batch_size / world` images; what does not fill
    a batch is left out this epoch, so that all processes take the same number of steps.
    """

    def __init__(
        self,
        split: Split,
        transform: Augment,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size % world:
            raise CnnbenchError(f"data.batch_size {batch_size} is not divisible by the {world} processes that share it")
        self.device = torch.device(device)
        self.images = place_on_device(split, self.device)  # N, H, W, C
        self.labels = torch.from_numpy(split.labels).to(self.images.device)  # N
        self.transform = transform
        self.seed, self.rank, self.world = seed, rank, world
        self.share = max(1, min(batch_size, len(split)) // world)
        self.epoch = 0
        self.batch = 0
        self.first = 0
        """The batch that the next pass begins with: 0, or where a checkpoint was taken."""

    def __len__(self) -> int:
        return len(self.labels) // (self.share * self.world)

    def __iter__(self) -> Iterator[Batch]:
        first, self.first = self.first, 0
        self.batch = first
        batches = to_float_batches(self._batches(first), place=self.images.device, device=self.device)
        for number, batch in enumerate(batches, first + 1):
            self.batch = number  # before the yield: a checkpoint taken during this step resumes after it
            yield batch

    def _batches(self, first: int) -> Iterator[Batch]:
        """The epoch's batches from `first` on, pixels uint8, where the images lie."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        count, place = len(self.labels), self.images.device
        order = torch.randperm(count, generator=generator)[self.rank :: self.world].to(place)
        draws = augment.draw(self.transform, count, generator=generator)[slice(self.rank, None, self.world)].to(place)
        for batch in range(first, len(self)):
            part = slice(batch * self.share, (batch + 1) * self.share)
            index = order[part]
            yield augment.apply(self.images[index], self.transform, draws=draws[part]), self.labels[index], index

    @property
    def sampler(self) -> TrainBatches:
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.batch, self.first = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.first = self.batch


class EvalBatches:
    """Every image of a split exactly once, in order; under several processes each takes every `world`-th one.

    Shares may differ by one image: nothing is padded, so that counts and accuracies stay exact.
    """

    def __init__(self, split: Split, *, rank: int = 0, world: int = 1, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.images = place_on_device(split, self.device)
        self.labels = torch.from_numpy(split.labels).to(self.images.device)
        self.index = torch.arange(len(split))[rank::world].to(self.images.device)

    def __len__(self) -> int:
        return -(-len(self.index) // EVAL_BATCH_SIZE)

    def __iter__(self) -> Iterator[Batch]:
        parts = torch.split(self.index, EVAL_BATCH_SIZE)
        batches = ((self.images[index], self.labels[index], index) for index in parts)
        return to_float_batches(batches, place=self.images.device, device=self.device)


def place_on_device(split: Split, device: torch.device) -> Tensor:
    """The images of a split, `(N, H, W, C)` uint8: on `device`, or in the host's memory if they do not fit there."""
    images = torch.from_numpy(split.images)
    if device.type == "cuda" and images.nbytes > GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
        return images
    return images.to(device)


def to_float_batches(batches: Iterable[Batch], *, place: torch.device, device: torch.device) -> Iterator[Batch]:
    """Batches of uint8 pixels `(n, H, W, C)` on `place`, as batches on `device` of float pixels in [0, 1]."""
    for images, labels, index in batches if place.type == device.type else prefetch_to_gpu(batches, device):
        yield to_float(images), labels, index


def prefetch_to_gpu(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy batches from the host's memory to a GPU, through pinned memory, one batch ahead on a stream of its own.

    A batch is gathered and copied while the step before it computes, and the CPU does not wait for the GPU.
    """
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    next_batch: list[Tensor] = []
    for batch in itertools.chain(batches, [()]):
        current, arrived = next_batch, copies.record_event()
        with torch.cuda.stream(copies):
            next_batch = [part.pin_memory().to(device, non_blocking=True) for part in batch]
        if current:
            computes = torch.cuda.current_stream(device)
            computes.wait_event(arrived)
            for part in current:
                part.record_stream(computes)  # its memory is reused only after the step
            yield current[0], current[1], current[2]


class ImageData(LightningDataModule):
    """Images and labels of one dataset, for training, choosing and testing.

    Args:
        config: Which images, and how training reads them; or the name of a registered dataset.
        options: Fields of `DataConfig` to set, such as `batch_size=64` or `folder="pets"`.

    Raises:
        CnnbenchError: An option is unknown or of another type, the data set does not use it, or the batch
            size is less than 1 (exit 2).
    """

    def __init__(self, config: DataConfig | str, **options: Any) -> None:
        super().__init__()
        fields = DataConfig.__struct_fields__
        for name in options:
            if name not in fields:
                raise CnnbenchError(f"unknown option {name!r} of ImageData: {hint(name, list(fields))}")
        given = config if isinstance(config, DataConfig) else DataConfig(dataset=config)
        texts = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
        self.config = records.replace(given, **texts)
        check_fields(self.config)
        if self.config.batch_size < 1:
            raise CnnbenchError(f"data.batch_size is {self.config.batch_size}: expected at least 1")
        check_options(self.config)
        self._loaded: Dataset | None = None

    def prepare_data(self) -> None:
        """Fetch what is missing, in one process of each machine."""
        if self.config.download:
            self._loaded = open_choice(self.config, download=True)

    @property
    def loaded(self) -> Dataset:
        if self._loaded is None:
            self._loaded = open_choice(self.config)
        return self._loaded

    @property
    def description(self) -> DataRecord:
        """What a record says of the data, and what reading the same data again needs."""
        return describe(self.loaded, self.config)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train_dataloader())

    @property
    def images_per_batch(self) -> int:
        """Over all processes."""
        batches = self.train_dataloader()
        return batches.share * batches.world

    def train_dataloader(self) -> TrainBatches:
        data = self.loaded
        return TrainBatches(
            data.train,
            data.augment,
            batch_size=self.config.batch_size,
            seed=torch.initial_seed() % 2**31,
            **self._place(),
        )

    def val_dataloader(self) -> EvalBatches:
        return EvalBatches(self.loaded.val, **self._place())

    def test_dataloader(self) -> EvalBatches:
        return EvalBatches(self.loaded.test, **self._place())

    predict_dataloader = test_dataloader

    def _place(self) -> dict[str, Any]:
        """This process's place among those that share the data, and its device; without a Trainer one CPU process."""
        if self.trainer is None:
            return {}
        return {
            "rank": self.trainer.global_rank,
            "world": self.trainer.world_size,
            "device": self.trainer.strategy.root_device,
        }
