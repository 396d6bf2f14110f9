"""Shapes are the same on every machine, for ever, and are what their names say."""

from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import per_class, refusal

from cnnbench.datasets import Source
from cnnbench.datasets import shapes as module
from cnnbench.types import Dataset


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
