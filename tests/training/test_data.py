from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cnnbench.records.schema import DataConfig
from cnnbench.training import data
from cnnbench.training.data import EVAL_BATCH_SIZE, EvalBatches, ImageData, TrainBatches
from cnnbench.types import Augment, CnnbenchError, Split


def numbered(count: int) -> Split:
    """Images that hold their own number in their pixels, so that a mix-up with labels shows."""
    numbers = np.arange(count, dtype=np.int64)
    pixels = np.stack([numbers % 256, numbers // 256], axis=1).astype(np.uint8)
    return Split(np.broadcast_to(pixels[:, None, None, :], (count, 2, 3, 2)).copy(), numbers)


def indices(batches: TrainBatches | EvalBatches) -> list[int]:
    return [index for _, _, part in batches for index in part.tolist()]


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, 70), batch_size=st.integers(1, 20), world=st.integers(1, 4), epoch=st.integers(0, 3))
def test_processes_share_an_epoch_without_overlap_and_take_equal_steps(
    count: int, batch_size: int, world: int, epoch: int
) -> None:
    batch_size *= world
    if count < world:
        return
    shares = [
        TrainBatches(numbered(count), Augment(), batch_size=batch_size, seed=1, rank=rank, world=world)
        for rank in range(world)
    ]
    for share in shares:
        share.set_epoch(epoch)
    seen = [indices(share) for share in shares]
    together = [index for share in seen for index in share]
    assert len(set(together)) == len(together) == len(shares[0]) * shares[0].share * world
    assert len({len(share) for share in seen}) == 1
    assert len(together) > count - max(world, min(batch_size, count))


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, 60), world=st.integers(1, 5))
def test_evaluation_sees_every_image_exactly_once(count: int, world: int) -> None:
    seen = [index for rank in range(world) for index in indices(EvalBatches(numbered(count), rank=rank, world=world))]
    assert sorted(seen) == list(range(count))


def test_pixels_labels_and_indices_belong_together_and_pixels_are_in_0_1() -> None:
    for batches in (TrainBatches(numbered(600), Augment(), batch_size=64, seed=3), EvalBatches(numbered(600))):
        for pixels, labels, index in batches:
            numbers = (pixels[:, :, 0, 0] * 255).round().long()  # n, 2
            assert torch.equal(numbers[:, 0] + 256 * numbers[:, 1], labels)
            assert torch.equal(index, labels)
            assert pixels.dtype == torch.float32
            assert 0 <= pixels.min() <= pixels.max() <= 1


def test_order_follows_from_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = TrainBatches(numbered(100), Augment(pad=1, flip=True), batch_size=10, seed=seed)
        batches.set_epoch(epoch)
        return indices(batches)

    torch.manual_seed(5)
    first = order(1, 0)
    torch.manual_seed(6)
    assert order(1, 0) == first
    assert order(1, 1) != first
    assert order(2, 0) != first


def test_state_goes_on_in_the_middle_of_an_epoch() -> None:
    split, transform = numbered(100), Augment(pad=1, flip=True)
    whole = list(TrainBatches(split, transform, batch_size=10, seed=1))
    interrupted = TrainBatches(split, transform, batch_size=10, seed=1)
    stream = iter(interrupted)
    for _ in range(4):
        next(stream)
    resumed = TrainBatches(split, transform, batch_size=10, seed=1)
    resumed.load_state_dict(interrupted.state_dict())
    rest = list(resumed)
    assert len(rest) == 6
    for (pixels, labels, _), (expected_pixels, expected_labels, _) in zip(rest, whole[4:], strict=True):
        assert torch.equal(labels, expected_labels)
        assert torch.equal(pixels, expected_pixels)


def test_a_dataset_smaller_than_a_batch_is_one_batch() -> None:
    batches = TrainBatches(numbered(7), Augment(), batch_size=64, seed=1)
    assert len(batches) == 1
    assert sorted(indices(batches)) == list(range(7))


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(CnnbenchError, match=r"batch_size 9 is not divisible by the 2 processes") as refused:
        TrainBatches(numbered(20), Augment(), batch_size=9, seed=1, world=2)
    assert refused.value.code == 2


