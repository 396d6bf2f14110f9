"""What holds for every dataset, and how one that does not hold it is refused."""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from dataset_helpers import DECODED, Loaded, OurEntry, fake, per_class, refusal

from cnnbench import records
from cnnbench.datasets import Decoded, Source, dataset
from cnnbench.datasets.choice import content_hash, data_root, describe, load, open_choice, open_recorded
from cnnbench.datasets.splits import with_pixel_stats
from cnnbench.records.schema import DataChoice, DataRecord
from cnnbench.types import CnnbenchError, Dataset, Exit, ImageSpec, Split

Register = Callable[..., None]
NOWHERE = Source(Path("nowhere"))


def splits(data: Dataset) -> list[Split]:
    return [data.train, data.val, data.test]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Registers a builder named `fake` that returns what it is given."""

    monkeypatch.setattr(dataset, "entries", dict(dataset.entries))

    def add(decoded: Decoded, **declared: object) -> None:
        def builder(_: Source) -> Decoded:
            return decoded

        monkeypatch.setitem(dataset.entries, "fake", OurEntry("fake", "", "", declared=declared, builder=builder))

    return add


def test_images_and_labels_are_what_the_spec_says(loaded: Loaded) -> None:
    data = loaded.data
    for split in splits(data):
        assert split.images.dtype == np.uint8
        assert split.images.shape == (len(split), data.spec.height, data.spec.width, data.spec.channels)
        assert split.labels.dtype == np.int64
        assert set(split.labels.tolist()) == set(range(data.spec.num_classes))
    assert len(data.class_names) == len(set(data.class_names)) == data.spec.num_classes


def test_validation_is_a_stratified_part_of_train(loaded: Loaded) -> None:
    train, val = (np.array(per_class(split.labels)) for split in (loaded.data.train, loaded.data.val))
    assert np.abs(val - (train + val) * val.sum() / (train + val).sum()).max() <= 1
    if loaded.decoded.val is None:
        assert np.abs(val - (train + val) / 10).max() <= 0.5, "a tenth of each class, rounded"
        assert len(loaded.data.train) + len(loaded.data.val) == len(loaded.decoded.train)


def test_no_image_is_in_two_splits(loaded: Loaded) -> None:
    train, val, test = ({image.tobytes() for image in split.images} for split in splits(loaded.data))
    assert not train & val
    assert not train & test
    assert not val & test


def test_declared_statistics_are_those_of_the_training_images(loaded: Loaded) -> None:
    spec = loaded.data.spec
    counted = with_pixel_stats(spec, loaded.decoded.train)
    decimals = max(len(str(value).split(".")[1]) for value in (*spec.mean, *spec.std))
    assert np.round(counted.mean, decimals).tolist() == list(spec.mean)
    assert np.round(counted.std, decimals).tolist() == list(spec.std)


def test_the_hash_is_the_declared_one(loaded: Loaded) -> None:
    declared = dataset[loaded.data.name].declared.get("sha256")
    assert loaded.data.sha256 == (declared or loaded.decoded.sha256 or content_hash(loaded.decoded))


def test_declared_size_and_classes_are_those_that_are_loaded(loaded: Loaded) -> None:
    declared, spec = dataset[loaded.data.name].declared, loaded.data.spec
    if loaded.data.name == "folder":
        assert not {"size", "classes"} & set(declared)
    else:
        assert ImageSpec.of(declared["size"], declared["classes"]) == dataclasses.replace(spec, mean=(), std=())


@pytest.mark.parametrize(
    "name", [name for name in dataset if name != "folder" and not dataset[name].declared.get("splits")]
)
def test_a_dataset_with_one_split_refuses_another(name: str) -> None:
    said = refusal(name, dataclasses.replace(NOWHERE, split="left-right"), Exit.USAGE)
    assert said == f"{name} has no split 'left-right': it has none but its own, which needs no name"


def test_the_split_depends_on_no_seed(mnist5k: Dataset) -> None:
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        again = load("mnist5k", NOWHERE)
        for ours, theirs in zip(splits(mnist5k), splits(again), strict=True):
            assert np.array_equal(ours.images, theirs.images)


def test_fewer_training_images_leave_validation_and_test_whole(register: Register) -> None:
    register(DECODED)
    whole, part = load("fake", NOWHERE), load("fake", NOWHERE, train_images=9)
    assert (len(whole.train), len(part.train)) == (27, 9)
    assert part.sha256 == whole.sha256  # the hash is of the source, whatever is taken of it
    for name in ("val", "test"):
        assert np.array_equal(getattr(part, name).images, getattr(whole, name).images)
        assert np.array_equal(getattr(part, name).labels, getattr(whole, name).labels)
    taken, images = ({image.tobytes() for image in data.train.images} for data in (part, whole))
    assert taken < images


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_label_out_of_range_is_refused(register: Register, part: str, label: int) -> None:
    register(dataclasses.replace(DECODED, **{part: fake([0, 1, label])}))
    assert "expected 0 to 2" in refusal("fake", NOWHERE)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_an_empty_split_is_refused(register: Register, part: str) -> None:
    register(dataclasses.replace(DECODED, **{part: fake([])}))
    assert "0 labels" in refusal("fake", NOWHERE)


@pytest.mark.parametrize(
    "split",
    [
        Split(DECODED.train.images, DECODED.train.labels[:-1]),
        Split(DECODED.train.images[:, :1], DECODED.train.labels),
        Split(DECODED.train.images[..., 0], DECODED.train.labels),
    ],
    ids=["fewer labels", "other size", "no channels"],
)
def test_images_that_do_not_fit_their_labels_or_spec_are_refused(register: Register, split: Split) -> None:
    register(dataclasses.replace(DECODED, train=split))
    assert "expected (N, 2, 2, 1) with N labels" in refusal("fake", NOWHERE)


def test_a_declared_hash_is_held_to(register: Register) -> None:
    register(DECODED, sha256=content_hash(DECODED))
    assert load("fake", NOWHERE).sha256 == content_hash(DECODED)
    register(DECODED, sha256="0" * 64)
    assert "fake in nowhere is altered" in refusal("fake", NOWHERE)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_the_hash_covers_every_pixel_and_label(part: str) -> None:
    whole = dataclasses.replace(DECODED, val=fake([0, 1, 2], shift=160))
    split = getattr(whole, part)
    pixel, label = split.images.copy(), split.labels.copy()
    pixel[-1, -1, -1, -1] ^= 1
    label[-1] ^= 1
    edited = [
        dataclasses.replace(whole, **{part: other})
        for other in (split, Split(pixel, split.labels), Split(split.images, label))
    ]
    assert len({content_hash(decoded) for decoded in edited}) == 3


def test_validation_that_is_given_is_kept(register: Register) -> None:
    val = fake([0, 1, 2], shift=160)
    register(dataclasses.replace(DECODED, val=val))
    data = load("fake", NOWHERE)
    assert data.val is val
    assert data.train is DECODED.train


def test_a_label_for_records_replaces_the_name(register: Register) -> None:
    register(DECODED)
    assert (load("fake", NOWHERE).name, load("fake", NOWHERE, label="mine").name) == ("fake", "mine")


def test_an_unknown_dataset_is_a_usage_error() -> None:
    assert "did you mean mnist5k" in refusal("mnist5", NOWHERE, Exit.USAGE)


def test_the_root_is_the_flag_then_the_variable_then_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CNNBENCH_DATA", raising=False)
    assert data_root() == tmp_path / "cnnbench" / "data"
    monkeypatch.setenv("CNNBENCH_DATA", "from_variable")
    assert data_root() == Path("from_variable")
    assert data_root("from_flag") == Path("from_flag")
    assert data_root("~/data") == Path.home() / "data"


CHOICE = DataChoice(dataset="fake", name="mine")


def test_a_record_opens_the_images_it_describes(register: Register) -> None:
    register(DECODED)
    recorded = describe(open_choice(CHOICE), CHOICE)
    assert (recorded.train_images, recorded.val_images, recorded.test_images) == (27, 3, 3)
    assert open_recorded(recorded).sha256 == recorded.sha256 == content_hash(DECODED)


def test_a_record_opens_as_few_training_images_as_it_describes(register: Register) -> None:
    register(DECODED)
    choice = records.replace(CHOICE, train_images=9)
    data = open_choice(choice)
    recorded = describe(data, choice)
    assert (recorded.train_images, recorded.val_images, recorded.test_images) == (9, 3, 3)
    again = open_recorded(recorded)
    assert np.array_equal(again.train.images, data.train.images)
    assert np.array_equal(again.train.labels, data.train.labels)


def test_a_record_opens_the_fold_it_describes(register: Register) -> None:
    register(DECODED)
    whole, choice = open_choice(CHOICE), records.replace(CHOICE, fold="1/2")
    data = open_choice(choice)
    assert not np.array_equal(data.val.images, whole.val.images)
    assert data.sha256 == whole.sha256
    assert data.spec.mean == with_pixel_stats(data.spec, data.train).mean
    again = open_recorded(describe(data, choice))
    assert np.array_equal(again.val.images, data.val.images)


def test_a_record_refuses_other_images(register: Register) -> None:
    register(DECODED)
    recorded = describe(open_choice(CHOICE), CHOICE)
    register(dataclasses.replace(DECODED, test=fake([0, 1, 2], shift=121)))
    with pytest.raises(CnnbenchError, match="these are not the images of the record") as refused:
        open_recorded(recorded)
    assert refused.value.code == Exit.DATA


def test_a_record_from_before_splits_had_names_opens(register: Register) -> None:
    register(DECODED, splits={"other": "0" * 64})
    recorded = describe(open_choice(CHOICE), CHOICE)
    before = {key: value for key, value in msgspec.to_builtins(recorded).items() if key != "split"}
    recorded = msgspec.convert(before, DataRecord)
    assert open_recorded(recorded).sha256 == content_hash(DECODED)


def test_a_record_opens_the_split_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(DECODED, test=fake([0, 1, 2], shift=121))
    monkeypatch.setattr(dataset, "entries", dict(dataset.entries))

    def builder(source: Source) -> Decoded:
        return other if source.split else DECODED

    declared = {"splits": {"other": content_hash(other)}}
    monkeypatch.setitem(dataset.entries, "fake", OurEntry("fake", "", "", declared=declared, builder=builder))
    choice = records.replace(CHOICE, name=None, split="other")
    recorded = describe(open_choice(choice), choice)
    assert (recorded.name, recorded.split) == ("fake_other", "other")
    assert open_recorded(recorded).sha256 == content_hash(other)
    with pytest.raises(CnnbenchError, match="these are not the images of the record"):
        open_recorded(records.replace(recorded, split=None))
