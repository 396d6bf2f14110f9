"""One split of the same images, however it lies; and what each layout refuses or passes over."""

import csv
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_helpers import save_images
from PIL import Image

from cnnbench.datasets import Source, hashes
from cnnbench.datasets.choice import load
from cnnbench.datasets.hashes import sha256
from cnnbench.datasets.layout import Entry, Listing, read_listing
from cnnbench.types import CnnbenchError, Exit

CLASSES = ("cat", "dog", "pig")
PER_CLASS = {"train": 100, "val": 20, "test": 30}
"""450 images in all."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """450 images of noise in folders of splits and classes."""
    folder, random = tmp_path_factory.mktemp("pets") / "pets", np.random.RandomState(0)
    for split, count in PER_CLASS.items():
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.randint(0, 256, (6, 6, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Path, label and split of every image of folders of splits and classes."""
    return [
        {"path": str(path.relative_to(folder)), "label": path.parts[-2], "split": path.parts[-3]}
        for path in sorted(folder.rglob("*.png"))
    ]


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def scattered(folder: Path, target: Path) -> list[dict[str, str]]:
    """The images under other names in one folder, and their rows, in another order."""
    rows = rows_of(folder)[::-1]
    target.mkdir()
    for number, row in enumerate(rows):
        shutil.copy(folder / row["path"], target / f"{number}.png")
        row["path"] = f"{number}.png"
    return rows


def as_csv(pets: Path, place: Path) -> Path:
    return write_csv(place / "scattered" / "pets.csv", scattered(pets, place / "scattered"))


def as_folder_with_csv(pets: Path, place: Path) -> Path:
    return as_csv(pets, place).parent


def as_parquet(pets: Path, place: Path) -> Path:
    rows = scattered(pets, place / "scattered")
    pq.write_table(pa.Table.from_pylist(rows), place / "scattered" / "pets.parquet")
    return place / "scattered" / "pets.parquet"


def as_metadata(pets: Path, place: Path) -> Path:
    """An imagefolder of Hugging Face, with a metadata.csv in the folder of each split."""
    shutil.copytree(pets, place / "hub")
    for split in PER_CLASS:
        rows = [
            {"file_name": row["path"].removeprefix(f"{split}/"), "label": row["label"]}
            for row in rows_of(pets)
            if row["split"] == split
        ]
        write_csv(place / "hub" / split / "metadata.csv", rows)
    return place / "hub"


def as_a_csv_for_each_split(pets: Path, place: Path) -> Path:
    shutil.copytree(pets, place / "pets")
    for split in PER_CLASS:
        rows = [{"path": row["path"], "label": row["label"]} for row in rows_of(pets) if row["split"] == split]
        write_csv(place / "pets" / f"{split}.csv", rows)
    return place / "pets"


def as_zip(pets: Path, place: Path) -> Path:
    with zipfile.ZipFile(place / "pets.zip", "w") as archive:
        for path in sorted(pets.rglob("*.png"), reverse=True):
            archive.write(path, path.relative_to(pets))
    return place / "pets.zip"


def as_zip_of_a_csv(pets: Path, place: Path) -> Path:
    as_csv(pets, place)
    shutil.make_archive(str(place / "listed"), "zip", place / "scattered")
    return place / "listed.zip"


def as_tar(pets: Path, place: Path) -> Path:
    """All in one folder, as `tar cf pets.tar pets` writes it."""
    with tarfile.open(place / "pets.tar", "w") as archive:
        archive.add(pets, "pets")
    return place / "pets.tar"


def as_compressed_tar(pets: Path, place: Path) -> Path:
    with tarfile.open(place / "pets.tar.gz", "w:gz") as archive:
        archive.add(pets, ".")
    return place / "pets.tar.gz"


def as_other_names(pets: Path, place: Path) -> Path:
    shutil.copytree(pets, place / "other")
    (place / "other" / "train").rename(place / "other" / "TRAIN")
    (place / "other" / "val").rename(place / "other" / "Validation")
    return place / "other"


def as_data_folder(pets: Path, place: Path) -> Path:
    shutil.copytree(pets, place / "hub" / "data")
    return place / "hub"


LAYOUTS = (
    *(as_csv, as_folder_with_csv, as_parquet, as_metadata, as_zip, as_zip_of_a_csv, as_tar, as_compressed_tar),
    *(as_other_names, as_data_folder, as_a_csv_for_each_split),
)


