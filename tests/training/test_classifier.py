import copy
import csv
import math
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders import data_record
from torch import Tensor
from torch.nn import functional as F

from cnnbench.__main__ import main
from cnnbench.records.schema import DataRecord
from cnnbench.training.checkpoints import load_classifier
from cnnbench.training.classifier import LABEL_SMOOTHING, MOMENTUM, Classifier, Predictions
from cnnbench.training.data import ImageData
from cnnbench.types import CnnbenchError, ImageSpec

SPEC = ImageSpec(28, 28, 1, 10, mean=(0.13,), std=(0.31,))
COLOUR = ImageSpec(32, 32, 3, 10)
NAMES = tuple("0123456789")


def built(arch: str = "lenet5") -> Classifier:
    classifier = Classifier(arch)
    classifier.build(SPEC, data=data_record("digits"), class_names=NAMES)
    return classifier


class FakeTrainer:
    """What the classifier asks of a trainer, without one."""

    max_epochs, limit_train_batches, accumulate_grad_batches, max_steps = 3, 1.0, 1, -1
    gradient_clip_val: float | None = None
    is_last_batch = False

    class datamodule:  # noqa: N801 - stands in for Lightning's attribute
        steps_per_epoch = 10


class WithoutImages(ImageData):
    """What a classifier asks of its data, without any."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__("mnist5k")
        self.spec = spec

    @property
    def loaded(self) -> Any:
        return SimpleNamespace(spec=self.spec, class_names=NAMES[: self.spec.num_classes])

    @property
    def description(self) -> DataRecord:
        return data_record("digits")


def configured(arch: str = "lenet5", spec: ImageSpec = SPEC, **options: Any) -> Classifier:
    """As the trainer leaves it before the first step."""
    classifier, trainer = Classifier(arch, **options), FakeTrainer()
    trainer.datamodule = WithoutImages(spec)  # type: ignore[assignment,misc]
    classifier.trainer = trainer  # type: ignore[assignment]
    classifier.configure_model()
    return classifier


def test_training_loss_is_smoothed_cross_entropy_in_its_long_form() -> None:
    classifier = built()
    classifier.trainer = FakeTrainer()  # type: ignore[assignment]
    classifier.train_loss = torch.zeros(())
    pixels, labels = torch.rand(4, 1, 28, 28), torch.tensor([3, 1, 0, 9])
    targets = F.one_hot(labels, 10) * (1 - LABEL_SMOOTHING) + LABEL_SMOOTHING / 10
    expected = -(targets * classifier(pixels).log_softmax(1)).sum(1).mean()
    loss = classifier.training_step((pixels, labels, torch.arange(4)), 0)
    torch.testing.assert_close(loss, expected)


def test_optimizer_is_nesterov_sgd_with_decay_on_weights_alone() -> None:
    classifier = built("resnet20")
    classifier.trainer = FakeTrainer()  # type: ignore[assignment]
    (optimizer,), _ = classifier.configure_optimizers()
    decayed, others = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert all(group["nesterov"] and group["momentum"] == MOMENTUM for group in optimizer.param_groups)
    assert (decayed["weight_decay"], others["weight_decay"]) == (classifier.weight_decay, 0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in others["params"])
    counted = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert counted == sum(p.numel() for p in classifier.parameters())


def test_the_optimizer_is_one_kernel_unless_lightning_clips_gradients() -> None:
    for clip, fused in ((None, True), (1.0, False)):
        classifier = built()
        trainer = FakeTrainer()
        trainer.gradient_clip_val = clip
        classifier.trainer = trainer  # type: ignore[assignment]
        (optimizer,), _ = classifier.configure_optimizers()
        assert optimizer.param_groups[0]["fused"] is fused


def test_learning_rate_rises_for_a_quarter_and_ends_near_zero() -> None:
    classifier = built()
    classifier.trainer = FakeTrainer()  # type: ignore[assignment]
    (optimizer,), (schedule,) = classifier.configure_optimizers()
    rates = []
    for _ in range(30):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule["scheduler"].step() if len(rates) < 30 else None
    assert max(rates) == pytest.approx(classifier.lr, rel=0.02)
    assert rates.index(max(rates)) in (6, 7)
    assert rates[-1] < classifier.lr / 10_000


@pytest.mark.parametrize("steps", range(1, 9))
def test_the_shortest_runs_have_a_schedule_too(steps: int) -> None:
    trainer = FakeTrainer()
    trainer.max_steps = steps
    classifier = built()
    classifier.trainer = trainer  # type: ignore[assignment]
    (optimizer,), (schedule,) = classifier.configure_optimizers()
    for step in range(steps):
        assert 0 < optimizer.param_groups[0]["lr"] <= classifier.lr
        optimizer.step()
        schedule["scheduler"].step() if step < steps - 1 else None


@pytest.mark.parametrize(
    ("limit", "accumulate", "max_steps", "expected"),
    [(1.0, 1, -1, 30), (4, 1, -1, 12), (0.5, 1, -1, 15), (1.0, 4, -1, 9), (1.0, 1, 7, 7)],
)
def test_total_steps_follow_the_trainer_flags(limit: float, accumulate: int, max_steps: int, expected: int) -> None:
    trainer = FakeTrainer()
    trainer.limit_train_batches, trainer.accumulate_grad_batches, trainer.max_steps = limit, accumulate, max_steps
    classifier = built()
    classifier.trainer = trainer  # type: ignore[assignment]
    assert classifier.total_steps() == expected


def test_schedule_needs_a_number_of_epochs() -> None:
    trainer = FakeTrainer()
    trainer.max_epochs = -1
    classifier = built()
    classifier.trainer = trainer  # type: ignore[assignment]
    with pytest.raises(CnnbenchError, match="max_epochs"):
        classifier.total_steps()


def test_a_loss_that_is_not_finite_stops_training_with_advice() -> None:
    with pytest.raises(CnnbenchError, match=r"lenet5 diverged .* smaller --model.lr"):
        built()._log_epoch(torch.tensor(math.nan))


def test_a_checkpoint_rebuilds_the_network_without_the_data() -> None:
    trained = built()
    checkpoint: dict[str, object] = {"state_dict": trained.state_dict()}
    trained.on_save_checkpoint(checkpoint)
    fresh = Classifier("lenet5")
    fresh.on_load_checkpoint(checkpoint)
    fresh.load_state_dict(checkpoint["state_dict"])  # type: ignore[arg-type]
    pixels = torch.rand(3, 1, 28, 28)
    assert torch.equal(fresh.eval()(pixels), trained.eval()(pixels))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "mlp"}, "holds mlp, the config names lenet5"),
        ({"spec": {"height": 28, "width": 28, "channels": 1, "num_classes": 7}}, "7 classes"),
        ({"class_names": ["a"] * 10}, "classes, size and normalisation must agree"),
        ({"schema": "other/9"}, "schema 'other/9'"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(change: dict[str, object], message: str) -> None:
    trained = built()
    checkpoint: dict[str, dict[str, object]] = {}
    trained.on_save_checkpoint(checkpoint)
    checkpoint["cnnbench"] |= change
    with pytest.raises(CnnbenchError, match=message):
        trained.on_load_checkpoint(checkpoint)


@pytest.mark.parametrize("options", [{"lr": 0}, {"lr": -1.0}, {"lr": math.nan}, {"weight_decay": -0.1}])
def test_impossible_hyper_parameters_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(CnnbenchError, match=r"expected lr > 0"):
        Classifier("lenet5", **options)


def test_predictions_are_sorted_by_index_and_keep_the_argmax_of_the_logits() -> None:
    predictions = Predictions()
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 3.0000002]])
    predictions.update(torch.tensor([5, 2]), torch.tensor([0, 2]), logits=logits)
    rows = predictions.compute()
    assert rows[:, :3].tolist() == [[2, 2, 2], [5, 0, 0]]
    torch.testing.assert_close(rows[:, 3:], logits.flip(0))


# --- in which layout and precision, and by which code, a network runs -------------------------------------------------


@pytest.mark.parametrize("arch", ["lenet5", "resnet20", "mlp"])
def test_the_network_lies_in_memory_as_the_batches_do_and_gives_the_logits_of_a_contiguous_one(arch: str) -> None:
    network = configured(arch, COLOUR).network.eval()
    contiguous = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    pixels = torch.rand(4, 3, 32, 32)
    for weight, other in zip(network.parameters(), contiguous.parameters(), strict=True):
        assert weight.ndim != 4 or weight.is_contiguous(memory_format=torch.channels_last)
        assert other.is_contiguous()
    torch.testing.assert_close(network(pixels.to(memory_format=torch.channels_last)), contiguous(pixels))


def test_what_is_scored_is_float32_within_mixed_precision() -> None:
    classifier, pixels = built("resnet20").eval(), torch.rand(4, 1, 28, 28)
    expected = classifier(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        assert classifier(pixels).dtype == torch.bfloat16
        scored = classifier.scored(pixels)
    assert scored.dtype == torch.float32
    assert torch.equal(scored, expected)


class Compiler:
    """torch.compile without compiling: notes what it was given, and how often the result was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[object] = []
        self.calls = 0
        monkeypatch.setattr(torch, "compile", self.compile)

    def compile(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        self.given.append(function)

        def compiled(pixels: Tensor) -> Tensor:
            self.calls += 1
            return function(pixels)

        return compiled


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    return Compiler(monkeypatch)


def test_the_network_alone_is_compiled_and_only_if_asked(compiler: Compiler) -> None:
    plain = configured()
    assert compiler.given == []
    compiled = configured(compile=True)
    assert compiler.given == [compiled.network.forward]  # equal only if of the same network
    assert [*compiled.state_dict()] == [*plain.state_dict()]
    assert [name for name, _ in compiled.named_parameters()] == [name for name, _ in plain.named_parameters()]


def test_training_runs_the_compiled_network_and_evaluation_the_network_as_it_is(compiler: Compiler) -> None:
    classifier, pixels = configured(compile=True), torch.rand(4, 1, 28, 28)
    classifier.training_step((pixels, torch.arange(4), torch.arange(4)), 0)
    assert compiler.calls == 1
    classifier.scored(pixels)
    classifier(pixels)
    assert compiler.calls == 1


SHORT = [
    "--model.arch",
    "lenet5",
    "--data.batch_size",
    "64",
    "--trainer.max_epochs",
    "1",
    "--trainer.limit_train_batches",
    "5",
    "--trainer.precision",
    "32-true",
    "--trainer.accelerator",
    "cpu",
]


def test_a_checkpoint_of_a_compiled_run_is_tested_without_the_compiler(compiler: Compiler) -> None:
    assert main(["fit", *SHORT, "--model.compile", "true"]) == 0
    assert compiler.calls == 5  # training steps; none of validation
    compiler.given.clear()
    assert main(["test", *SHORT]) == 0
    assert (compiler.given, compiler.calls) == ([], 5)


def _can_compile() -> bool:
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    return headers.is_file() and any(map(shutil.which, ("g++", "clang++", "c++")))


@pytest.mark.slow
@pytest.mark.skipif(not _can_compile(), reason="torch.compile needs a C++ compiler and Python's headers")
def test_compiled_steps_learn_what_plain_ones_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    losses = []
    for task, compiled in (("plain", "false"), ("compiled", "true")):
        assert main(["fit", *SHORT, "--task", task, "--model.compile", compiled]) == 0
        with Path(f"runs/{task}/seed1/metrics.csv").open() as file:
            losses += [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert list((tmp_path / "compiled").rglob("*.cpp")), "nothing was compiled"
    plain, compiled_loss = losses
    assert compiled_loss == pytest.approx(plain, rel=1e-4)  # float32 sums in another order


def test_a_network_without_its_data_says_what_it_needs() -> None:
    with pytest.raises(CnnbenchError, match="lenet5 is not built yet"):
        Classifier("lenet5")(torch.rand(1, 1, 28, 28))


def test_a_trainer_without_data_says_what_it_needs() -> None:
    trainer = FakeTrainer()
    trainer.datamodule = None  # type: ignore[assignment,misc]
    classifier = Classifier("lenet5")
    classifier.trainer = trainer  # type: ignore[assignment]
    with pytest.raises(CnnbenchError, match="datamodule=ImageData"):
        classifier.configure_model()


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        (ImageSpec(28, 28, 1, 10, mean=(0.5,), std=(0.5,)), True),
        (ImageSpec(32, 32, 1, 10), False),
        (ImageSpec(28, 28, 3, 10), False),
        (ImageSpec(28, 28, 1, 9), False),
    ],
)
def test_a_built_network_takes_images_of_its_size_and_classes_alone(spec: ImageSpec, fits: bool) -> None:
    classifier, trainer = built(), FakeTrainer()
    trainer.datamodule = WithoutImages(spec)  # type: ignore[assignment,misc]
    classifier.trainer = trainer  # type: ignore[assignment]
    if fits:
        classifier.configure_model()
        return
    with pytest.raises(CnnbenchError, match=r"lenet5 was built for digits .* size and classes must agree") as refused:
        classifier.configure_model()
    assert refused.value.code == 2