def test_evaluation_batches_are_bounded() -> None:
    batches = EvalBatches(numbered(EVAL_BATCH_SIZE + 1))
    assert [len(labels) for _, labels, _ in batches] == [EVAL_BATCH_SIZE, 1]
    assert len(batches) == 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transform", [Augment(), Augment(pad=1), Augment(flip=True), Augment(pad=1, flip=True)])
def test_pixels_lie_in_memory_channels_last(transform: Augment, channels: int) -> None:
    split = Split(np.zeros((9, 6, 5, channels), dtype=np.uint8), np.arange(9))
    for batches in (TrainBatches(split, transform, batch_size=3, seed=1), EvalBatches(split)):
        for pixels, _, _ in batches:
            assert pixels.shape[1:] == (channels, 6, 5)
            assert pixels.is_contiguous(memory_format=torch.channels_last)
            assert pixels.stride()[1:] == (
                1,
                5 * channels,
                channels,
            )  # also of one channel, where the above says little


class Event:
    """What a stream had been given when the event was recorded."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.given = stream, len(stream.work)


class Stream:
    """The work that a stream was given, in order, and for what it waits."""

    def __init__(self) -> None:
        self.work: list[int] = []
        self.waited: list[Event] = []

    def record_event(self) -> Event:
        return Event(self)

    def wait_event(self, event: Event) -> None:
        self.waited.append(event)


class Gpu:
    """A CUDA device as `prefetch_to_gpu` and `place_on_device` see one; copies to it stay in the host's memory."""

    device = torch.device("cuda", 0)

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.computes, self.copies, self.free_bytes = Stream(), Stream(), 0
        self.current = self.computes
        self.pinned: list[Tensor] = []
        self.kept: list[tuple[int, Stream]] = []
        self.whole: list[Tensor] = []
        to = Tensor.to

        def sent(tensor: Tensor, place: Any, *, non_blocking: bool = False) -> Tensor:
            if torch.device(place).type != "cuda":
                return to(tensor, place, non_blocking=non_blocking)
            if non_blocking:
                assert any(tensor is known for known in self.pinned), "a copy of memory that is not pinned waits"
                self.current.work.append(len(self.current.work))
            else:
                self.whole.append(tensor)
            return tensor.clone()

        def pinned(tensor: Tensor) -> Tensor:
            self.pinned.append(tensor.clone())
            return self.pinned[-1]

        monkeypatch.setattr(Tensor, "to", sent)
        monkeypatch.setattr(Tensor, "pin_memory", pinned)
        monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: self.kept.append((id(tensor), stream)))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self.copies)
        monkeypatch.setattr(torch.cuda, "stream", self.within)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.current)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (self.free_bytes, 2**40))

    @contextmanager
    def within(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(monkeypatch)


def test_batches_are_sent_one_ahead_and_the_step_waits_for_its_own_alone(gpu: Gpu) -> None:
    numbers = range(5)
    batches = [tuple(torch.full((2,), 10 * number + part) for part in range(3)) for number in numbers]
    for number, batch in enumerate(data.prefetch_to_gpu(iter(batches), gpu.device)):  # type: ignore[arg-type]
        assert [part.tolist() for part in batch] == [[10 * number + part] * 2 for part in range(3)]
        assert len(gpu.copies.work) == 3 * min(number + 2, 5), "the next one is on its way"
        assert [(event.stream, event.given) for event in gpu.computes.waited[number:]] == [
            (gpu.copies, 3 * (number + 1))  # after this batch's three copies, before the next one's
        ]
        assert gpu.kept[3 * number :] == [(id(part), gpu.computes) for part in batch]
        assert gpu.current is gpu.computes
    assert number == numbers[-1]
    assert gpu.computes.work == []


def test_no_batches_are_none_ahead_either(gpu: Gpu) -> None:
    assert list(data.prefetch_to_gpu([], gpu.device)) == []


def test_no_more_than_one_batch_is_gathered_ahead(gpu: Gpu) -> None:
    gathered: list[int] = []

    def batches() -> Iterator[data.Batch]:
        for number in range(4):
            gathered.append(number)
            yield torch.zeros(1), torch.zeros(1), torch.tensor([number])

    for number, _ in enumerate(data.prefetch_to_gpu(batches(), gpu.device)):
        assert gathered == list(range(min(number + 2, 4)))


def test_a_split_that_does_not_fit_gives_the_same_batches_from_the_host(gpu: Gpu) -> None:
    split, transform = numbered(50), Augment(pad=1, flip=True)
    for here, sent in (
        (
            TrainBatches(split, transform, batch_size=8, seed=2),
            TrainBatches(split, transform, batch_size=8, seed=2, device=gpu.device),
        ),
        (EvalBatches(split), EvalBatches(split, device=gpu.device)),
    ):
        assert gpu.whole == []
        for expected, got in zip(here, sent, strict=True):
            assert all(torch.equal(*pair) for pair in zip(expected, got, strict=True))
    assert gpu.copies.work


def test_a_checkpoint_goes_on_after_the_step_that_it_was_taken_in_not_after_the_batch_that_was_sent_ahead(
    gpu: Gpu,
) -> None:
    def batches() -> TrainBatches:
        return TrainBatches(numbered(80), Augment(pad=1), batch_size=8, seed=4, device=gpu.device)

    whole = [index.tolist() for _, _, index in batches()]
    interrupted = batches()
    for step, (_, _, index) in enumerate(interrupted):
        assert index.tolist() == whole[step]
        resumed = batches()
        resumed.load_state_dict(interrupted.state_dict())
        assert [index.tolist() for _, _, index in resumed] == whole[step + 1 :]


def test_a_split_lies_on_the_gpu_where_it_takes_at_most_a_quarter_of_what_is_free(gpu: Gpu) -> None:
    split = numbered(100)
    for free_bytes, whole in ((4 * split.images.nbytes, True), (4 * split.images.nbytes - 1, False)):
        gpu.whole, gpu.free_bytes = [], free_bytes
        images = data.place_on_device(split, gpu.device)
        assert [tensor.shape for tensor in gpu.whole] == [split.images.shape] * whole
        assert (images.data_ptr() == torch.from_numpy(split.images).data_ptr()) is not whole


def test_on_the_host_no_split_is_copied() -> None:
    split = numbered(10)
    assert data.place_on_device(split, torch.device("cpu")).data_ptr() == torch.from_numpy(split.images).data_ptr()


@pytest.mark.gpu
def test_on_a_gpu_batches_from_the_host_equal_those_of_a_split_that_lies_there(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    split, transform, device = numbered(5000), Augment(pad=1, flip=True), torch.device("cuda", 0)

    def batches() -> tuple[TrainBatches, EvalBatches]:
        return TrainBatches(split, transform, batch_size=64, seed=2, device=device), EvalBatches(split, device=device)

    there = batches()
    monkeypatch.setattr(data, "GPU_SHARE", 0.0)
    host = batches()
    for resident, ahead in zip(there, host, strict=True):
        assert (resident.images.device.type, ahead.images.device.type) == ("cuda", "cpu")
        for expected, got in zip(resident, ahead, strict=True):
            assert {part.device for part in (*expected, *got)} == {device}
            assert all(torch.equal(*pair) for pair in zip(expected, got, strict=True))


def test_data_module_trains_on_train_chooses_on_val_and_tests_on_test() -> None:
    class Place:
        global_rank, world_size = 0, 1

        class strategy:  # noqa: N801 - stands in for Lightning's attribute
            root_device = torch.device("cpu")

    module = ImageData("mnist5k")
    module.trainer = Place()  # type: ignore[assignment]
    loaded = module.loaded
    assert np.array_equal(module.train_dataloader().images.numpy(), loaded.train.images)
    assert np.array_equal(module.val_dataloader().images.numpy(), loaded.val.images)
    assert np.array_equal(module.test_dataloader().images.numpy(), loaded.test.images)
    test_images = {image.tobytes() for image in loaded.test.images}
    assert not test_images & {image.tobytes() for image in (*loaded.train.images, *loaded.val.images)}


def test_fewer_training_images_are_trained_on_and_recorded() -> None:
    module, whole = ImageData(DataConfig(dataset="mnist5k", train_images=100)), ImageData("mnist5k")
    assert (len(module.loaded.train), module.description.train_images) == (100, 100)
    assert whole.description.train_images == len(whole.loaded.train) == 4000
    for split in ("val", "test"):
        assert np.array_equal(getattr(module.loaded, split).images, getattr(whole.loaded, split).images)
    assert {image.tobytes() for image in module.loaded.train.images} <= {i.tobytes() for i in whole.loaded.train.images}


@pytest.mark.parametrize("count", [9, 4001])
def test_too_few_or_too_many_training_images_are_refused(count: int) -> None:
    with pytest.raises(CnnbenchError, match=rf"train_images is {count}: expected 10 .* to 4000") as refused:
        _ = ImageData(DataConfig(dataset="mnist5k", train_images=count)).loaded
    assert refused.value.code == 2


@pytest.mark.parametrize(("batch_size", "world", "images"), [(64, 1, 64), (64, 2, 64), (7, 1, 7), (200, 1, 100)])
def test_a_step_sees_the_images_of_all_processes(batch_size: int, world: int, images: int) -> None:
    class Place:
        global_rank, world_size = 0, world

        class strategy:  # noqa: N801 - stands in for Lightning's attribute
            root_device = torch.device("cpu")

    module = ImageData(DataConfig(dataset="mnist5k", batch_size=batch_size, train_images=100))
    module.trainer = Place()  # type: ignore[assignment]
    assert module.images_per_batch == images


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": "x"}, "batch_size is 'x': expected a whole number"),
        ({"batch_size": 2.5}, "batch_size is 2.5: expected a whole number"),
        ({"train_images": "500"}, "train_images is '500': expected a whole number"),
        ({"download": "no"}, "download is 'no': expected true or false"),
    ],
    ids=str,
)
def test_an_option_of_another_type_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(CnnbenchError) as refused:
        ImageData("mnist5k", **options)
    assert str(refused.value) == words


