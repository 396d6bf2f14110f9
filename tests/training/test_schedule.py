"""A run that would never validate is refused before its first step; every other one validates."""

from pathlib import Path

import pytest

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.records.schema import RunRecord
from cnnbench.types import Exit

LINEAR = ["--config", "mnist5k_linear", "--data.train_images", "64", "--data.batch_size", "16"]  # 4 steps per epoch
RUN = Path("runs/mnist5k_linear/seed1")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--trainer.max_epochs 2 --trainer.check_val_every_n_epoch 3", "check_val_every_n_epoch is 3"),
        ("--trainer.max_epochs 2 --trainer.limit_val_batches 0", "limit_val_batches is 0"),
        ("--trainer.max_epochs 9 --trainer.max_steps 3", "max_steps is 3, and the first validation comes after 4"),
        ("--trainer.max_steps 7 --trainer.check_val_every_n_epoch 2", "after 8 steps"),
        ("--trainer.max_steps 1 --trainer.accumulate_grad_batches 2", "after 2 steps"),
        ("--trainer.max_steps 2 --trainer.limit_train_batches 3", "after 3 steps"),
        ("--trainer.max_steps 1 --trainer.val_check_interval 2", "after 2 steps"),
        ("--trainer.max_steps 1 --trainer.val_check_interval 0.5", "after 2 steps"),
    ],
)
def test_a_run_that_would_never_validate_is_refused_and_leaves_nothing(
    flags: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *LINEAR, *flags.split()]) == Exit.USAGE
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not RUN.exists()


@pytest.mark.parametrize(
    ("flags", "validations"),
    [
        ("--trainer.max_epochs 2 --trainer.check_val_every_n_epoch 2", 1),
        ("--trainer.max_epochs 9 --trainer.max_steps 4", 1),
        ("--trainer.max_steps 8 --trainer.check_val_every_n_epoch 2", 1),
        ("--trainer.max_steps 2 --trainer.accumulate_grad_batches 2", 1),
        ("--trainer.max_steps 3 --trainer.limit_train_batches 3", 1),
        ("--trainer.max_steps 2 --trainer.val_check_interval 2", 1),
        ("--trainer.max_epochs 1 --trainer.val_check_interval 0.5", 2),
        ("--trainer.max_epochs 1 --trainer.limit_val_batches 1", 1),
    ],
)
def test_the_shortest_run_that_is_not_refused_has_its_result(flags: str, validations: int) -> None:
    assert main(["fit", *LINEAR, *flags.split()]) == 0
    assert len(records.read(RUN / "result.json", RunRecord).fit.curve) == validations
