"""Nothing in a training step waits for a GPU: counted on the CPU, where the same operations run."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cnnbench.__main__ import main
from cnnbench.training.classifier import Classifier
from cnnbench.training.data import Batch, TrainBatches
from cnnbench.types import Augment, Split

EPOCHS = 2

WAITING = (
    "_local_scalar_dense",
    "is_nonzero",
    "item",
    "equal",  # a value of the device decides what the host does
    "nonzero",
    "masked_select",
    "unique",
    "_unique",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "repeat_interleave",  # a value of the device is the size of a result
    "lift_fresh",  # torch.tensor(...): a copy of the host's pageable memory
)
BY_MASK = ("index", "index_put", "index_put_", "_index_put_impl_")  # by a mask, indexing counts it first: nonzero
TO_THE_HOST = (Tensor.cpu, Tensor.numpy, Tensor.tolist)  # on the CPU no operation


class Waits:
    """What would wait for a GPU, by the training step that it is in; `None` is the rest of a run."""

    def __init__(self) -> None:
        self.step: tuple[int, int] | None = None
        self.seen: list[tuple[tuple[int, int] | None, str]] = []
        self.operations: defaultdict[tuple[int, int] | None, set[str]] = defaultdict(set)

    def note(self, name: str) -> None:
        self.seen.append((self.step, name))

    @property
    def in_steps(self) -> list[tuple[tuple[int, int] | None, str]]:
        return [(step, name) for step, name in self.seen if step is not None]


class Operations(TorchDispatchMode):
    """Sees each operation on tensors, also the backward pass's and the optimizer's."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.waits.operations[self.waits.step].add(name)
        if name in WAITING or (name in BY_MASK and any(_is_mask(index) for index in args[1])):
            self.waits.note(name)
        return func(*args, **(kwargs or {}))


class Calls(TorchFunctionMode):
    """Sees the calls that bring a tensor to the host, which on the CPU are no operations."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in TO_THE_HOST:
            self.waits.note(func.__name__)
        return func(*args, **(kwargs or {}))


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def watched(work: Callable[[], object]) -> list[str]:
    waits = Waits()
    with Operations(waits), Calls(waits):
        work()
    return [name for _, name in waits.seen]


def watched_fit(monkeypatch: pytest.MonkeyPatch, precision: str = "32-true", steps: int = 4) -> Waits:
    """A real `fit`, by the command line.

    A step is from the start of a batch to the start of the next one, whose fetching it includes; the last one of an
    epoch is none, because there the epoch's figures are read.
    """
    waits = Waits()

    def start(classifier: Classifier, batch: Batch, batch_idx: int) -> None:
        waits.step = (classifier.current_epoch, batch_idx) if batch_idx < steps - 1 else None

    monkeypatch.setattr(Classifier, "on_train_batch_start", start)
    arguments = [
        "--model.arch",
        "lenet5",
        "--data.batch_size",
        "32",
        "--trainer.max_epochs",
        str(EPOCHS),
        "--overwrite",
        "--trainer.limit_train_batches",
        str(steps),
        "--trainer.precision",
        precision,
        "--trainer.accelerator",
        "cpu",
    ]
    with Operations(waits), Calls(waits):
        assert main(["fit", *arguments]) == 0
    return waits


@pytest.mark.parametrize(
    "planted",
    [
        lambda x: x.sum().item(),
        lambda x: float(x[0]),
        lambda x: bool((x > 1).any()),
        lambda x: x[x > 1],
        lambda x: x.masked_select(x > 1),
        lambda x: x.nonzero(),
        lambda x: torch.where(x > 1),
        lambda x: x.unique(),
        lambda x: x.unique_consecutive(),
        lambda x: torch.equal(x, x),
        lambda x: x.long().bincount(),
        lambda x: x.index_put_((x > 1,), torch.zeros(1)),
        lambda x: x.repeat_interleave(x.long()),
        lambda x: torch.tensor(1.0),
        lambda x: torch.isin(x, x[:2]).tolist(),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
    ],
)
def test_what_waits_is_seen(planted: Callable[[Tensor], object]) -> None:
    assert watched(lambda: planted(torch.arange(4.0)))


def test_what_does_not_wait_is_not_counted() -> None:
    pixels, index = torch.rand(4, 3), torch.arange(2)
    assert watched(lambda: torch.where(pixels > 0.5, pixels[index.repeat(2)], 0.0).sum().div_(2)) == []


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.slow
def test_nothing_in_a_step_waits_and_an_epoch_waits_as_often_however_many_steps_it_has(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    few, many = watched_fit(monkeypatch, precision, steps=4), watched_fit(monkeypatch, precision, steps=12)
    assert few.in_steps == many.in_steps == []
    assert {*many.operations} == {None, *((epoch, step) for epoch in range(EPOCHS) for step in range(11))}
    for step, operations in many.operations.items():
        # of the network, of its gradients, of the optimizer, of the next batch: nothing was out of sight
        assert step is None or {"convolution", "convolution_backward", "_fused_sgd_", "unfold"} <= operations
    assert abs(len(many.seen) - len(few.seen)) <= 4 * EPOCHS, "a checkpoint is written where an epoch is the best"
    assert len(few.seen) < 100 * EPOCHS + 50, "50 to build and begin; more of an epoch is a wait per something"


def test_a_value_that_the_backward_pass_reads_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    training_step = Classifier.training_step

    def reads(classifier: Classifier, batch: Batch, batch_idx: int) -> Tensor:
        loss = training_step(classifier, batch, batch_idx)
        loss.register_hook(lambda gradient: print(gradient.item()))
        return loss

    monkeypatch.setattr(Classifier, "training_step", reads)
    planted = [((epoch, step), "_local_scalar_dense") for epoch in range(EPOCHS) for step in range(3)]
    assert watched_fit(monkeypatch, steps=4).in_steps == planted


@pytest.mark.parametrize("transform", [Augment(), Augment(pad=4, flip=True)], ids=["as they are", "crop and flip"])
def test_a_batch_is_made_without_waiting(transform: Augment) -> None:
    images = np.zeros((64, 8, 8, 3), dtype=np.uint8)
    stream = iter(TrainBatches(Split(images, np.arange(64)), transform, batch_size=8, seed=1))
    next(stream)  # the order of the epoch is drawn on the host
    assert watched(lambda: list(stream)) == []
