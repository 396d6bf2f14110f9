"""`fit` with its defaults against the usual way to train LeNet-5 on MNIST with Lightning, in images a second.

    python benchmarks/usual_way.py [--root DIR] [--rounds 5]

The usual way: torchvision's dataset, transforms an image (the same crop as ours), a DataLoader with 2 workers and
batches of 64, a LightningModule that logs its loss, and the Trainer as it comes. The same network and optimizer; the
training part of one epoch after the workers have started. Ours: `fit` with batches of 512 and otherwise its defaults,
every epoch but the first. Validation passes are counted on neither side.
"""

import argparse
import os
import tempfile
import time
from typing import Any

from rounds import compared, fit, images_per_second, interleaved, options, process


def usual(root: str) -> float:
    """Images a second of one epoch, from the first batch to the last."""
    import torch
    from lightning.pytorch import Callback, LightningModule, Trainer
    from torch.nn import functional as F
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    from cnnbench.architectures import build
    from cnnbench.types import ImageSpec

    class LeNet(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = build("lenet5", ImageSpec(28, 28, 1, 10))

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            pixels, labels = batch
            loss = F.cross_entropy(self.network(pixels), labels)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, nesterov=True)

    class Clock(Callback):
        start = seconds = 0.0
        images = 0

        def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:
                self.start = time.perf_counter()
            else:
                self.images += len(batch[1])
                self.seconds = time.perf_counter() - self.start

    transform = transforms.Compose(
        [transforms.RandomCrop(28, padding=2), transforms.ToTensor(), transforms.Normalize(0.1307, 0.3081)]
    )
    images = datasets.MNIST(root, train=True, transform=transform)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(max_epochs=1, callbacks=[clock], default_root_dir=folder)
        trainer.fit(LeNet(), DataLoader(images, batch_size=64, shuffle=True, num_workers=2))
    return clock.images / clock.seconds


def main() -> None:
    """Measure, and print one row."""
    parser = options(__doc__)
    parser.add_argument("--root", default=os.environ.get("CNNBENCH_DATA"), help="folder that holds MNIST/raw")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side:
        print(usual(chosen.root))
        return
    arguments = ["--config", "mnist_lenet5", "--data.root", chosen.root, "--trainer.max_epochs", "4"]
    sides = {
        "fit": lambda: images_per_second(fit(arguments)),
        "the usual way": lambda: float(process([__file__, "--side", "usual", "--root", chosen.root]).split()[-1]),
    }
    figures = interleaved(sides, chosen.rounds)
    compared("fit, lenet5, mnist, its defaults", figures, unit="images/s", ours="fit", least=5)


if __name__ == "__main__":
    main()
