"""The golden images: the test split over its length, and inputs that no photo is."""

import numpy as np
import pytest

from cnnbench.bundles.parity.golden import Golden, as_made, golden_images

SIZES = [(28, 28, 1), (32, 32, 3), (5, 9, 2), (1, 1, 1)]


def of(count: int, *shape: int) -> np.ndarray:
    """Images that name themselves: all of one value, their number."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1), (count, *shape)).copy()


def made(golden: Golden) -> np.ndarray:
    pixels: np.ndarray = golden.pixels[golden.places < 0]
    return pixels


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_there_are_24_of_them_each_with_its_place_in_the_test_split(shape: tuple[int, int, int]) -> None:
    test = of(200, *shape)
    golden = golden_images(test)
    assert len(golden) == 24
    assert (golden.pixels.dtype, golden.pixels.shape, golden.places.dtype) == (np.uint8, (24, *shape), np.int32)
    of_test = golden.places >= 0
    assert np.array_equal(golden.pixels[of_test], test[golden.places[of_test]])
    assert golden.places[of_test].tolist() == [199 * step // 13 for step in range(14)]  # both ends, evenly spaced


def test_of_a_small_test_split_each_image_is_there_once() -> None:
    golden = golden_images(of(5, 4, 4, 1))
    assert golden.places[golden.places >= 0].tolist() == [0, 1, 2, 3, 4]
    assert len(golden) == 15


def test_the_others_are_noise_patterns_of_two_sizes_single_pixels_black_and_white() -> None:
    images = made(golden_images(of(20, 8, 8, 1)))[..., 0].astype(int)
    noise = [image for image in images if len(np.unique(image)) > 2]
    assert len(noise) == 4
    assert np.std(noise) == pytest.approx(256 / 12**0.5, rel=0.1)  # a uniform distribution's
    sums = sorted(int(image.sum()) // 255 for image in images if len(np.unique(image)) <= 2)
    assert sums == [0, 1, 1, 32, 32, 64]  # black, two single pixels, two boards, white
    fine, coarse = (image for image in images if image.sum() == 32 * 255 and len(np.unique(image)) == 2)
    assert [fine[0, :4].tolist(), coarse[0].tolist()] == [[0, 255, 0, 255], [0] * 4 + [255] * 4]
    lit = [tuple(int(at) for at in np.argwhere(image)[0]) for image in images if image.sum() == 255]
    assert lit == [(0, 7), (4, 4)]  # a corner and the middle


def test_each_kind_is_among_the_first_four() -> None:
    """Who has little time looks at these."""
    golden = golden_images(of(20, 8, 8, 1))
    assert (golden.places[:4] >= 0).tolist() == [True, False, False, False]
    assert [len(np.unique(image)) > 2 for image in golden.pixels[:4]] == [False, True, False, False]
    assert [int(image.sum()) // 255 for image in golden.pixels[2:4]] == [32, 1]


def test_what_is_not_of_the_test_split_is_the_same_whatever_that_is() -> None:
    one, another = golden_images(of(20, 8, 8, 3)), golden_images(of(200, 8, 8, 3))
    assert np.array_equal(made(one), made(another))


def test_golden_images_are_known_again_whatever_the_test_images_show() -> None:
    golden = golden_images(of(200, 8, 8, 3))
    assert as_made(golden, test_images=200)
    shown = golden.pixels.copy()
    shown[golden.places >= 0] = 7
    assert as_made(Golden(shown, golden.places), test_images=200)


@pytest.mark.parametrize("kept", [slice(1), slice(23), slice(None, None, -1)], ids=["one", "one less", "another order"])
def test_fewer_or_otherwise_ordered_ones_are_not(kept: slice) -> None:
    golden = golden_images(of(200, 8, 8, 3))
    assert not as_made(Golden(golden.pixels[kept], golden.places[kept]), test_images=200)


def test_other_noise_or_another_place_is_not() -> None:
    golden = golden_images(of(200, 8, 8, 3))
    assert not as_made(Golden(golden.pixels, golden.places), test_images=100)
    other = golden.pixels.copy()
    other[1] = 0
    assert not as_made(Golden(other, golden.places), test_images=200)
