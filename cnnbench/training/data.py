"""The one LightningDataModule: whole datasets as uint8 in memory, batches by index, augmentation on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from cnnbench import datasets
from cnnbench.training import augment
from cnnbench.types import Augment, CnnbenchError, Dataset, Split

EVAL_BATCH_SIZE = 1000

Batch = tuple[Tensor, Tensor, Tensor]
"""pixels `(n, C, H, W)` float32 in [0, 1], labels `(n,)` int64, and the images' places in their split `(n,)`."""


class TrainBatches:
    """Shuffled, augmented batches of one process's share; one pass is one epoch.

    Order and draws follow from (seed, epoch) alone, whatever the number of processes: all of them shuffle the whole
    split alike, and each takes every `world`-th image. Batches have `batch_size / world` images; what does not fill
    a batch is left out this epoch, so that all processes take the same number of steps.
    """

    def __init__(
        self, split: Split, transform: Augment, batch_size: int, seed: int, rank: int = 0, world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        if batch_size % world:
            raise CnnbenchError(f"data.batch_size {batch_size} is not divisible by the {world} processes that share it")
        self.device = torch.device(device)
        self.images = torch.from_numpy(split.images).to(self.device)  # N, H, W, C
        self.labels = torch.from_numpy(split.labels).to(self.device)  # N
        self.transform = transform
        self.seed, self.rank, self.world = seed, rank, world
        self.share = max(1, min(batch_size, len(split)) // world)
        self.epoch = 0
        self.batch = 0

    def __len__(self) -> int:
        return len(self.labels) // (self.share * self.world)

    def __iter__(self) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        count = len(self.labels)
        order = torch.randperm(count, generator=generator)[self.rank :: self.world].to(self.device)
        draws = augment.draw(self.transform, count, generator)[slice(self.rank, None, self.world)].to(self.device)
        for batch in range(self.batch, len(self)):
            self.batch = batch + 1  # before the yield: a checkpoint taken during this step resumes after it
            place = slice(batch * self.share, (batch + 1) * self.share)
            index = order[place]
            images = augment.apply(channels_first(self.images[index]), self.transform.pad, draws[place])
            yield images.float() / 255, self.labels[index], index

    @property
    def sampler(self) -> TrainBatches:
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.batch = state["epoch"], state["batch"]


class EvalBatches:
    """Every image of a split exactly once, in order; under several processes each takes every `world`-th one.

    Shares may differ by one image: nothing is padded, so that counts and accuracies stay exact.
    """

    def __init__(self, split: Split, rank: int = 0, world: int = 1, device: torch.device | str = "cpu") -> None:
        self.images = torch.from_numpy(split.images)
        self.labels = torch.from_numpy(split.labels)
        self.index = torch.arange(len(split))[rank::world]
        self.device = torch.device(device)

    def __len__(self) -> int:
        return -(-len(self.index) // EVAL_BATCH_SIZE)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.index), EVAL_BATCH_SIZE):
            index = self.index[start : start + EVAL_BATCH_SIZE]
            pixels = channels_first(self.images[index].to(self.device)).float() / 255
            yield pixels, self.labels[index].to(self.device), index.to(self.device)


def channels_first(images: Tensor) -> Tensor:
    """`(N, H, W, C)` as an image decoder gives them -> `(N, C, H, W)` contiguous, as the networks take them."""
    return images.permute(0, 3, 1, 2).contiguous()


class ImageData(LightningDataModule):
    """Images and labels of one dataset, for training, choosing and testing.

    Args:
        dataset: Name of a registered dataset; `python -m cnnbench list datasets` prints them.
        batch_size: Images a training step, over all processes together.
        root: Folder of the downloaded datasets; by default CNNBENCH_DATA, else the user's cache folder.
        folder: Folder of your own images, for the dataset `folder`: train/<class>/*, optional val and test.
        name: What records call the data; by default the dataset's name.
        split: A split of the dataset other than its own: left-right for `shapes`, which asks where objects were seen.
        size: Side in pixels to which the images of `folder` are brought.
        channels: 3 for colour, 1 for gray, for the images of `folder`.
        train_images: Train on this many of the training images, drawn class by class by a fixed seed; by default all.
        download: Fetch the dataset into the root if it is not there.
    """

    def __init__(
        self, dataset: str = "mnist5k", batch_size: int = 128, root: str | None = None, folder: str | None = None,
        name: str | None = None, split: str | None = None, size: int = 32, channels: int = 3,
        train_images: int | None = None, download: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if batch_size < 1:
            raise CnnbenchError(f"data.batch_size is {batch_size}: expected at least 1")
        self.batch_size = batch_size
        self.choice: dict[str, Any] = {
            "dataset": dataset, "root": root, "folder": folder, "name": name, "split": split, "size": size,
            "channels": channels, "train_images": train_images,
        }  # fmt: skip
        self.download = download
        self._loaded: Dataset | None = None

    def prepare_data(self) -> None:
        """Fetch what is missing, in one process of each machine."""
        if self.download:
            self._loaded = datasets.open_choice(self.choice, download=True)

    @property
    def loaded(self) -> Dataset:
        if self._loaded is None:
            self._loaded = datasets.open_choice(self.choice)
        return self._loaded

    @property
    def description(self) -> dict[str, Any]:
        """What a record says of the data, and what reading the same data again needs."""
        return datasets.describe(self.loaded, self.choice)

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
        return TrainBatches(data.train, data.augment, self.batch_size, torch.initial_seed() % 2**31, **self._place())

    def val_dataloader(self) -> EvalBatches:
        return EvalBatches(self.loaded.val, **self._place())

    def test_dataloader(self) -> EvalBatches:
        return EvalBatches(self.loaded.test, **self._place())

    predict_dataloader = test_dataloader

    def _place(self) -> dict[str, Any]:
        """This process's place among those that share the data, and the device it computes on."""
        assert self.trainer is not None
        return {
            "rank": self.trainer.global_rank,
            "world": self.trainer.world_size,
            "device": self.trainer.strategy.root_device,
        }
