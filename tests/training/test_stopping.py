"""Training that is stopped within an epoch, by a signal or a kill, computes the same bits when it is resumed."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import cnnbench
from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.architectures import architecture
from cnnbench.records.schema import RunRecord
from cnnbench.training import checkpoints
from cnnbench.training.classifier import Classifier
from cnnbench.training.folder import RunFolder
from cnnbench.training.midway import Midway
from cnnbench.training.stored import open_checkpoint
from cnnbench.types import CnnbenchError, Exit

FOUR_STEPS = ["--data.train_images", "64", "--data.batch_size", "16", "--trainer.max_epochs", "3"]
SHORT = ["--model.arch", "lenet5", *FOUR_STEPS]
PLACE = "mnist5k_lenet5/seed1"
RUN = RunFolder(Path("runs") / PLACE)


def at_step(count: int, act: Callable[[], object]) -> Callable[[Classifier, object, int], object]:
    """A training step that also acts, once, in the step after `count` of them."""
    step, left = Classifier.training_step, [act]

    def acting(self: Classifier, batch: object, batch_idx: int) -> object:
        if left and self.global_step == count:
            left.pop()()
        return step(self, batch, batch_idx)  # type: ignore[arg-type]

    return acting


def send(signum: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), signum)


@pytest.fixture(autouse=True)
def _handlers() -> object:
    """Lightning ignores Ctrl-C while it shuts down, and afterwards."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and stays so
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture(scope="session")
def whole(once: Callable[[str, Callable[[Path], None]], Path]) -> RunFolder:
    """The run that nothing disturbs."""

    def make(folder: Path) -> None:
        assert main(["fit", *SHORT, "--runs-dir", str(folder)]) == 0

    return RunFolder(once("undisturbed", make) / PLACE)


def known(run: RunFolder) -> tuple[object, ...]:
    """What must not depend on an interruption."""
    content = open_checkpoint(run.last).content
    fit = records.read(run.result, RunRecord).fit
    curve = [records.replace(epoch, train_seconds=0.0) for epoch in fit.curve]
    weights = {name: values.numpy().tobytes() for name, values in content["state_dict"].items()}
    momentum = [
        state["momentum_buffer"].numpy().tobytes() for state in content["optimizer_states"][0]["state"].values()
    ]
    best = {name: values.numpy().tobytes() for name, values in open_checkpoint(run.best).content["state_dict"].items()}
    return run.metrics.read_bytes(), curve, weights, momentum, best, run.val_predictions.read_bytes()


@pytest.mark.parametrize("steps", [0, 2, 4], ids=lambda steps: f"{steps} steps before")
def test_the_first_signal_ends_the_step_and_the_resumed_run_is_the_undisturbed_one(
    steps: int, whole: RunFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", at_step(steps, send(signal.SIGINT)))
        assert main(["fit", *SHORT]) == Exit.INTERRUPTED
    assert open_checkpoint(RUN.last).steps == steps + 1
    said = capfd.readouterr().err.splitlines()[-3:]
    assert said[0] == "SIGINT: stopping after this step; again to stop at once"
    assert said[1].endswith(f"after {steps + 1} steps; `fit --ckpt_path last` resumes it")
    assert said[2] == "cnnbench: interrupted"
    assert not list(RUN.path.glob(".*"))
    assert main(["fit", *SHORT, "--ckpt_path", "last"]) == 0
    assert known(RUN) == known(whole)


def test_a_signal_at_the_last_step_of_an_epoch_waits_for_its_validation(
    whole: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", at_step(3, send(signal.SIGINT)))
        assert main(["fit", *SHORT]) == Exit.INTERRUPTED
    assert RUN.best.is_file()
    assert main(["fit", *SHORT, "--ckpt_path", "last"]) == 0
    assert known(RUN) == known(whole)


def test_a_signal_at_the_very_last_step_finds_the_run_with_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", at_step(11, send(signal.SIGINT)))
        assert main(["fit", *SHORT]) == Exit.INTERRUPTED
    assert RUN.result.is_file()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)])
