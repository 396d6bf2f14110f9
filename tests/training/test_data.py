import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.training.data import EVAL_BATCH_SIZE, EvalBatches, ImageData, TrainBatches, channels_first
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
    shares = [TrainBatches(numbered(count), Augment(), batch_size, 1, rank, world) for rank in range(world)]
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
    seen = [index for rank in range(world) for index in indices(EvalBatches(numbered(count), rank, world))]
    assert sorted(seen) == list(range(count))


def test_pixels_labels_and_indices_belong_together_and_pixels_are_in_0_1() -> None:
    for batches in (TrainBatches(numbered(600), Augment(), 64, seed=3), EvalBatches(numbered(600))):
        for pixels, labels, index in batches:
            numbers = (pixels[:, :, 0, 0] * 255).round().long()  # n, 2
            assert torch.equal(numbers[:, 0] + 256 * numbers[:, 1], labels)
            assert torch.equal(index, labels)
            assert pixels.dtype == torch.float32
            assert 0 <= pixels.min() <= pixels.max() <= 1


def test_order_follows_from_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = TrainBatches(numbered(100), Augment(pad=1, flip=True), 10, seed)
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
    whole = list(TrainBatches(split, transform, 10, seed=1))
    interrupted = TrainBatches(split, transform, 10, seed=1)
    stream = iter(interrupted)
    for _ in range(4):
        next(stream)
    resumed = TrainBatches(split, transform, 10, seed=1)
    resumed.load_state_dict(interrupted.state_dict())
    rest = list(resumed)
    assert len(rest) == 6
    for (pixels, labels, _), (expected_pixels, expected_labels, _) in zip(rest, whole[4:], strict=True):
        assert torch.equal(labels, expected_labels)
        assert torch.equal(pixels, expected_pixels)


def test_a_dataset_smaller_than_a_batch_is_one_batch() -> None:
    batches = TrainBatches(numbered(7), Augment(), 64, seed=1)
    assert len(batches) == 1
    assert sorted(indices(batches)) == list(range(7))


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(CnnbenchError, match=r"batch_size 9 is not divisible by the 2 processes") as refused:
        TrainBatches(numbered(20), Augment(), 9, seed=1, world=2)
    assert refused.value.code == 2


def test_evaluation_batches_are_bounded() -> None:
    batches = EvalBatches(numbered(EVAL_BATCH_SIZE + 1))
    assert [len(labels) for _, labels, _ in batches] == [EVAL_BATCH_SIZE, 1]
    assert len(batches) == 2


def test_channels_first_moves_the_last_axis_and_leaves_memory_as_it_is() -> None:
    images = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    moved = channels_first(images)
    assert moved.shape == (2, 5, 3, 4)
    assert moved[1, 2, 0, 3] == images[1, 0, 3, 2]
    assert moved.is_contiguous(memory_format=torch.channels_last)
    assert moved.data_ptr() == images.data_ptr()


def test_data_module_trains_on_train_chooses_on_val_and_tests_on_test() -> None:
    class Place:
        global_rank, world_size = 0, 1

        class strategy:  # noqa: N801 - stands in for Lightning's attribute
            root_device = torch.device("cpu")

    module = ImageData(dataset="mnist5k")
    module.trainer = Place()  # type: ignore[assignment]
    data = module.loaded
    assert np.array_equal(module.train_dataloader().images.numpy(), data.train.images)
    assert np.array_equal(module.val_dataloader().images.numpy(), data.val.images)
    assert np.array_equal(module.test_dataloader().images.numpy(), data.test.images)
    test_images = {image.tobytes() for image in data.test.images}
    assert not test_images & {image.tobytes() for image in (*data.train.images, *data.val.images)}


def test_fewer_training_images_are_trained_on_and_recorded() -> None:
    module, whole = ImageData(dataset="mnist5k", train_images=100), ImageData(dataset="mnist5k")
    assert (len(module.loaded.train), module.description["train_images"]) == (100, 100)
    assert whole.description["train_images"] == len(whole.loaded.train) == 4000
    for split in ("val", "test"):
        assert np.array_equal(getattr(module.loaded, split).images, getattr(whole.loaded, split).images)
    assert {image.tobytes() for image in module.loaded.train.images} <= {i.tobytes() for i in whole.loaded.train.images}


@pytest.mark.parametrize("count", [9, 4001])
def test_too_few_or_too_many_training_images_are_refused(count: int) -> None:
    with pytest.raises(CnnbenchError, match=rf"train_images is {count}: expected 10 .* to 4000") as refused:
        _ = ImageData(dataset="mnist5k", train_images=count).loaded
    assert refused.value.code == 2


@pytest.mark.parametrize(("batch_size", "world", "images"), [(64, 1, 64), (64, 2, 64), (7, 1, 7), (200, 1, 100)])
def test_a_step_sees_the_images_of_all_processes(batch_size: int, world: int, images: int) -> None:
    class Place:
        global_rank, world_size = 0, world

        class strategy:  # noqa: N801 - stands in for Lightning's attribute
            root_device = torch.device("cpu")

    module = ImageData(dataset="mnist5k", batch_size=batch_size, train_images=100)
    module.trainer = Place()  # type: ignore[assignment]
    assert module.images_per_batch == images


def test_batch_size_below_one_is_refused() -> None:
    with pytest.raises(CnnbenchError, match="batch_size is 0"):
        ImageData(batch_size=0)


def test_the_choice_and_the_record_s_data_name_the_split() -> None:
    module = ImageData(dataset="shapes", split="left-right")
    assert module.choice["split"] == module.description["split"] == "left-right"
    assert module.description["name"] == "shapes_left-right"
    assert ImageData(dataset="shapes").choice["split"] is None


def test_a_split_that_is_not_there_is_refused() -> None:
    with pytest.raises(CnnbenchError, match="did you mean left-right") as refused:
        _ = ImageData(dataset="shapes", split="left-rigth").loaded
    assert refused.value.code == 2
