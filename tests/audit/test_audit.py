"""The audit finds what was planted, and nothing where nothing was."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from planted import CLASSES, COUNTS, clean, faulty, texture

from cnnbench.audit import facts
from cnnbench.audit.audit import Audit, Copies, audit_folder
from cnnbench.datasets.choice import open_choice
from cnnbench.records.schema import DataChoice
from cnnbench.types import CnnbenchError, Exit


def named(groups: tuple[Copies, ...]) -> set[frozenset[str]]:
    return {frozenset(place.name for place in copies.places) for copies in groups}


def found(folder: Path) -> Audit:
    return audit_folder(folder)


def test_in_a_clean_folder_nothing_is_found() -> None:
    audit = found(clean(Path("photos")))
    assert (audit.copies, audit.near, audit.flat, audit.broken, audit.skipped, audit.drawn) == ((), (), (), (), (), ())
    expected = {split: dict(zip(CLASSES, counts, strict=True)) for split, counts in COUNTS.items()}
    assert audit.counts == expected
    assert audit.sizes == {"40x32": sum(map(sum, COUNTS.values()))}
    assert audit.modes == {"PNG RGB": sum(map(sum, COUNTS.values()))}
    assert audit.majority == ("red", 40 / 64)


def test_what_was_planted_is_found_and_nothing_else() -> None:
    audit = found(faulty(Path("photos")))
    assert named(audit.leaks) == {
        frozenset({"train/red/0.png", "test/red/same bytes.png"}),
        frozenset({"train/green/1.png", "test/green/other format.bmp"}),
        frozenset({"train/blue/2.png", "val/blue/turned.png"}),
    }
    assert named(audit.contradictions) == {frozenset({"train/red/3.png", "train/green/wrong.png"})}
    assert named(audit.copies) - named(audit.leaks) - named(audit.contradictions) == {
        frozenset({"train/red/4.png", "train/red/again.png"})
    }
    assert audit.near is not None
    assert {frozenset(place.name for place in pair) for pair in audit.near} == {
        frozenset({"train/red/5.png", "test/red/recompressed.jpg"})
    }
    assert [place.name for place in audit.flat] == ["train/green/flat.png"]
    assert [file.name for file in audit.broken] == ["train/red/cut.png"]
    assert [file.name for file in audit.skipped] == ["train/notes.txt"]
    assert audit.counts["train"] == {"blue": 12, "green": 14, "red": 41}


def test_copies_are_what_one_sees_and_of_one_size() -> None:
    folder = clean(Path("photos"))
    for name, hidden in (("train/red/icon", 0), ("test/red/icon", 200)):
        pixels = np.full((8, 8, 4), hidden, np.uint8)
        pixels[..., 3] = 0
        pixels[2:5, 2:5] = (10, 20, 30, 255)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    row = np.random.RandomState(5).randint(0, 256, 64, np.uint8)
    Image.fromarray(row.reshape(4, 16)).save(folder / "train/blue/wide.png")
    Image.fromarray(row.reshape(16, 4)).save(folder / "test/blue/high.png")
    assert named(found(folder).copies) == {frozenset({"train/red/icon.png", "test/red/icon.png"})}


def test_only_images_of_two_splits_that_are_no_flat_ones_look_alike() -> None:
    folder = clean(Path("photos"))
    Image.open(folder / "train/red/0.png").save(folder / "train/red/recompressed.jpg", quality=95)
    Image.new("RGB", (40, 32), (9, 9, 9)).save(folder / "train/red/flat.png")
    Image.new("RGB", (40, 32), (10, 10, 10)).save(folder / "test/red/flat.png")
    assert found(folder).near == ()


def test_a_leak_into_a_drawn_split_is_found() -> None:
    """Copies by their bytes are kept together where splits are drawn; copies in another format are not."""
    for label, name in enumerate(("one", "other")):
        Path("photos", name).mkdir(parents=True)
        for place in range(20):
            texture(100 * label + place).save(f"photos/{name}/{place}.png")
            texture(100 * label + place).save(f"photos/{name}/{place}.bmp")
    audit = found(Path("photos"))
    assert audit.drawn == ("val", "test")
    assert len(audit.copies) == 40
    assert audit.leaks


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ([(28, 28)] * 3, 28),
        ([(20, 20)] * 3, 20),
        ([(100, 100)] * 3, 64),
        ([(33, 50), (40, 90), (47, 31)], 32),
        ([(10, 40)] * 3, 16),
    ],
)
def test_the_suggested_size_is_that_of_small_squares_or_enlarges_at_most_half(
    sizes: list[tuple[int, int]], size: int
) -> None:
    for label in range(2):
        for place, given in enumerate(sizes * 3):
            folder = Path("photos", str(label))
            folder.mkdir(parents=True, exist_ok=True)
            texture(50 * label + place, given).save(folder / f"{place}.png")
    advice = found(Path("photos")).advice
    assert (advice.size, advice.channels) == (size, 3)
    assert f"--data.size {size} --data.channels 3" in advice.command


def test_gray_images_in_colour_files_need_one_channel_and_uneven_classes_weights() -> None:
    for name, count in (("rare", 5), ("common", 40)):
        Path("photos", name).mkdir(parents=True)
        for place in range(count):
            gray = np.random.RandomState(100 * count + place).randint(0, 256, (16, 16), np.uint8)
            Image.fromarray(gray).convert("RGB").save(f"photos/{name}/{place}.png")
    advice = found(Path("photos")).advice
    assert advice.channels == 1
    assert "--model.class_weights balanced" not in advice.command  # 35 of 39 are less than twice a half
    for place in range(40):
        Path("photos/third").mkdir(exist_ok=True)
        if place < 5:
            gray = np.random.RandomState(9000 + place).randint(0, 256, (16, 16), np.uint8)
            Image.fromarray(gray).save(f"photos/third/{place}.png")
    assert "--model.class_weights balanced" in found(Path("photos")).advice.command


def test_each_content_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = faulty(Path("photos"))
    before = found(folder)
    looked: list[str] = []
    look_at = facts.look_at
    monkeypatch.setattr(facts, "look_at", lambda entry: looked.append(entry.name) or look_at(entry))
    assert found(folder).leaks == before.leaks
    assert looked == []
    texture(999).save(folder / "train/red/new.png")
    (folder / "train/red/0.png").rename(folder / "train/red/renamed.png")
    assert len(found(folder).leaks) == 3
    assert looked == ["train/red/new.png"]


def test_without_imagehash_images_that_look_alike_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_hasher", lambda: None)
    audit = found(faulty(Path("photos")))
    assert audit.near is None
    assert len(audit.leaks) == 3


@pytest.mark.parametrize("kind", ["zip", "gztar", "csv"])
def test_other_layouts_are_audited_alike(kind: str) -> None:
    folder = faulty(Path("photos"))
    expected = named(found(folder).leaks)
    source = Path("photos.csv")
    if kind == "csv":
        lines = [f"photos/{place.name},{place.class_name},{place.split}" for place in found(folder).images]
        source.write_text("\n".join(["path,label,split", *lines]))
        expected = {frozenset(f"photos/{name}" for name in group) for group in expected}
    else:
        source = Path(shutil.make_archive("packed", kind, folder))
    assert named(found(source).leaks) == expected


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(CnnbenchError, match="no folder nowhere") as refused:
        found(Path("nowhere"))
    assert refused.value.code == Exit.DATA


def test_files_that_fit_refuses_are_broken_for_the_same_reason() -> None:
    """In the words of the one decoder, and no object of Python is among them."""
    folder = clean(Path("photos"))
    Image.fromarray(np.full((9, 9), 0.5, np.float32)).save(folder / "train/red/float.tif")
    Image.fromarray(np.full((9, 9), 70_000, np.int32)).save(folder / "train/red/wide.tif")
    (folder / "train/red/no image.png").write_bytes(b"<html>")
    told = {file.name: file.reason for file in found(folder).broken}
    assert told == {
        "train/red/float.tif": "its pixels are of mode F; expected 8 or 16 bits a channel",
        "train/red/wide.tif": "its pixels are of mode I; expected 8 or 16 bits a channel",
        "train/red/no image.png": "cannot identify image file",
    }
    with pytest.raises(CnnbenchError) as refused:
        open_choice(DataChoice(dataset="folder", folder=str(folder)))
    for name, reason in told.items():
        assert f"{name} ({reason})" in str(refused.value)


def test_what_cannot_be_split_is_audited_all_the_same() -> None:
    for label, name in enumerate(("one", "other")):
        Path("photos", name).mkdir(parents=True)
        for place in range(6):
            texture(50 * label + place * (name == "other")).save(f"photos/{name}/{place}.png")
    audit = found(Path("photos"))
    assert audit.undrawn.startswith("class one has too few images to split off val and test: 1 that may be parted")
    assert [len(copies.places) for copies in audit.copies] == [6]
    assert audit.counts["train"] == {"one": 6, "other": 6}
    assert audit.drawn == audit.leaks == ()
    assert audit.advice.remarks == (f"fit refuses these images: {audit.undrawn}",)
    assert audit.advice.command == ""
    with pytest.raises(CnnbenchError, match="class one has too few images"):
        open_choice(DataChoice(dataset="folder", folder="photos"))


def test_where_all_is_broken_fit_would_have_nothing() -> None:
    folder = clean(Path("photos"))
    for path in folder.rglob("*/red/*.png"):
        path.write_bytes(path.name.encode() + path.parent.parent.name.encode())
    assert found(folder).advice.remarks == ("fit has no training image of red: all that there are are broken",)
    for path in folder.rglob("*.png"):
        path.write_bytes(str(path).encode())
    audit = found(folder)
    count = sum(map(sum, COUNTS.values()))
    assert (audit.advice.remarks, audit.advice.command) == (
        (f"fit has nothing to train on: all {count} files are broken",),
        "",
    )


def test_the_command_keeps_the_shares_that_were_asked_for() -> None:
    folder = clean(Path("photos"))
    shutil.rmtree(folder / "test")
    assert "--data.split 60,20,20" in audit_folder(folder, split="60,20,20").advice.command
    assert "--data.split" not in found(folder).advice.command


def test_arrays_are_no_files_of_a_format() -> None:
    for channels in (3, 4):
        pixels = np.random.RandomState(0).randint(0, 256, (20, 8, 8, channels)).astype(np.uint8)
        np.savez("x.npz", images=pixels, labels=np.arange(20) % 2)
        assert found(Path("x.npz")).modes == {f"array {'RGBA' if channels == 4 else 'RGB'}": 20}
