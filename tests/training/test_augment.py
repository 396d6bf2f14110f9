import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.training import augment
from cnnbench.types import Augment


def one_by_one(images: np.ndarray, pad: int, draws: augment.Draws) -> np.ndarray:
    """The same crops and flips with a loop over images and numpy's own padding."""
    height, width = images.shape[1:3]
    result = []
    for image, dy, dx, flip in zip(images, draws.dy.tolist(), draws.dx.tolist(), draws.flip.tolist(), strict=True):
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        crop = padded[dy : dy + height, dx : dx + width]
        result.append(crop[:, ::-1] if flip else crop)
    return np.stack(result)


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(1, 6),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    pad=st.integers(0, 4),
    flip=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_whole_batch_equals_a_loop_over_images(
    count: int, channels: int, height: int, width: int, pad: int, flip: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, height, width, channels), generator=generator, dtype=torch.uint8)
    transform = Augment(pad, flip)
    draws = augment.draw(transform, count, generator=generator)
    expected = one_by_one(images.numpy(), pad, draws)
    np.testing.assert_array_equal(augment.apply(images, transform, draws=draws).numpy(), expected)


def test_each_image_has_a_draw_of_its_own() -> None:
    draws = augment.draw(Augment(pad=4, flip=True), 2000, generator=torch.Generator().manual_seed(0))
    for offsets in (draws.dy, draws.dx):
        assert set(offsets.tolist()) == set(range(9))
        # uniform over 9 values: 2000 / 9 = 222 each, standard deviation 14; five of them
        assert torch.bincount(offsets).sub(2000 / 9).abs().max() < 70
    assert 0.44 < draws.flip.float().mean() < 0.56  # five standard deviations of 0.011
    assert not torch.equal(draws.dy, draws.dx)


def test_without_flip_and_padding_images_stay_as_they_are() -> None:
    images = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    draws = augment.draw(Augment(), 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(augment.apply(images, Augment(), draws=draws), images)


def test_the_unshifted_crop_is_the_image() -> None:
    images = torch.rand(3, 5, 5, 1)
    still = augment.Draws(*(torch.full((3,), 2) for _ in range(2)), torch.zeros(3, dtype=torch.bool))
    assert torch.equal(augment.apply(images, Augment(pad=2, flip=True), draws=still), images)


@pytest.mark.parametrize("transform", [Augment(), Augment(pad=2), Augment(flip=True), Augment(pad=2, flip=True)])
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_of_an_image_lie_together_before_and_after(transform: Augment, channels: int) -> None:
    images = torch.zeros(6, 7, 5, channels, dtype=torch.uint8)
    augmented = augment.apply(
        images, transform, draws=augment.draw(transform, 6, generator=torch.Generator().manual_seed(2))
    )
    assert (augmented.shape, augmented.dtype) == (images.shape, torch.uint8)
    assert augmented.stride() == images.stride()


def test_a_part_of_the_draws_belongs_to_the_same_part_of_the_images() -> None:
    transform, images = Augment(pad=2, flip=True), torch.rand(8, 6, 6, 3)
    draws = augment.draw(transform, 8, generator=torch.Generator().manual_seed(3))
    whole = augment.apply(images, transform, draws=draws)
    for part in (slice(2, 5), slice(1, None, 3), torch.tensor([7, 0, 3])):
        assert torch.equal(augment.apply(images[part], transform, draws=draws[part]), whole[part])
