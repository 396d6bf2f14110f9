"""Which images are chosen out of many."""

from typing import Any

import numpy as np
import pytest
from dataset_helpers import DECODED, SPEC, fake, per_class
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils import compute_class_weight

from cnnbench.datasets.splits import (
    balanced_weights,
    divided,
    evenly_spaced,
    folded,
    holdout,
    parse_fold,
    subsample,
    with_pixel_stats,
)
from cnnbench.types import CnnbenchError, Exit, ImageSpec, Split


def test_indices_are_evenly_spaced_from_the_first_to_the_last() -> None:
    assert evenly_spaced(10_000, 5).tolist() == [0, 2499, 4999, 7499, 9999]
    assert evenly_spaced(3, 16).tolist() == [0, 1, 2]


def test_splitting_leaves_global_random_numbers_alone() -> None:
    np.random.seed(0)
    holdout(DECODED.train, fraction=0.1)
    after = np.random.random()
    np.random.seed(0)
    assert after == np.random.random()


def test_holdout_takes_a_rounded_share_of_each_class_and_keeps_order() -> None:
    split = fake([0] * 14 + [1] * 16 + [2] * 4)
    rest, held = holdout(split, fraction=0.1)
    assert (per_class(rest.labels), per_class(held.labels)) == ([13, 14, 3], [1, 2, 1])
    for part in (rest, held):
        places = part.images[:, 0, 0, 0].astype(int) // 4
        assert (np.diff(places) > 0).all()
        assert np.array_equal(split.labels[places], part.labels)
    together = np.concatenate([rest.images, held.images])
    assert np.array_equal(np.unique(together), np.unique(split.images))


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0]])
def test_a_class_too_small_to_split_is_refused(labels: list[int]) -> None:
    with pytest.raises(CnnbenchError, match="too few images") as refused:
        holdout(fake(labels), fraction=0.1)
    assert refused.value.code == Exit.DATA


def test_a_class_too_small_to_split_is_named() -> None:
    with pytest.raises(CnnbenchError, match="class dog has too few images"):
        holdout(fake([0, 0, 0, 1]), fraction=0.1, class_names=("cat", "dog"))


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=20, max_size=60), data=st.data())
def test_units_are_never_divided_and_every_part_has_every_class(
    sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Units of up to 6 images of one class each, at least three a class."""
    sizes = [*sizes, *((label, 1) for label in range(4) for _ in range(3))]
    labels = [label for label, size in sizes for _ in range(size)]
    units = [f"unit {number}" for number, (_, size) in enumerate(sizes) for _ in range(size)]
    options: dict[str, Any] = {"fractions": {"val": 0.15, "test": 0.15}, "class_names": "abcd"}
    parts = divided(labels, units, **options)
    where = {(unit, part) for unit, part in zip(units, parts, strict=True)}
    assert len(where) == len(sizes)
    assert {(part, label) for part, label in zip(parts, labels, strict=True)} == {
        (part, label) for part in ("train", "val", "test") for label in range(4)
    }
    order = data.draw(st.permutations(range(len(labels))))
    again = divided([labels[place] for place in order], [units[place] for place in order], **options)
    assert again == [parts[place] for place in order]


@pytest.mark.parametrize("count", [10, 20, 33, 100, 1000])
def test_single_images_are_divided_by_rounded_shares(count: int) -> None:
    parts = divided(
        [0] * count, [str(n) for n in range(count)], fractions={"val": 0.15, "test": 0.15}, class_names=["a"]
    )
    held = max(1, round(0.15 * count))
    assert [parts.count(part) for part in ("train", "val", "test")] == [count - 2 * held, held, held]


def test_a_few_large_groups_still_give_each_part_one() -> None:
    units = [f"{number // 100}" for number in range(300)]
    parts = divided([0] * 300, units, fractions={"val": 0.15, "test": 0.15}, class_names=["a"])
    assert {*parts} == {"train", "val", "test"}
    with pytest.raises(
        CnnbenchError, match="class a has too few images to split off val and test: 2 that may be parted"
    ):
        divided([0] * 200, units[:200], fractions={"val": 0.15, "test": 0.15}, class_names=["a"])


@st.composite
def classes_and_counts(draw: st.DrawFn) -> tuple[list[int], int, int]:
    """Images in each class, and two numbers of images to draw, the smaller first."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    counts = st.integers(len(sizes), sum(sizes))
    return sizes, *sorted((draw(counts), draw(counts)))


def numbered(sizes: list[int]) -> Split:
    """Images that hold their own number; classes take turns as far as they last."""
    turns = [(turn, label) for label, size in enumerate(sizes) for turn in range(size)]
    labels = np.array([label for _, label in sorted(turns)], dtype=np.int64)
    return Split(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), labels)


