"""Cost of a run before it is started: seconds from a few steps timed on this machine, bytes by arithmetic."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from cnnbench import records
from cnnbench.analysis.cost import cost
from cnnbench.analysis.macs import forward_share, training_macs
from cnnbench.architectures import build
from cnnbench.architectures.handling import to_channels_last
from cnnbench.records.schema import RunRecord
from cnnbench.sweeps.plan import Planned, open_data
from cnnbench.training.folder import runs_of
from cnnbench.training.precision import Precision, resolve_precision
from cnnbench.types import CnnbenchError, Dataset

START_SECONDS = 8  # Python, torch and Lightning; read off `time cnnbench fit` of one epoch on 2 cores
PROBE_SECONDS = 0.3


@dataclass(frozen=True)
class Forecast:
    """What one run is expected to take."""

    seconds: float
    disk_bytes: int


def forecast(planned: Sequence[Planned], *, threads: int | None = None) -> dict[str, Forecast]:
    """The forecast of each run, by its folder. Runs that differ in their seed alone are timed once.

    Args:
        planned: The runs.
        threads: Threads of each run; by default those of this process.
    """
    loaded: dict[str, Dataset] = {}
    known: dict[str, Forecast] = {}
    for run in planned:
        if run.task not in known:
            data = open_data(run.config, loaded)
            time_needed = seconds(run, data, threads=threads or torch.get_num_threads())
            known[run.task] = Forecast(time_needed, disk_bytes(run, data))
    return {run.folder: known[run.task] for run in planned}


def seconds(run: Planned, data: Dataset, *, threads: int) -> float:
    """Wall clock of one run: from an earlier seed of this task here, else from timing a few steps.

    A step is forward, backward and update of a batch; an image that is only scored costs its share of a training image
    by multiply-adds. Augmentation and logging are left out.
    """
    epochs = run.config.trainer_count("max_epochs")
    per_epoch = _earlier_seconds_per_epoch(run)
    if per_epoch is not None:
        return START_SECONDS + per_epoch * epochs
    batch = min(run.config.data.batch_size, len(data.train))
    step = _step_seconds(run.arch, data, batch, threads, run.config.trainer["precision"])  # type: ignore[arg-type]
    validated = len(data.val) // run.config.trainer_count("check_val_every_n_epoch")
    share = forward_share(cost(run.arch, data.spec).macs, training_macs(run.arch, data.spec))
    images = epochs * (len(data.train) // batch * batch + validated * share) + len(data.test) * share
    return START_SECONDS + images * step / batch


def disk_bytes(run: Planned, data: Dataset) -> int:
    """Size of the run's folder: two checkpoints with weights and momentum, and the predictions of every test image."""
    predictions = len(data.test) * (12 + 8 * data.spec.num_classes)
    return 2 * 2 * cost(run.arch, data.spec).weight_bytes + predictions


def _earlier_seconds_per_epoch(run: Planned) -> float | None:
    """Seconds per epoch of another seed of this task, where one was trained here."""
    for earlier in runs_of(Path(run.folder).parent):
        try:
            fit = records.read(earlier.result, RunRecord).fit
        except CnnbenchError:
            continue
        return fit.train_seconds / fit.epochs
    return None


def _step_seconds(arch: str, data: Dataset, batch: int, threads: int, precision: Precision) -> float:
    """Seconds of one training step on random images: the fastest of several, the first one not counted."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = data.spec
    mixed = resolve_precision(precision, device.type).name == "bf16-mixed"
    network = to_channels_last(build(arch, spec).train().to(device))
    optimizer = torch.optim.SGD(network.parameters(), 1e-6, momentum=0.9, nesterov=True, fused=True)
    images = torch.rand(batch, spec.height, spec.width, spec.channels, device=device)
    pixels = images.permute(0, 3, 1, 2)  # channels last in memory, as batches are
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    times: list[float] = []
    while len(times) < 2 or sum(times) < PROBE_SECONDS:
        since = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = F.cross_entropy(network(pixels), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - since)
    torch.set_num_threads(before)
    return min(times[1:])