def contents(listing: Listing) -> list[list[tuple[int, str, bytes]]]:
    """Label, hash and bytes of every image, in order."""
    return [[(e.label, e.sha256, e.read()) for e in entries] for entries in listing.splits.values()]


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_one_split_of_450_images_is_the_same_in_every_layout(
    pets: Path, tmp_path: Path, write: Callable[[Path, Path], Path]
) -> None:
    folders, other = read_listing(pets), read_listing(write(pets, tmp_path))
    assert [len(entries) for entries in folders.splits.values()] == [300, 60, 90]
    assert other.class_names == CLASSES
    assert other.sha256 == folders.sha256
    assert [[entry[:2] for entry in part] for part in contents(other)] == [
        [entry[:2] for entry in part] for part in contents(folders)
    ]


def npz(pets: Path, path: Path) -> Path:
    arrays: dict[str, np.ndarray] = {"class_names": np.array(CLASSES)}
    for split in PER_CLASS:
        rows = [row for row in rows_of(pets) if row["split"] == split]
        arrays[f"{split}_images"] = np.stack([np.asarray(Image.open(pets / row["path"])) for row in rows])
        arrays[f"{split}_labels"] = np.array([CLASSES.index(row["label"]) for row in rows])
    np.savez(path, **arrays)
    return path


def test_arrays_hold_the_same_pixels_under_a_hash_of_their_own(pets: Path, tmp_path: Path) -> None:
    folders, arrays = read_listing(pets), read_listing(npz(pets, tmp_path / "pets.npz"))
    assert arrays.class_names == CLASSES
    assert arrays.sha256 != folders.sha256
    for split, entries in folders.splits.items():
        assert decoded(entries) == decoded(arrays.splits[split])


def pixels_of(entry: Entry) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(entry.read())))


def decoded(entries: Sequence[Entry]) -> list[tuple[int, bytes]]:
    """Label and pixels of all, sorted."""
    return sorted((entry.label, pixels_of(entry).tobytes()) for entry in entries)


@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 1), (6, 6, 3), (6, 6, 4)])
def test_arrays_of_every_shape_keep_their_pixels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = np.random.RandomState(0).randint(0, 256, (20, *shape)).astype(np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(20) % 2)
    listing = read_listing(tmp_path / "x.npz")
    assert listing.class_names == ("0", "1")
    for entry in (*listing.train, *listing.val, *listing.test):
        number = int(entry.name.split()[1])
        assert np.array_equal(pixels_of(entry), images[number].squeeze())
        assert entry.label == number % 2


