"""Training batches with crop and flip, ready on the device: ours against torchvision's transforms an image.

    python benchmarks/augmentation.py [--images 20000] [--batch 128] [--rounds 5]

Images of CIFAR's size, padded by 4, cropped, flipped, scaled to [0, 1], in batches. Ours draws for each image and moves
the whole batch; the usual way is a DataLoader with 0 and with 2 workers over RandomCrop, RandomHorizontalFlip and
ToTensor. The pixels are random: nothing here looks at them.
"""

import sys
import time
from typing import Any

from rounds import compared, interleaved, options, process


def ours(images: int, batch: int) -> float:
    """Images a second of `TrainBatches`, in the second epoch of two."""
    from cnnbench.training.data import TrainBatches
    from cnnbench.types import Augment

    batches = TrainBatches(_split(images), Augment(pad=4, flip=True), batch_size=batch, seed=1)
    for epoch in range(2):
        batches.set_epoch(epoch)
        start = time.perf_counter()
        seen = sum(len(labels) for _, labels, _ in batches)
    return seen / (time.perf_counter() - start)


def theirs(images: int, batch: int, workers: int) -> float:
    """Images a second of a DataLoader; the first batch, which waits for the workers to start, is not counted."""
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    split = _split(images)
    transform = transforms.Compose(
        [
            transforms.ToPILImage(),  # what torchvision's CIFAR10 hands out
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )

    class Images(Dataset[tuple[torch.Tensor, int]]):
        def __len__(self) -> int:
            return images

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return transform(split.images[index]), int(split.labels[index])

    batches = iter(DataLoader(Images(), batch, shuffle=True, num_workers=workers, drop_last=True))
    next(batches)
    start = time.perf_counter()
    seen = sum(len(labels) for _, labels in batches)
    return seen / (time.perf_counter() - start)


def _split(images: int) -> Any:
    import numpy as np

    from cnnbench.types import Split

    draw = np.random.default_rng(0)
    return Split(draw.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8), draw.integers(0, 10, images))


def main() -> None:
    """Measure, and print a row for each number of workers."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--side", help="measure this side alone, in this process: ours, 0 or 2 (workers)")
    chosen = parser.parse_args()
    if chosen.side:
        side = ours if chosen.side == "ours" else lambda images, batch: theirs(images, batch, int(chosen.side))
        print(side(chosen.images, chosen.batch))
        return
    sizes = ["--images", str(chosen.images), "--batch", str(chosen.batch)]
    sides = {
        name: lambda side=side: float(process([__file__, "--side", side, *sizes]))
        for name, side in {"ours": "ours", "DataLoader, 0 workers": "0", "DataLoader, 2 workers": "2"}.items()
    }
    compared("crop and flip, 32x32x3", interleaved(sides, chosen.rounds), unit="images/s", ours="ours", least=10)


if __name__ == "__main__":
    sys.exit(main())
