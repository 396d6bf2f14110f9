"""Signals while a network trains: the step is finished, last.ckpt is written, then the signal takes its course."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""Those that wait for the end of a step; SIGUSR1 is what Slurm is usually told to send before time is up."""

STEPS_BETWEEN_LOOKS = 16
"""Steps after which several processes agree whether one of them is to stop: each time costs an exchange."""


class Stopped(BaseException):
    """Training has stopped after a step, with last.ckpt written; no Exception, so that nothing takes it for one."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class StopSignals(Callback):
    """While training, remembers the first signal of `SIGNALS`; the second one takes effect at once.

    Python lets the main thread alone set handlers: elsewhere signals are left as they are.
    """

    def __init__(self) -> None:
        self.received = 0
        """The signal's number; 0 for none."""
        self._before: dict[int, Callable[[int, FrameType | None], object] | int] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Here, and not earlier: Lightning has set its own handlers before."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in SIGNALS:
            before = signal.getsignal(signum)
            if before is not None and before != signal.SIG_IGN:  # nohup has SIGHUP ignored
                self._before[signum] = before
                signal.signal(signum, self._remember)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if self.received:
            self._restore()
            signal.raise_signal(signum)
            return
        self.received = signum
        # print could be interrupted in its own middle
        os.write(2, f"{signal.Signals(signum).name}: stopping after this step; again to stop at once\n".encode())

    def _restore(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}


def agreed(trainer: Trainer, wanted: int) -> int:
    """The largest of what the processes want: all of them must call it, and get the same."""
    if trainer.world_size == 1:
        return wanted
    largest = torch.tensor(wanted, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
    return int(largest)


def told(trainer: Trainer, signum: int) -> None:
    """Say where training has stopped, and how it is resumed."""
    if trainer.is_global_zero:
        where = f"in epoch {trainer.current_epoch + 1} after {trainer.global_step} steps"
        name = signal.Signals(signum).name
        print(f"stopped by {name} {where}; `fit --ckpt_path last` resumes it", file=sys.stderr)
