"""The tightest hand-written PyTorch loop for our recipe, which `fit` is compared with.

    python benchmarks/loop.py '{"arch": "lenet5", "data": {"dataset": "mnist"}, "batch": 512, "epochs": 3, "steps": 99}'

The same tensors and the same arithmetic as `fit`: uint8 images in memory, a batch gathered by index, cropped and
flipped as a whole, the same network, loss, optimizer and schedule; nothing else. Prints images per second
over all epochs but the first.
"""

import argparse
import json
import time

from cnnbench.training import process


def main(
    arch: str,
    data: dict,
    *,
    batch: int,
    epochs: int,
    steps: int,
    precision: str = "32-true",
    layout: str = "channels_last",
    compile: bool = False,
    prepared: bool = True,
    device: str = "cpu",
) -> float:
    """Train for `epochs` epochs of `steps` steps; images per second after the first. On a GPU all images lie there."""
    if prepared:
        process.prepare()  # as `fit` does, so that the loop around the arithmetic is all that differs
    import torch
    from torch.nn import functional as F

    from cnnbench.architectures import build
    from cnnbench.datasets.choice import open_choice
    from cnnbench.records.schema import DataChoice

    loaded = open_choice(DataChoice(**data))
    images, labels = (torch.from_numpy(part).to(device) for part in (loaded.train.images, loaded.train.labels))
    pad, flip = loaded.augment.pad, loaded.augment.flip
    count, height, width = images.shape[:3]
    steps = min(steps, count // batch)

    torch.manual_seed(1)
    network = build(arch, loaded.spec).train().to(device, memory_format=getattr(torch, layout))
    call = torch.compile(network) if compile else network
    parameters = list(network.parameters())
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 5e-4},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=0.05,
        momentum=0.9,
        nesterov=True,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.05, total_steps=epochs * steps, pct_start=0.25, cycle_momentum=False
    )
    rows = torch.arange(batch, device=device)
    for epoch in range(epochs):
        if epoch == 1:
            finish(device)
            start = time.perf_counter()
        order = torch.randperm(count, device=device)
        dy, dx = torch.randint(2 * pad + 1, (2, count), device=device)
        flips = torch.rand(count, device=device) < 0.5
        for step in range(steps):
            part = slice(step * batch, (step + 1) * batch)
            x = images[order[part]]
            if pad:
                windows = F.pad(x, (0, 0, pad, pad, pad, pad)).unfold(1, height, 1).unfold(2, width, 1)
                x = windows.permute(0, 1, 2, 4, 5, 3)[rows, dy[part], dx[part]]
            if flip:
                x = torch.where(flips[part].view(-1, 1, 1, 1), x.flip(2), x)
            x = x.permute(0, 3, 1, 2)
            x = (x if layout == "channels_last" else x.contiguous()).float().div_(255)
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = F.cross_entropy(call(x), labels[order[part]], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    finish(device)
    return (epochs - 1) * steps * batch / (time.perf_counter() - start)


def finish(device: str) -> None:
    """Wait for what the device still has to do."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", type=json.loads, help="JSON object with the arguments of main()")
    print(main(**parser.parse_args().arguments))
