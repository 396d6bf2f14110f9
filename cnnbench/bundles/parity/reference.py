"""PyTorch's side of the comparison in float32."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from cnnbench.architectures.handling import copy_network, to_channels_last
from cnnbench.pixels import to_float

CHUNK = 16
"""Images per call: their tensors stay in a core's cache."""


def torch_logits(network: nn.Module, images: np.ndarray, *, size: int = CHUNK) -> np.ndarray:
    """Logits `(N, num_classes)` float32 of PyTorch in eager mode on the CPU, for images `(N, H, W, C)` uint8.

    One single-threaded call of `size` images per core rather than one call on all: small layers gain little from
    several threads.
    """
    network = to_channels_last(copy_network(network).eval())  # as decoded images lie in memory

    def logits(start: int) -> np.ndarray:
        with torch.inference_mode():
            result: np.ndarray = network(to_float(torch.tensor(images[start : start + size]))).numpy()
        return result

    with _one_thread_per_call() as workers, ThreadPoolExecutor(workers) as pool:
        return np.concatenate(list(pool.map(logits, range(0, len(images), size))))


@contextmanager
def _one_thread_per_call() -> Iterator[int]:
    """Limit torch to one thread per call; yields how many calls to make at once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
