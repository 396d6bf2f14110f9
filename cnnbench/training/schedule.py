"""When a run steps and validates, as its flags have it: known before the first step."""

from __future__ import annotations

from lightning.pytorch import Trainer

from cnnbench.types import CnnbenchError


def batches_per_epoch(trainer: Trainer, batches: int) -> int:
    """Training batches of an epoch under --trainer.limit_train_batches, of as many as there are."""
    limit = trainer.limit_train_batches
    return min(batches, limit) if isinstance(limit, int) else max(1, int(batches * limit))


def require_validation(trainer: Trainer, *, batches: int) -> None:
    """Refuse a run that would end before its first validation: no best epoch could be chosen.

    A limit on the time (--trainer.max_time) is not foreseen.

    Args:
        trainer: With the flags of the run.
        batches: Training batches that an epoch has.

    Raises:
        CnnbenchError: It would never validate (exit 2).
    """
    if trainer.limit_val_batches == 0:
        raise CnnbenchError("trainer.limit_val_batches is 0: the best epoch is chosen on validation images")
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    if every and epochs and every > epochs:
        raise CnnbenchError(
            f"trainer.check_val_every_n_epoch is {every}, and training has {epochs} epochs: it would never validate; "
            f"expected at most {epochs}"
        )
    batches = batches_per_epoch(trainer, batches)
    per_epoch = -(-batches // trainer.accumulate_grad_batches)
    steps = ((every or 1) - 1) * per_epoch + _steps_to_validation(trainer, batches, per_epoch)
    if 0 < trainer.max_steps < steps:
        raise CnnbenchError(
            f"trainer.max_steps is {trainer.max_steps}, and the first validation comes after {steps} steps: expected "
            "at least as many, or a smaller trainer.val_check_interval"
        )


def _steps_to_validation(trainer: Trainer, batches: int, per_epoch: int) -> int:
    """Optimizer steps of the first epoch with validation, up to it; 0 where that depends on the clock."""
    interval = trainer.val_check_interval
    if isinstance(interval, int):
        return per_epoch if interval == batches else interval // trainer.accumulate_grad_batches
    if isinstance(interval, float):
        whole = interval == 1.0
        return per_epoch if whole else max(1, int(batches * interval)) // trainer.accumulate_grad_batches
    return 0
