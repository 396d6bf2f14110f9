"""What `fit` says of the images."""

import numpy as np
from dataset_helpers import fake

from cnnbench.datasets.summary import summary
from cnnbench.types import Augment, Dataset, ImageSpec, Split


def data_of(labels: list[int], names: tuple[str, ...], **options: tuple[str, ...]) -> Dataset:
    split = fake(labels)
    spec = ImageSpec(2, 2, 1, num_classes=len(names))
    return Dataset("pets", spec, names, Augment(), "", train=split, val=split, test=split, **options)  # type: ignore[arg-type]


def test_few_classes_are_counted_each() -> None:
    data = data_of([0, 0, 1], ("cat", "dog"), notes=("pets: a folder per class",))
    each = "3 (cat 2, dog 1)"
    assert summary(data) == ["pets: a folder per class", f"images: train {each}; val {each}; test {each}"]


def test_of_many_classes_the_smallest_and_the_largest_are_named() -> None:
    names = tuple("abcdefgh")
    assert "train 9 (8 classes of 1 (a) to 2 (h))" in summary(data_of([*range(8), 7], names))[0]
    assert "train 8 (8 classes of 1)" in summary(data_of([*range(8)], names))[0]


def test_a_name_with_a_line_end_is_one_line() -> None:
    labels = np.array([0, 1])
    split = Split(np.zeros((2, 2, 2, 1), np.uint8), labels)
    data = Dataset("x", ImageSpec(2, 2, 1, 2), ("a\nb", "c"), Augment(), "", train=split, val=split, test=split)
    assert all("\n" not in line for line in summary(data))