def test_lightning_s_own_way_to_load_a_checkpoint_works_without_a_trainer(run: Path) -> None:
    loaded = Classifier.load_from_checkpoint(run / "best.ckpt", weights_only=True)
    ours = load_classifier(run / "best.ckpt")
    pixels = torch.rand(4, 1, 28, 28)
    assert torch.equal(loaded.eval()(pixels), ours(pixels))
    assert loaded.class_names == NAMES


UNEVEN = np.repeat([0, 1, 3], [6, 3, 1])


class Unevenly(WithoutImages):
    """Labels of four classes, one of which has no training image."""

    @property
    def loaded(self) -> Any:
        spec = ImageSpec(28, 28, 1, 4)
        return SimpleNamespace(spec=spec, class_names=NAMES[:4], train=SimpleNamespace(labels=UNEVEN))


def weighing(rule: Any) -> Classifier:
    classifier, trainer = Classifier("linear", class_weights=rule), FakeTrainer()
    trainer.datamodule = Unevenly(SPEC)  # type: ignore[assignment,misc]
    trainer.state = SimpleNamespace(fn="fit")  # type: ignore[attr-defined]
    classifier.trainer = trainer  # type: ignore[assignment]
    classifier.configure_model()
    return classifier


def gradient(classifier: Classifier, pixels: Tensor, labels: Tensor) -> Tensor:
    classifier.train_loss = torch.zeros(())
    loss = classifier.training_step((pixels, labels, torch.arange(len(labels))), 0)
    return torch.autograd.grad(loss, next(classifier.parameters()))[0]


def test_balanced_classes_learn_as_if_images_of_rare_ones_were_repeated() -> None:
    classifier, labels = weighing("balanced"), torch.from_numpy(UNEVEN)
    pixels = torch.rand(len(labels), 1, 28, 28)
    repeated = torch.repeat_interleave(torch.arange(10), torch.tensor([1] * 6 + [2] * 3 + [6]))  # six of each class
    found = gradient(classifier, pixels, labels)
    classifier.weight_of_class = None
    expected = gradient(classifier, pixels[repeated], labels[repeated])
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, gradient(classifier, pixels, labels), rtol=1e-2)


def test_weights_of_classes_are_kept_in_a_checkpoint() -> None:
    before, checkpoint = weighing("balanced"), {"state_dict": {}}
    assert "weight_of_class" not in before.state_dict()
    before.on_save_checkpoint(checkpoint)
    after = Classifier("linear", class_weights="balanced")
    after.on_load_checkpoint(checkpoint)
    assert after.weight_of_class is not None
    assert before.weight_of_class is not None
    assert after.weight_of_class.tolist() == before.weight_of_class.tolist()
    plain: dict[str, Any] = {}
    weighing(None).on_save_checkpoint(plain)
    assert "weight_of_class" not in plain["cnnbench"]