@settings(deadline=None, max_examples=100)
@given(drawn=classes_and_counts())
def test_fewer_images_are_stratified_nested_and_hold_every_class(drawn: tuple[list[int], int, int]) -> None:
    sizes, small, large = drawn
    whole = numbered(sizes)
    places = []
    for count in (small, large):
        part = subsample(whole, count)
        chosen = part.images[:, 0, 0, 0].astype(int)
        places.append(set(chosen.tolist()))
        assert len(part) == len(places[-1]) == count
        assert (np.diff(chosen) > 0).all(), "the order is kept"
        assert np.array_equal(part.labels, whole.labels[chosen])
        taken, of = np.bincount(part.labels, minlength=len(sizes)), np.array(sizes)
        assert taken.min() >= 1
        # all classes are filled to the same level, each rounded up: one image too many at most, and what those of the
        # other classes take away is shared in proportion
        excess = taken - count * of / of.sum()
        assert (excess <= 1).all()
        assert (excess >= -len(sizes) * of / of.sum()).all()
    assert places[0] <= places[1]


def test_fewer_images_of_equal_classes_are_as_many_of_each() -> None:
    assert per_class(subsample(numbered([20] * 5), 50).labels) == [10] * 5


def test_fewer_is_a_fixed_draw_that_is_not_just_the_first_images() -> None:
    whole = numbered([60, 60])
    np.random.seed(0)
    first = subsample(whole, 20)
    np.random.seed(1)
    again = subsample(whole, 20)
    assert np.array_equal(first.images, again.images)
    assert first.images.max() > 60


@pytest.mark.parametrize("count", [-1, 0, 2, 31])
def test_more_images_than_there_are_or_fewer_than_classes_are_refused(count: int) -> None:
    with pytest.raises(CnnbenchError) as refused:
        subsample(DECODED.train, count)
    assert refused.value.code == Exit.USAGE
    assert f"data.train_images is {count}: expected 3 (one per class) to 30 (all of them)" in str(refused.value)


def test_measured_is_numpy_s_mean_and_std() -> None:
    images = np.random.RandomState(1).randint(0, 256, (50, 7, 5, 3)).astype(np.uint8)
    counted = with_pixel_stats(ImageSpec(7, 5, 3, 2), Split(images, np.zeros(50, dtype=np.int64)))
    np.testing.assert_allclose(counted.mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(counted.std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-12)


def test_a_constant_channel_has_a_standard_deviation_to_divide_by() -> None:
    constant = Split(np.full((3, 2, 2, 1), 51, dtype=np.uint8), np.zeros(3, dtype=np.int64))
    counted = with_pixel_stats(SPEC, constant)
    assert counted.mean == pytest.approx((0.2,))
    assert 0 < counted.std[0] <= 1e-3


def test_balanced_weights_are_scikit_learn_s() -> None:
    labels = np.repeat([0, 1, 3], [6, 3, 1])
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    assert balanced_weights(labels, classes=4) == pytest.approx([expected[0], expected[1], 0.0, expected[2]])
    assert balanced_weights(labels, classes=4)[labels].mean() == pytest.approx(1)


@given(st.lists(st.integers(5, 12), min_size=2, max_size=4), st.integers(2, 5))
def test_over_all_folds_each_image_is_validated_on_once(sizes: list[int], count: int) -> None:
    split = fake([label for label, size in enumerate(sizes) for _ in range(size)])
    train, val = holdout(split, fraction=0.2)
    parts = [folded(train, val, fold=f"{fold}/{count}") for fold in range(1, count + 1)]
    held = np.concatenate([part.images for _, part in parts])
    assert np.array_equal(np.sort(held.ravel()), np.sort(split.images.ravel()))
    for rest, part in parts:
        assert len(rest) + len(part) == len(split)
        for label, size in enumerate(sizes):  # stratified: of each class its share, rounded up or down
            assert size // count <= int((part.labels == label).sum()) <= -(-size // count)
    assert max(len(part) for _, part in parts) - min(len(part) for _, part in parts) <= 1


def test_folds_are_dealt_out_by_a_fixed_seed_and_not_in_order() -> None:
    train, val = holdout(fake([0] * 20 + [1] * 20), fraction=0.1)
    first, again = (folded(train, val, fold="1/5")[1] for _ in range(2))
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, np.concatenate([train.images, val.images])[::5])


@pytest.mark.parametrize("text", ["", "1", "0/5", "6/5", "1/1", "a/5", "1/5/5", "-1/5", "1/101"])
def test_what_is_no_fold_is_refused(text: str) -> None:
    with pytest.raises(CnnbenchError, match=r"data.fold is .*expected a fold such as 2/5"):
        parse_fold(text)


def test_a_class_with_fewer_images_than_folds_is_refused() -> None:
    train, val = holdout(fake([0] * 10 + [1] * 4), fraction=0.2)
    with pytest.raises(CnnbenchError, match="class 1 has 4 images") as refused:
        folded(train, val, fold="1/5")
    assert refused.value.code == Exit.DATA
