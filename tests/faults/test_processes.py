"""Two processes that train together, one of which dies, hangs, or is told to stop."""

import os
import signal
from pathlib import Path

import pytest
from ddp import TWO, children, is_running, start, wait_for

from cnnbench.training.folder import RunFolder, is_locked
from cnnbench.training.stored import open_checkpoint

LONG = ["fit", "--config", "mnist5k_linear", "--data.train_images", "640", "--data.batch_size", "16", *TWO]
LONG += ["--trainer.max_epochs", "2000"]
RUN = RunFolder(Path("runs/mnist5k_linear/seed1"))

IMPATIENT = """
import datetime, torch.distributed
start = torch.distributed.init_process_group
torch.distributed.init_process_group = lambda *a, **k: start(*a, **{**k, "timeout": datetime.timedelta(seconds=60)})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "sent", "code", "message"),
    [
        ("second", signal.SIGKILL, 6, "process 1 of 0 to 1 was ended by SIGKILL (out of memory?)"),
        ("second", signal.SIGSEGV, 6, "process 1 of 0 to 1 was ended by SIGSEGV"),
        ("second", signal.SIGSTOP, 6, "another process than 0 of 2 does not answer"),
        ("first", signal.SIGKILL, -9, "another process than 1 of 2 has ended"),
        ("first", signal.SIGINT, 130, "stopped by SIGINT in epoch"),
        ("second", signal.SIGTERM, 143, "stopped by SIGTERM in epoch"),
    ],
    ids=["killed", "crashed", "hung", "first killed", "interrupted", "second terminated"],
)
def test_a_process_that_ends_or_hangs_is_named_and_leaves_no_orphan(
    victim: str, sent: signal.Signals, code: int, message: str
) -> None:
    process = start(*LONG, code=IMPATIENT if sent == signal.SIGSTOP else "")
    try:
        wait_for(RUN.last.is_file, 600, of=process)
        others = children(process.pid)
        assert len(others) == 1
        os.kill(process.pid if victim == "first" else others[0], sent)
        _, said = process.communicate(timeout=180)
        wait_for(lambda: not is_running(others[0]), 60)
    finally:
        process.kill()
    assert process.returncode == code, said
    assert message in said
    assert "internal error" not in said
    assert "Traceback" not in said
    assert not is_locked(RUN)
    assert open_checkpoint(RUN.last).epoch >= 0
    assert not [*RUN.path.glob(".*")]
