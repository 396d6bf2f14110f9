"""Shapes are the same on every machine, for ever, and are what their names say."""

from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import per_class, refusal

from cnnbench.datasets import Source, dataset
from cnnbench.datasets import shapes as module
from cnnbench.datasets.choice import load
from cnnbench.types import Augment, Dataset, Exit, Split

NOISE = 20
LEFT_RIGHT = Source(Path("nowhere"), split="left-right")


@pytest.fixture(scope="module")
def left_right() -> Dataset:
    return load("shapes", LEFT_RIGHT)


def spread(images: np.ndarray) -> np.ndarray:
    """How far the pixels of each image lie apart, per channel: `(N, H, W, 3)` -> `(N, 3)`."""
    return images.max(axis=(1, 2)).astype(int) - images.min(axis=(1, 2))


def test_splits_are_9000_1000_2000_with_every_class_alike(shapes: Dataset) -> None:
    counts = [per_class(split.labels) for split in (shapes.train, shapes.val, shapes.test)]
    assert counts == [[900] * 10, [100] * 10, [200] * 10]


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    first, again, other = (module.draw(20, np.random.RandomState(seed)).images for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_change_in_the_drawing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRAIN_IMAGES", 100)
    assert "is altered" in refusal("shapes", Source(Path("nowhere")))


def area(name: str, radius: int) -> int:
    y, x = np.mgrid[-16:17, -16:17]
    return int(module.SHAPES[name](y, x, radius).sum())


@pytest.mark.parametrize("r", [5, 9])
def test_shapes_have_the_areas_of_their_geometry(r: int) -> None:
    assert area("square", r) == (2 * r + 1) ** 2
    assert area("diamond", r) == 2 * r * (r + 1) + 1
    assert area("bar", r) == (2 * r + 1) * (2 * (r // 3) + 1)
    assert area("plus", r) == 2 * area("bar", r) - (2 * (r // 3) + 1) ** 2
    assert area("frame", r) == (2 * r + 1) ** 2 - (2 * ((r - 1) // 2) + 1) ** 2
    assert area("triangle up", r) == area("triangle down", r) == sum(2 * (row // 2) + 1 for row in range(2 * r + 1))
    assert area("disc", r) == pytest.approx(np.pi * r * r, rel=0.05)
    assert area("ring", r) == pytest.approx(np.pi * r * r * 3 / 4, rel=0.1)


def test_no_two_shapes_are_alike_at_any_radius() -> None:
    y, x = np.mgrid[-16:17, -16:17]
    for radius in range(5, 10):
        masks = {shape(y, x, radius).tobytes() for shape in module.SHAPES.values()}
        assert len(masks) == len(module.SHAPES)


def test_shape_and_ground_differ_by_more_than_the_noise() -> None:
    drawn = module.draw(200, np.random.RandomState(3))
    discs = drawn.images[drawn.labels == list(module.SHAPES).index("square")].astype(int)
    spread = discs.reshape(len(discs), -1, 3)
    assert (spread.max(axis=1) - spread.min(axis=1)).min() >= 60 - 2 * 20


@pytest.mark.parametrize(("split", "half"), [("train", "left"), ("val", "left"), ("test", "right")])
def test_of_the_split_left_right_objects_keep_to_their_half(left_right: Dataset, split: str, half: str) -> None:
    halves = np.split(getattr(left_right, split).images, [16], axis=2)
    with_object, ground = halves if half == "left" else halves[::-1]
    assert spread(ground).max() <= 2 * NOISE, "nothing but one colour and its noise"
    assert spread(with_object).min() > 2 * NOISE, "an object in every image"


def test_objects_of_the_usual_split_are_in_both_halves(shapes: Dataset) -> None:
    for half in np.split(shapes.test.images, [16], axis=2):
        assert (spread(half).max(axis=1) > 2 * NOISE).mean() > 0.2


def test_objects_reach_both_edges_of_their_half(left_right: Dataset) -> None:
    def touched(split: Split, column: int) -> bool:
        return bool((spread(split.images[:, :, column : column + 1]) > 2 * NOISE).any())

    assert all(touched(left_right.train, column) for column in (0, 14))
    assert all(touched(left_right.test, column) for column in (16, 30))


def test_the_split_left_right_has_every_class_alike(left_right: Dataset, shapes: Dataset) -> None:
    counts = [per_class(split.labels) for split in (left_right.train, left_right.val, left_right.test)]
    assert counts == [[900] * 10, [100] * 10, [200] * 10]
    assert left_right.class_names == shapes.class_names
    assert left_right.spec == shapes.spec


def test_the_split_left_right_is_named_hashed_and_never_moved(left_right: Dataset, shapes: Dataset) -> None:
    assert left_right.name == "shapes_left-right"
    assert left_right.sha256 == dataset["shapes"].declared["splits"]["left-right"] != shapes.sha256
    assert left_right.augment == Augment(pad=0, flip=False)


def test_a_change_in_the_drawing_of_halves_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRAIN_IMAGES", 100)
    assert "is altered" in refusal("shapes", LEFT_RIGHT)


def test_shapes_of_a_half_differ_at_their_smallest_radius() -> None:
    y, x = np.mgrid[-16:17, -16:17]
    assert len({shape(y, x, 4).tobytes() for shape in module.SHAPES.values()}) == len(module.SHAPES)


def test_a_split_misspelt_is_met_with_the_nearest() -> None:
    said = refusal("shapes", Source(Path("nowhere"), split="left-rigth"), Exit.USAGE)
    assert said == "shapes has no split 'left-rigth': did you mean left-right?"
    said = refusal("shapes", Source(Path("nowhere"), split="up"), Exit.USAGE)
    assert said == "shapes has no split 'up': expected one of left-right"
