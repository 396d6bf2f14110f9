"""A data set that lies is refused in one line, whatever it lies about."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from dataset_helpers import refusal

from cnnbench.datasets import Decoded, Source, dataset
from cnnbench.datasets.choice import load
from cnnbench.types import Augment, CnnbenchError, Exit, ImageSpec, Split

SPEC = ImageSpec(4, 3, 2, 3, mean=(0.5, 0.5), std=(0.3, 0.3))
SOURCE = Source(root=Path("nowhere"))


def split(count: int, seed: int) -> Split:
    images = np.random.RandomState(seed).randint(0, 256, (count, 4, 3, 2)).astype(np.uint8)
    return Split(images, np.arange(count) % 3)


HONEST = Decoded(SPEC, ("a", "b", "c"), train=split(30, 1), test=split(6, 2))


@pytest.fixture(autouse=True)
def _own_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(dataset, "entries", dict(dataset.entries))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def changed(part: str, **changes: Any) -> Decoded:
    return replace(HONEST, **{part: replace(getattr(HONEST, part), **changes)})


TRAIN = HONEST.train
LIES: dict[str, tuple[Callable[[], Any], str]] = {
    "a tuple": (lambda: (TRAIN, TRAIN), "returned a tuple: expected a Decoded"),
    "raises": (lambda: 1 // 0, "cannot be read: ZeroDivisionError: integer division or modulo by zero"),
    "leaves": (lambda: sys.exit("no licence"), "cannot be read: SystemExit: no licence"),
    "no spec": (lambda: replace(HONEST, spec=(4, 3, 2)), "has a spec of type tuple: expected ImageSpec"),
    "a list for a split": (lambda: replace(HONEST, test=[1, 2]), "has a test of type list: expected Split"),
    "lists of pixels": (lambda: changed("train", images=[1]), "has train images of type list: expected a numpy array"),
    "float pixels": (
        lambda: changed("train", images=(TRAIN.images / 255).astype(np.float32)),
        "has train images of float32: expected uint8, from 0 to 255",
    ),
    "16 bits": (lambda: changed("test", images=HONEST.test.images.astype(np.uint16)), "has test images of uint16"),
    "channels first": (
        lambda: changed("train", images=TRAIN.images.transpose(0, 3, 1, 2)),
        "has train images of shape (30, 2, 4, 3) and 30 labels; expected (N, 4, 3, 2) with N labels",
    ),
    "a label less": (lambda: changed("train", labels=TRAIN.labels[1:]), "and 29 labels; expected (N, 4, 3, 2)"),
    "labels from 1": (
        lambda: changed("train", labels=TRAIN.labels + 1),
        "has train labels from 1 to 3; expected 0 to 2",
    ),
    "labels from 1, one class more": (
        lambda: replace(
            HONEST,
            spec=replace(SPEC, num_classes=4),
            class_names=("a", "b", "c", "d"),
            train=replace(TRAIN, labels=TRAIN.labels + 1),
        ),
        "has no training image of class 0 (a)",
    ),
    "labels as numbers of float": (
        lambda: changed("train", labels=TRAIN.labels.astype(float)),
        "has train labels of float64 (30,): expected whole numbers (N,)",
    ),
    "one-hot labels": (
        lambda: changed("train", labels=np.eye(3, dtype=int)[TRAIN.labels]),
        "has train labels of int64 (30, 3)",
    ),
    "two names for three classes": (
        lambda: replace(HONEST, class_names=("a", "b")),
        "has 2 class names for 3 classes: expected one text per class",
    ),
    "no class names": (lambda: replace(HONEST, class_names=None), "has class names of type NoneType"),
    "an escape sequence": (lambda: replace(HONEST, class_names=("a", "b", "\x1b[2J")), r"has a class named '\x1b"),
    "a blank name": (lambda: replace(HONEST, class_names=("a", " ", "c")), "has a class named ' '"),
    "one name twice": (lambda: replace(HONEST, class_names=("a", "b", "a")), "has two classes named 'a'"),
    "no deviation": (
        lambda: replace(HONEST, spec=replace(SPEC, std=(0.3, 0.0))),
        "states a standard deviation of 0 for channel 1: expected more than 0",
    ),
    "a mean in bytes": (
        lambda: replace(HONEST, spec=replace(SPEC, mean=(127.0, 0.5))),
        "states a mean of 127 and a standard deviation of 0.3 for channel 0: expected those of pixels in [0, 1]",
    ),
    "a mean alone": (lambda: replace(HONEST, spec=replace(SPEC, std=())), "states one of mean and standard deviation"),
    "the same image everywhere": (
        lambda: changed("train", images=np.broadcast_to(TRAIN.images[:1], TRAIN.images.shape).copy()),
        "has the same image everywhere in train",
    ),
    "pixels from 0 to 1": (
        lambda: changed("train", images=TRAIN.images % 2),
        "has train images from 0 to 1: expected 0 to 255",
    ),
    "three means for two channels": (
        lambda: replace(HONEST, spec=replace(SPEC, mean=(0.5, 0.5, 0.5))),
        "cannot be read: mean has 3 values for 2 channels",
    ),
    "no images": (
        lambda: changed("test", images=HONEST.test.images[:0], labels=HONEST.test.labels[:0]),
        "and 0 labels",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_in_one_line(lie: str) -> None:
    build, words = LIES[lie]
    dataset(name="theirs")(lambda source: build())
    line = refusal("theirs", SOURCE)
    assert line.startswith("dataset theirs ")
    assert words in line


def test_other_images_at_a_second_call_are_refused() -> None:
    calls: list[int] = []

    @dataset
    def theirs(source: Source) -> Decoded:
        calls.append(1)
        return replace(HONEST, train=split(30, len(calls)))

    with pytest.raises(CnnbenchError, match="gives other images at a second call") as refused:
        load("theirs", SOURCE)
    assert refused.value.code == Exit.DATA


def test_the_second_call_comes_once_per_content() -> None:
    calls: list[int] = []

    @dataset
    def theirs(source: Source) -> Decoded:
        calls.append(1)
        return HONEST

    for count in (2, 3, 4):
        load("theirs", SOURCE)
        assert len(calls) == count


def test_pixels_that_are_not_normalised_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    dataset(name="plain")(lambda source: replace(HONEST, spec=replace(SPEC, mean=(), std=())))
    for _ in range(2):
        load("plain", SOURCE)
    line = "note: dataset plain states no mean and standard deviation: pixels are not normalised\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"mean": (0.5, 0.42)}, ""),
        ({"std": (0.3, 0.2)}, ""),
        (
            {"mean": (0.5, 0.35)},
            "a mean of 0.35 and a standard deviation of 0.3 for channel 1; its training pixels have",
        ),
        ({"std": (0.1, 0.3)}, "a mean of 0.5 and a standard deviation of 0.1 for channel 0; its training pixels have"),
        ({"std": (0.7, 0.3)}, "a mean of 0.5 and a standard deviation of 0.7 for channel 0; its training pixels have"),
    ],
)
def test_statistics_far_from_the_pixels_own_are_named(
    changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset(name="far")(lambda source: replace(HONEST, spec=replace(SPEC, **changes)))
    for _ in range(2):
        load("far", SOURCE)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" about")[0] for line in lines] == ([f"note: dataset far states {said}"] if said else [])


@pytest.mark.parametrize(
    ("declared", "fits"),
    [
        ({"size": "4x3x2", "classes": 3}, True),
        ({"size": "4x3x2"}, True),
        ({"classes": 3}, True),
        ({"size": "28x28x1", "classes": 3}, False),
        ({"size": "28x28x1"}, False),
        ({"classes": 2}, False),
    ],
    ids=str,
)
def test_a_data_set_is_held_to_what_it_declares(declared: dict[str, Any], fits: bool) -> None:
    dataset(name="theirs", **declared)(lambda source: HONEST)
    if fits:
        assert load("theirs", SOURCE).spec == SPEC
        return
    stated = f"{declared.get('size', '4x3x2')}, {declared.get('classes', 3)} classes"
    assert refusal("theirs", SOURCE) == f"dataset theirs declares {stated}, and returns 4x3x2, 3 classes"


def test_numbers_of_numpy_in_a_spec_are_plain_numbers_afterwards() -> None:
    spec = ImageSpec(np.int64(4), 3, 2, np.int32(3), mean=np.array([0.5, 0.25]), std=tuple(np.ones(2, np.float32)))  # type: ignore[arg-type]
    assert [type(value) for value in (spec.height, spec.num_classes, *spec.mean, *spec.std)] == [int] * 2 + [float] * 4
    assert msgspec.json.decode(msgspec.json.encode(spec), type=ImageSpec) == spec
    assert msgspec.to_builtins(Augment(np.int64(2), np.bool_(True))) == {"pad": 2, "flip": True}  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"height": 4.5}, {"num_classes": "3"}, {"mean": ("a", "b")}, {"std": 1}])
def test_a_spec_of_no_numbers_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CnnbenchError, match="an image spec needs a"):
        replace(SPEC, **change)


def test_class_names_in_a_list_are_a_tuple_afterwards() -> None:
    dataset(name="theirs")(lambda source: replace(HONEST, class_names=["a", "b", "c"]))
    assert load("theirs", SOURCE).class_names == ("a", "b", "c")


def test_arrays_that_torch_cannot_share_are_copied() -> None:
    backwards = changed("test", images=HONEST.test.images[..., ::-1])
    frozen = replace(backwards, train=Split(TRAIN.images.copy(), TRAIN.labels.copy()))
    frozen.train.images.flags.writeable = False
    dataset(name="theirs")(lambda source: frozen)
    data = load("theirs", SOURCE)
    for part in (data.train, data.val, data.test):
        torch.from_numpy(part.images)
    assert np.array_equal(data.test.images, HONEST.test.images[..., ::-1])


def test_what_a_builder_cannot_import_is_the_environment_s_fault() -> None:
    @dataset(name="theirs")
    def builder(source: Source) -> Decoded:
        import nowhere_to_be_found  # type: ignore[import-not-found]

        return Decoded(**nowhere_to_be_found)

    assert "No module named 'nowhere_to_be_found'" in refusal("theirs", SOURCE, Exit.ENVIRONMENT)


def test_labels_of_any_whole_type_are_taken() -> None:
    dataset(name="theirs")(lambda source: changed("train", labels=TRAIN.labels.astype(np.uint8)))
    assert load("theirs", SOURCE).train.labels.dtype == np.int64