def test_each_signal_has_its_exit_code(signum: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", at_step(1, send(signum)))
        assert main(["fit", *SHORT]) == code
    assert open_checkpoint(RUN.last).steps == 2


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_stops_at_once(second: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        send(signal.SIGINT)()
        send(second)()

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", at_step(5, twice))
        assert main(["fit", *SHORT]) == 128 + second
    assert open_checkpoint(RUN.last).steps == 4  # of the epoch before


def test_within_a_long_epoch_the_last_checkpoint_is_written_after_some_time(
    whole: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    def kill() -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
        patch.setattr(Classifier, "training_step", at_step(7, kill))
        assert main(["fit", *SHORT]) == Exit.BUG
    assert open_checkpoint(RUN.last).steps == 7
    assert main(["fit", *SHORT, "--ckpt_path", "last"]) == 0
    assert known(RUN) == known(whole)


def test_gradients_of_half_a_step_are_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches are one step of the optimizer: between them there is nothing to resume from."""
    pairs = [*SHORT, "--trainer.accumulate_grad_batches", "2"]
    assert main(["fit", *pairs, "--runs-dir", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", at_step(2, send(signal.SIGINT)))
        assert main(["fit", *pairs]) == Exit.INTERRUPTED
    assert open_checkpoint(RUN.last).steps == 3
    assert main(["fit", *pairs, "--ckpt_path", "last"]) == 0
    assert known(RUN) == known(RunFolder(Path("whole") / PLACE))


def test_validation_within_an_epoch_is_neither_lost_nor_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    often = [*SHORT, "--trainer.val_check_interval", "2"]
    assert main(["fit", *often, "--runs-dir", "whole"]) == 0
    for steps in (4, 9):
        with monkeypatch.context() as patch:
            patch.setattr(Classifier, "training_step", at_step(steps, send(signal.SIGINT)))
            resume = ["--ckpt_path", "last"] if RUN.last.exists() else []
            assert main(["fit", *often, *resume]) == Exit.INTERRUPTED
    assert main(["fit", *often, "--ckpt_path", "last"]) == 0
    assert known(RUN) == known(RunFolder(Path("whole") / PLACE))


class Dropping(nn.Module):
    """A layer after dropout, whose random numbers are torch's."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(28 * 28, classes))

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.layers(pixels)
        return logits


@pytest.mark.parametrize("kept", [True, False], ids=["with them", "without them"])
def test_dropout_draws_what_it_would_have_drawn_by_its_kept_random_numbers(
    kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architecture, "entries", dict(architecture.entries))
    cnnbench.register_architecture(name="dropping")(lambda spec: Dropping(spec.num_classes))
    dropout = ["--model.arch", "dropping", *FOUR_STEPS, "--skip-checks"]
    assert main(["fit", *dropout, "--runs-dir", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", at_step(5, send(signal.SIGINT)))
        assert main(["fit", *dropout]) == Exit.INTERRUPTED
    last = Path("mnist5k_dropping/seed1/last.ckpt")
    if not kept:
        content = torch.load("runs" / last, weights_only=True)
        del content["midway"]
        torch.save(content, "runs" / last)
    assert main(["fit", *dropout, "--ckpt_path", "last"]) == 0
    ended = [open_checkpoint(Path(runs) / last).content["state_dict"] for runs in ("whole", "runs")]
    assert all(torch.equal(ended[0][name], ended[1][name]) for name in ended[0]) == kept


@pytest.mark.parametrize(
    "forged",
    [
        5,
        {"random": torch.zeros(1, 5056, dtype=torch.uint8)},
        {"random": torch.zeros(1, 8, dtype=torch.uint8), "train_loss": torch.zeros(1)},
        {"random": torch.zeros(1, 5056), "train_loss": torch.zeros(1)},
        {"random": torch.get_rng_state()[None], "train_loss": torch.zeros(3)},
    ],
    ids=["no mapping", "no loss", "another size", "another type", "another count"],
)
def test_random_numbers_of_another_form_are_refused(forged: object) -> None:
    with pytest.raises(CnnbenchError, match="random numbers cannot be those") as refused:
        Midway().on_load_checkpoint(None, None, {"midway": forged})  # type: ignore[arg-type]
    assert refused.value.code == Exit.DATA


def test_a_process_takes_its_own_random_numbers_of_all_that_are_kept() -> None:
    """torch ends by SIGSEGV for a state that is a part of a larger tensor."""
    state = torch.get_rng_state()
    expected = torch.rand(3)
    kept = {"random": torch.stack([torch.zeros_like(state), state]), "train_loss": torch.tensor([1.0, 2.0])}
    midway, classifier = Midway(), Classifier("linear")
    trainer = SimpleNamespace(world_size=2, global_rank=1, strategy=SimpleNamespace(root_device=torch.device("cpu")))
    midway.on_load_checkpoint(trainer, classifier, {"midway": kept})  # type: ignore[arg-type]
    midway.on_train_start(trainer, classifier)  # type: ignore[arg-type]
    assert torch.equal(torch.rand(3), expected)
    assert float(classifier.train_loss) == 2.0