def test_a_folder_may_be_a_path_and_a_dataset_is_a_name(tmp_path: Path) -> None:
    assert ImageData("folder", folder=tmp_path).config.folder == str(tmp_path)
    with pytest.raises(CnnbenchError, match="dataset is 5: expected text"):
        ImageData(5)  # type: ignore[arg-type]


def test_an_option_that_the_dataset_does_not_use_is_refused() -> None:
    with pytest.raises(CnnbenchError, match=r"data\.size is 28: the data set mnist5k does not use it"):
        ImageData("mnist5k", size=28)


def test_batch_size_below_one_is_refused() -> None:
    with pytest.raises(CnnbenchError, match="batch_size is 0"):
        ImageData(DataConfig(batch_size=0))


@pytest.mark.slow
def test_the_choice_and_the_record_s_data_name_the_split() -> None:
    module = ImageData(DataConfig(dataset="shapes", split="left-right"))
    assert module.config.split == module.description.split == "left-right"
    assert module.description.name == "shapes_left-right"
    assert ImageData("shapes").config.split is None


def test_a_split_that_is_not_there_is_refused() -> None:
    with pytest.raises(CnnbenchError, match="did you mean left-right") as refused:
        _ = ImageData(DataConfig(dataset="shapes", split="left-rigth")).loaded
    assert refused.value.code == 2


def test_without_a_trainer_the_loaders_are_those_of_one_process_on_the_cpu() -> None:
    module = ImageData(DataConfig(dataset="mnist5k", batch_size=100))
    pixels, labels, index = next(iter(module.train_dataloader()))
    assert (pixels.shape, labels.shape) == ((100, 1, 28, 28), (100,))
    assert torch.equal(labels, torch.from_numpy(module.loaded.train.labels)[index])
    assert sum(len(labels) for _, labels, _ in module.test_dataloader()) == 500