def random_images(folder: Path, names: Sequence[str]) -> None:
    """An image of noise at each path below `folder`, no two alike."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.RandomState(number).randint(0, 256, (4, 4, 3)).astype(np.uint8)).save(path, "PNG")


def named(pattern: str, count: int, classes: Sequence[str] = ("cat", "dog")) -> list[str]:
    return [pattern.format(name, number) for name in classes for number in range(count)]


def per_class(listing: Listing) -> dict[str, list[int]]:
    return {split: [*listing.counts(split).values()] for split in listing.splits}


def refusal(folder: Path, code: Exit = Exit.DATA, **options: Any) -> str:
    with pytest.raises(CnnbenchError) as refused:
        read_listing(folder, **options)
    assert refused.value.code == code
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_without_splits_70_15_and_15_percent_of_each_class_are_drawn(tmp_path: Path) -> None:
    random_images(tmp_path / "x", named("{}/{}.png", 100, ("cat", "dog")) + named("pig/{1}.png", 20, ("pig",)))
    listing = read_listing(tmp_path / "x")
    assert per_class(listing) == {"train": [70, 70, 14], "val": [15, 15, 3], "test": [15, 15, 3]}
    assert listing.drawn == ("val", "test")


def test_what_is_missing_is_drawn_from_train(tmp_path: Path) -> None:
    random_images(tmp_path / "x", named("train/{}/{}.png", 100))
    assert per_class(read_listing(tmp_path / "x")) == {"train": [70, 70], "val": [15, 15], "test": [15, 15]}
    random_images(tmp_path / "x", named("test/{}/{}.png", 7))
    listing = read_listing(tmp_path / "x")
    assert per_class(listing) == {"train": [85, 85], "val": [15, 15], "test": [7, 7]}
    assert listing.drawn == ("val",)
    assert all(entry.name.startswith("test/") for entry in listing.test)


def test_other_shares_can_be_asked_for(tmp_path: Path) -> None:
    random_images(tmp_path / "x", named("{}/{}.png", 20))
    listing = read_listing(tmp_path / "x", shares={"train": 50, "val": 20, "test": 30})
    assert per_class(listing) == {"train": [10, 10], "val": [4, 4], "test": [6, 6]}


def test_shares_are_refused_where_all_splits_are_there(pets: Path) -> None:
    assert "has train, val and test" in refusal(pets, Exit.USAGE, shares={"train": 70, "val": 15, "test": 15})


def test_duplicates_are_drawn_into_one_split(tmp_path: Path) -> None:
    random_images(tmp_path / "x", named("{}/{}.png", 40))
    for name in ("cat", "dog"):
        for number in range(20):
            shutil.copy(tmp_path / "x" / name / f"{number}.png", tmp_path / "x" / name / f"copy of {number}.png")
    where: dict[str, set[str]] = {}
    for split, entries in read_listing(tmp_path / "x").splits.items():
        for entry in entries:
            where.setdefault(entry.sha256, set()).add(split)
    assert len(where) == 80
    assert all(len(splits) == 1 for splits in where.values())


def test_one_more_image_leaves_most_of_the_others_in_their_split(tmp_path: Path) -> None:
    random_images(tmp_path / "x", named("{}/{}.png", 100))
    before = {e.name: split for split, entries in read_listing(tmp_path / "x").splits.items() for e in entries}
    save_images(tmp_path / "x" / "cat" / "new", 1)
    after = {e.name: split for split, entries in read_listing(tmp_path / "x").splits.items() for e in entries}
    assert sum(before[name] != after[name] for name in before) <= 3


def test_no_group_of_a_csv_is_divided(tmp_path: Path) -> None:
    rows = scattered_groups(tmp_path / "x", groups=40)
    listing = read_listing(write_csv(tmp_path / "x" / "groups.csv", rows))
    groups = {row["path"]: row["group"] for row in rows}
    where: dict[str, set[str]] = {}
    for split, entries in listing.splits.items():
        for entry in entries:
            where.setdefault(groups[entry.name], set()).add(split)
    assert {len(splits) for splits in where.values()} == {1}
    assert min(len(entries) for entries in listing.splits.values()) > 20
    for split, share in (("val", 15), ("test", 15)):
        assert len(listing.splits[split]) / len(rows) == pytest.approx(share / 100, abs=0.04)


def scattered_groups(folder: Path, *, groups: int) -> list[dict[str, str]]:
    """Images of two classes in groups of 1 to 9, and their rows."""
    sizes = [1 + number % 9 for number in range(groups)]
    names = [f"{group}-{number}.png" for group, size in enumerate(sizes) for number in range(size)]
    random_images(folder, names)
    return [
        {"path": name, "label": ("cat", "dog")[int(name.split("-")[1][:-4]) % 2], "group": name.split("-")[0]}
        for name in names
    ]


def test_a_group_that_a_csv_divides_itself_is_refused(pets: Path, tmp_path: Path) -> None:
    rows = [{**row, "group": Path(row["path"]).stem} for row in rows_of(pets)]
    shutil.copytree(pets, tmp_path / "pets")
    message = refusal(write_csv(tmp_path / "pets" / "x.csv", rows))
    assert "divides 30 groups between splits: 0 is in test and train and val" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": "later"}, "row 1, has the split 'later'"),
        ({"split": ""}, "names the split of some rows and not of 1"),
        ({"label": " "}, "1 rows without path or label: 1"),
        ({"path": "train/cat/1.png"}, "lists 1 files more than once: train/cat/1.png"),
    ],
    ids=["split", "no split", "no label", "twice"],
)
def test_a_row_that_cannot_be_meant_is_refused(pets: Path, tmp_path: Path, change: dict[str, str], said: str) -> None:
    rows = [row for row in rows_of(pets) if row["path"] in ("train/cat/0.png", "train/cat/1.png", "train/dog/0.png")]
    rows[0] |= change
    assert said in refusal(write_csv(tmp_path / "x.csv", rows))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", b"name,label\na,b\n", "x.csv has the columns name, label; expected a table with the columns path"),
        ("x.csv", b"path,label\n", "x.csv lists no images"),
        ("x.csv", b"", "x.csv has the columns none"),
        ("x.csv", b"path,label\n\xe9.png,a\n", "x.csv cannot be read as a table"),
        ("x.parquet", b"PAR1", "x.parquet cannot be read as a table"),
        ("x.jsonl", b"[1]\n", "x.jsonl cannot be read as a table"),
        ("x.zip", b"PK", "x.zip cannot be read as an archive"),
        ("x.tar.gz", b"\x1f\x8b", "x.tar.gz cannot be read as an archive"),
        ("x.npz", b"PK", "x.npz cannot be read as arrays"),
        ("x.txt", b"", "x.txt is a file of no known kind; expected train/<class>"),
    ],
)
def test_a_file_that_is_none_of_its_kind_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": np.zeros(3)}, "has the arrays a; expected images and labels"),
        ({"images": np.zeros((4, 2, 2)), "labels": np.arange(4)}, "images are float64 (4, 2, 2)"),
        ({"images": np.zeros((4, 2, 2, 2), np.uint8), "labels": np.arange(4)}, "images are uint8 (4, 2, 2, 2)"),
        ({"images": np.zeros((4, 2, 2), np.uint8), "labels": np.arange(3)}, "4 images, and labels are int64 (3,)"),
        (
            {"images": np.zeros((2, 2, 2), np.uint8), "labels": np.arange(2), "class_names": np.array(["a"])},
            "labels from 0 to 1; expected 0 to 0, as class_names has 1",
        ),
        ({"images": np.zeros((2, 2, 2), np.uint8), "labels": np.array([None, 1])}, "cannot be read as arrays"),
        ({"test_images": np.zeros((2, 2, 2), np.uint8), "test_labels": np.arange(2)}, "without a training image: 0, 1"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    assert said in refusal(tmp_path / "x.npz")


def test_names_that_lead_out_of_an_archive_are_passed_over(pets: Path, tmp_path: Path) -> None:
    path = as_zip(pets, tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../train/cat/out.png", b"x")
        archive.writestr("/etc/out.png", b"x")
        archive.writestr("__MACOSX/train/._x.png", b"x")
    listing = read_listing(path)
    assert listing.sha256 == read_listing(pets).sha256
    assert sorted((skipped.name, skipped.reason) for skipped in listing.skipped) == [
        ("../train/cat/out.png", "a name that leads out of the archive"),
        ("/etc/out.png", "a name that leads out of the archive"),
        ("__MACOSX/train/._x.png", "hidden"),
    ]
    assert not (tmp_path / "train").exists()


def test_links_and_devices_of_a_tar_are_passed_over(pets: Path, tmp_path: Path) -> None:
    path = as_tar(pets, tmp_path)
    with tarfile.open(path, "a") as archive:
        for name, kind in (("link.png", tarfile.SYMTYPE), ("pipe.png", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(f"pets/train/cat/{name}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    listing = read_listing(path)
    assert [skipped.reason for skipped in listing.skipped] == ["a link or no file"] * 2
    assert listing.sha256 == read_listing(pets).sha256


def test_a_damaged_member_is_among_the_unreadable(pets: Path, tmp_path: Path) -> None:
    path = as_zip(pets, tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 255  # of the first member; zip files keep a checksum of each
    path.write_bytes(content)
    (broken,) = read_listing(path).unreadable
    assert broken.name.endswith(".png")
    assert "CRC" in broken.reason


def test_everything_that_is_passed_over_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    random_images(folder, [*named("train/{}/{}.png", 10), "train/stray.png", "train/cat/.hidden.png"])
    random_images(folder, [".thumbnails/x.png", "other/x.png", "train/.checkpoints/x.png", "top.png"])
    (folder / "train" / "cat" / "notes.txt").touch()
    (folder / "train" / "cat" / "linked").symlink_to(folder / "train" / "dog")
    os.mkfifo(folder / "train" / "cat" / "pipe.png")
    listing = read_listing(folder)
    assert sum(map(len, listing.splits.values())) == 20
    assert {skipped.name: skipped.reason for skipped in listing.skipped} == {
        ".thumbnails": "hidden",
        "other": "a folder beside train",
        "top.png": "beside the class folders",
        "train/.checkpoints": "hidden",
        "train/cat/.hidden.png": "hidden",
        "train/cat/linked": "a link to a folder",
        "train/cat/notes.txt": "no image by its name",
        "train/cat/pipe.png": "not a file",
        "train/stray.png": "beside the class folders",
    }


def test_members_are_read_in_the_order_of_their_archive(pets: Path, tmp_path: Path) -> None:
    """In another one, a compressed archive would be unpacked from its beginning for every image."""
    as_csv(pets, tmp_path)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "scattered", ".")
        names = [name.removeprefix("./") for name in archive.getnames() if name.endswith(".png")]
    entries = [entry for part in read_listing(tmp_path / "x.tar.gz").splits.values() for entry in part]
    assert [entry.name for entry in sorted(entries, key=lambda entry: entry.place)] == names


def test_files_that_a_table_does_not_list_are_told(pets: Path, tmp_path: Path) -> None:
    folder = as_folder_with_csv(pets, tmp_path)
    random_images(folder, ["more.png"])
    assert [(skipped.name, skipped.reason) for skipped in read_listing(folder).skipped] == [("more.png", "in no table")]


def test_listed_files_that_are_not_there_are_unreadable(pets: Path, tmp_path: Path) -> None:
    path = as_csv(pets, tmp_path)
    for number in (3, 5):
        (path.parent / f"{number}.png").unlink()
    assert [broken.name for broken in read_listing(path).unreadable] == ["3.png", "5.png"]


def test_links_in_a_loop_end(tmp_path: Path) -> None:
    random_images(tmp_path / "x", named("train/{}/{}.png", 10))
    (tmp_path / "x" / "train" / "cat" / "loop").symlink_to(tmp_path / "x")
    assert [skipped.reason for skipped in read_listing(tmp_path / "x").skipped] == ["a link to a folder"]


def test_linked_folders_of_classes_are_followed(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for split in PER_CLASS:
        (tmp_path / "x" / split).symlink_to(pets / split)
    assert read_listing(tmp_path / "x").sha256 == read_listing(pets).sha256


def test_a_folder_that_cannot_be_listed_is_among_the_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_images(tmp_path / "x", [*named("{}/{}.png", 10), "cat/private/0.png"])
    scandir = os.scandir

    def refuses(path: Path) -> Any:
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)
    listing = read_listing(tmp_path / "x")
    assert [(broken.name, broken.reason) for broken in listing.unreadable] == [("cat/private", "Permission denied")]
    with pytest.raises(CnnbenchError, match="private as an image: Permission denied"):
        load("folder", Source(tmp_path, tmp_path / "x"))


def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    random_images(tmp_path / "x", named("{}/{}.png", 10))
    Image.new("RGB", (4, 4)).save(tmp_path / "x" / "cat" / os.fsdecode(b"caf\xe9.png"))
    listing = read_listing(tmp_path / "x")
    names = [entry.name for entries in listing.splits.values() for entry in entries]
    assert "cat/caf\\xe9.png" in names


@pytest.mark.parametrize("suffix", ["avif", "jfif", "JPE", "jp2", "tga", "ico", "pbm", "webp", "TIF"])
def test_whatever_pillow_reads_is_an_image(tmp_path: Path, suffix: str) -> None:
    random_images(tmp_path / "x", [*named("{}/{}.png", 10), f"cat/x.{suffix}"])
    assert sum(map(len, read_listing(tmp_path / "x").splits.values())) == 21


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["test/cat/0.png"], "holds test, but no folder train"),
        (["train/cat/0.png", "Train/cat/0.png"], "holds both"),
        (["train/cat/0.png", "val/cat/0.png", "valid/cat/0.png"], "holds both val and valid"),
        (["cat/0.png"], "holds 1 class folders"),
        (["train/cat/0.png", "train/dog/0.png"], "class cat has too few images to split off val and test"),
        (["0.png", "1.png"], "holds 0 class folders"),
    ],
)
def test_folders_that_cannot_be_meant_are_refused(tmp_path: Path, names: list[str], said: str) -> None:
    random_images(tmp_path, names)
    assert said in refusal(tmp_path)


def test_a_relative_folder_that_is_not_here_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"no folder pets in {tmp_path}" in refusal(Path("pets"))


def test_a_file_is_hashed_once_unless_it_was_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_images(tmp_path / "x", named("{}/{}.png", 10))
    monkeypatch.setattr(hashes, "SETTLED_NS", -(10**12))  # as if the files were old
    read: list[int] = []
    monkeypatch.setattr(hashes, "sha256", lambda file: (read.append(1), sha256(file))[1])
    before = read_listing(tmp_path / "x")
    assert len(read) == 20
    assert read_listing(tmp_path / "x").sha256 == before.sha256
    assert len(read) == 20
    path = tmp_path / "x" / "cat" / "0.png"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the same size and time
    assert read_listing(tmp_path / "x").sha256 != before.sha256
    assert len(read) == 21


def test_a_file_that_was_just_written_is_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_images(tmp_path / "x", named("{}/{}.png", 10))
    read: list[int] = []
    monkeypatch.setattr(hashes, "sha256", lambda file: (read.append(1), sha256(file))[1])
    read_listing(tmp_path / "x")
    read_listing(tmp_path / "x")
    assert len(read) == 40
