"""Odd folders, as people have them: each is read, or refused in one line, and what is left out is told."""

import io
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnbench.datasets import Source
from cnnbench.datasets.choice import load
from cnnbench.types import CnnbenchError, Exit

Content = int | str | bytes
"""So many images; "-> PLACE" for a link; "pipe"; or the bytes of a file."""
Lay = Mapping[str, Content]

TWO: Lay = {"cat": 10, "dog": 10}
SPLIT: Lay = {"train/cat": 10, "train/dog": 10, "test/cat": 2, "test/dog": 2}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(number: int, **options: object) -> bytes:
    """An image of noise; no two numbers give the same."""
    file = io.BytesIO()
    pixels = np.random.RandomState(number).randint(0, 256, (6, 6, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, str(options.get("format", "PNG")))
    return file.getvalue()


def lay(folder: Path, contents: Lay) -> Path:
    number = 0
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, int):
            path.mkdir(exist_ok=True)
            for index in range(content):
                number += 1
                (path / f"{index}.png").write_bytes(png(number))
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(content.removeprefix("-> "))
    return folder


def zipped(contents: Lay, extra: Mapping[str, bytes] | None = None) -> bytes:
    """A .zip of so many images in each folder."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        number = 0
        for name, count in contents.items():
            assert isinstance(count, int)
            for index in range(count):
                number += 1
                archive.writestr(f"{name}/{index}.png", png(number))
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    return file.getvalue()


def encrypted() -> bytes:
    """A .zip whose members claim to be encrypted: bit 0 of the flags, in both headers of each."""
    content = bytearray(zipped(TWO))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(mark)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(mark, place + 1)
    return bytes(content)


def tarred(kind: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=kind) as archive:  # type: ignore[call-overload]
        for number in range(20):
            info, content = tarfile.TarInfo(f"./{('cat', 'dog')[number % 2]}/{number}.png"), png(number)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def table(rows: int = 20, *, header: str = "path,label", row: str = "{0}.png,{1}") -> dict[str, Content]:
    """Images in the top folder and a table of them."""
    lines = [
        header,
        *(row.format(number, ("cat", "dog")[number % 2], ("a", "b")[number % 2]) for number in range(rows)),
    ]
    return {"x.csv": "\n".join(lines).encode(), **{f"{number}.png": png(number) for number in range(rows)}}


READ: dict[str, tuple[Lay, str]] = {
    "classes alone": (TWO, "a folder per class; val and test drawn here"),
    "splits": (SPLIT, "train/, test/ with a folder per class; val drawn here"),
    "splits in capitals": ({"TRAIN/cat": 10, "TRAIN/dog": 10}, "TRAIN/ with a folder per class"),
    "valid": ({**SPLIT, "valid/cat": 2}, "train/, valid/, test/ with a folder per class"),
    "Validation": ({**SPLIT, "Validation/dog": 2}, "no val image of cat"),
    "a test without one class": ({**SPLIT, "test/dog": 0}, "no test image of dog"),
    "folders below classes": ({"cat/a": 5, "cat/b": 5, "dog/c/d": 10}, "a folder per class"),
    "hidden folder": ({**TWO, ".thumbnails": 3}, "left out, hidden: 1 (.thumbnails)"),
    "hidden file": ({**TWO, "cat/._0.png": png(99)}, "left out, hidden: 1 (cat/._0.png)"),
    "macOS's folder file": ({**TWO, "cat/.DS_Store": b"x"}, "left out, hidden: 1 (cat/.DS_Store)"),
    "Windows' folder file": ({**TWO, "cat/Thumbs.db": b"x"}, "left out, no image by its name: 1 (cat/Thumbs.db)"),
    "notes": (
        {**TWO, "cat/notes.txt": b"x", "dog/a.md": b"x"},
        "left out, no image by its name: 2 (cat/notes.txt, dog/",
    ),
    "no ending": ({**TWO, "cat/image": png(99)}, "left out, no image by its name: 1 (cat/image)"),
    "a file of annotations": ({**TWO, "cat/0.xml": b"<a/>"}, "left out, no image by its name: 1 (cat/0.xml)"),
    "a stray image": ({**TWO, "x.png": png(99)}, "left out, beside the class folders: 1 (x.png)"),
    "a stray image in train": (
        {**SPLIT, "train/x.png": png(99)},
        "left out, beside the class folders: 1 (train/x.png)",
    ),
    "a README": ({**TWO, "README.md": b"x"}, "left out, beside the class folders: 1 (README.md)"),
    "a folder beside train": ({**SPLIT, "unlabelled": 3}, "left out, a folder beside train: 1 (unlabelled)"),
    "a link to a folder": ({**TWO, "cat/more": "-> ../dog"}, "left out, a link to a folder: 1 (cat/more)"),
    "a loop": ({**SPLIT, "train/cat/up": "-> ../.."}, "left out, a link to a folder: 1 (train/cat/up)"),
    "linked files": ({**TWO, "cat/again.png": "-> ../dog/0.png"}, "a folder per class"),
    "a linked class": ({"cat": 10, "../elsewhere": 10, "dog": "-> ../elsewhere"}, "a folder per class"),
    "a pipe": ({**TWO, "cat/pipe.png": "pipe"}, "left out, not a file: 1 (cat/pipe.png)"),
    "an empty folder called like an image": (
        {**TWO, "cat/x.png": 0},
        "left out, an empty folder with an image's name: 1 (cat/x.png)",
    ),
    "many of one kind": (
        {**TWO, **{f"cat/{n}.txt": b"" for n in range(5)}},
        "no image by its name: 5 (cat/0.txt, cat/1.txt, ",
    ),
    "capital endings": ({**TWO, "cat/A.PNG": png(99)}, "a folder per class"),
    "a JPEG named .png": ({**TWO, "cat/a.png": png(99, format="JPEG")}, "a folder per class"),
    "spaces and signs": ({"my cat!": 10, "d&d 100%": 10}, "a folder per class"),
    "emoji and accents": ({"caf\u00e9": 10, "\U0001f408": 10}, "a folder per class"),
    "a file with a line end": ({**TWO, "cat/a\nb.png": png(99)}, "a folder per class"),
    "a file that begins with a dash": ({**TWO, "cat/-rf.png": png(99)}, "a folder per class"),
    "a class that is markup": ({"<b>": 10, "dog": 10}, "a folder per class"),
    "a file that is not UTF-8": ({**TWO, "cat/" + os.fsdecode(b"\xe9.png"): png(99)}, "a folder per class"),
    "a class that is not UTF-8": ({os.fsdecode(b"caf\xe9"): 10, "dog": 10}, "a folder per class"),
    "numbers as classes": ({"10": 10, "9": 10, "2": 10}, "a folder per class"),
    "two images each": ({"cat": 3, "dog": 3}, "a folder per class"),
    "one class much larger": ({"cat": 40, "dog": 3}, "a folder per class"),
    "the same image everywhere in a class": (
        {"dog": 10, **{f"cat/{n}.png": png(n % 4) for n in range(8)}},
        "a folder per class",
    ),
    "a data folder": (
        {f"data/{name}": count for name, count in SPLIT.items()},
        "train/, test/ with a folder per class",
    ),
    "a table": (table(), "listed by x.csv; val and test drawn here"),
    "a table with a byte order mark": (
        {**table(), "x.csv": b"\xef\xbb\xbf" + bytes(table()["x.csv"])},
        "listed by x.csv",
    ),  # type: ignore[arg-type]
    "a table with Windows' line ends": (
        {**table(), "x.csv": bytes(table()["x.csv"]).replace(b"\n", b"\r\n")},
        "listed by x.csv",
    ),  # type: ignore[arg-type]
    "a table with more columns": (table(header="id,path,label", row="7,{0}.png,{1}"), "listed by x.csv"),
    "a table and unlisted images": ({**table(), "more.png": png(99)}, "left out, in no table: 1 (more.png)"),
    "a list that is no table of images": (
        {**TWO, "classes.csv": b"name,colour\ncat,red\n"},
        "beside the class folders: 1 (classes.csv)",
    ),
}
"""Folders that are read, with a line that `fit` says of them."""

REFUSED: dict[str, tuple[Lay, str]] = {
    "nothing": ({".gitkeep": b""}, "holds 0 class folders; expected train/<class>/<image>"),
    "images without classes": ({"0.png": png(0), "1.png": png(1)}, "holds 0 class folders"),
    "one class": ({"cat": 10}, "holds 1 class folders"),
    "a class called train": (
        {"train": 3, "bus": 3},
        "(a folder named train is a split: if it is a class, give it another",
    ),
    "a class called test": (
        {"test": 3, "bus": 3, "car": 3},
        "no folder train (a folder named test is a split: if it is",
    ),
    "one class in train": ({"train/cat": 10, "test/cat": 2}, "train holds 1 class folders"),
    "no train": ({"val/cat": 5, "test/cat": 5}, "holds val and test, but no folder train"),
    "an empty class": ({**TWO, "pig": 0}, "pig holds no image that Pillow reads"),
    "several empty classes": (
        {**TWO, "pig": 0, "owl": 0},
        "holds 2 classes without an image that Pillow reads: owl, pig",
    ),
    "many empty classes": (
        {**TWO, **{f"empty{number}": 0 for number in range(9)}},
        "holds 9 classes without an image that Pillow reads: empty0, empty1, empty2, empty3, empty4 and 4 more; add",
    ),
    "a class with a line end": ({**TWO, "new\nline": 3}, "has classes named 'new\\nline': expected text"),
    "classes that colour": (
        {**TWO, "\x1b[31m": 3, "a\u202e": 3},
        "has classes named '\\x1b[31m', 'a\\u202e': expected",
    ),
    "a class of text files": ({**TWO, "pig/a.txt": b"x"}, "pig holds no image that Pillow reads"),
    "an empty test": ({**SPLIT, "test/cat": 0, "test/dog": 0}, "test holds no images: add some to its class folders"),
    "a class in test alone": ({**SPLIT, "test/pig": 2}, "test holds classes that train lacks: pig"),
    "val twice": ({**SPLIT, "val/cat": 2, "valid/cat": 2}, "holds both val and valid: keep one of them"),
    "two images of a class": ({"cat": 10, "dog": 2}, "class dog has too few images to split off val and test: 2"),
    "one image ten times": (
        {"cat": 10, **{f"dog/{n}.png": png(500) for n in range(9)}},
        "class dog has too few images",
    ),
    "an empty file": ({**TWO, "cat/x.png": b""}, "x.png as an image: "),
    "a page of an error": ({**TWO, "cat/x.png": b"<html>404</html>"}, "x.png as an image: "),
    "a truncated image": ({**TWO, "cat/x.png": png(99)[:60]}, "x.png as an image: "),
    "a broken link": ({**TWO, "cat/x.png": "-> nowhere.png"}, "x.png as an image: No such file"),
    "a link to itself": ({**TWO, "cat/x.png": "-> x.png"}, "x.png as an image: Too many levels"),
    "three broken files": ({**TWO, **{f"cat/x{n}.png": b"%d" % n for n in range(3)}}, "cannot read 3 files of "),
    "a table of absent files": ({"x.csv": b"path,label\na.png,cat\nb.png,dog\n"}, "b.png"),
    "a table without labels": (table(row="{0}.png,"), "x.csv has 20 rows without path or label: 1, 2, 3"),
    "a table that divides a group": (
        {
            "x.csv": b"path,label,split,group\na.png,cat,train,1\nb.png,dog,train,2\nc.png,cat,test,1\n",
            **{f"{name}.png": png(number) for number, name in enumerate("abc")},
        },
        "x.csv divides 1 groups between splits: 1 is in test and train",
    ),
    "a table of one class": (table(row="{0}.png,cat"), "has images of 1 classes; expected at least two"),
    "classes of nothing but links to folders": ({"cat": 10, "dog/all": "-> ../cat"}, "dog holds no image"),
}
"""Folders that are refused, with what the line says."""

ARCHIVES_READ: dict[str, tuple[bytes, str]] = {
    "x.zip": (zipped(TWO), "a folder per class"),
    "in one folder.zip": (zipped({f"pets/{name}": count for name, count in SPLIT.items()}), "train/, test/ with a"),
    "from macOS.zip": (zipped(TWO, {"__MACOSX/cat/._0.png": b"x"}), "left out, hidden: 1 (__MACOSX/cat/._0.png)"),
    "leading out.zip": (
        zipped(TWO, {"../cat/x.png": png(99)}),
        "left out, a name that leads out of the archive: 1 (../",
    ),
    "from Windows.zip": (
        zipped(TWO, {"cat\\x.png": png(99)}),
        "left out, a name that leads out of the archive: 1 (cat",
    ),
    "x.tar": (tarred(), "a folder per class"),
    "x.tar.gz": (tarred("w:gz"), "a folder per class"),
    "x.tgz": (tarred("w:gz"), "a folder per class"),
    "x.tar.xz": (tarred("w:xz"), "a folder per class"),
    "x.tar.bz2": (tarred("w:bz2"), "a folder per class"),
}
ARCHIVES_REFUSED: dict[str, tuple[bytes, str]] = {
    "cut.zip": (zipped(TWO)[:-30], "cut.zip cannot be read as an archive"),
    "empty.zip": (zipped({}), "holds 0 class folders"),
    "one class.zip": (zipped({"cat": 10}), "holds 1 class folders"),
    "with a password.zip": (
        encrypted(),
        "with a password.zip cannot be read as an archive: it is encrypted; unpack it",
    ),
    "cut.tar": (tarred()[:1000], "cut.tar cannot be read as an archive"),
    "a zip.tar": (zipped(TWO), "a zip.tar cannot be read as an archive"),
    "x.rar": (b"Rar!", "x.rar is a file of no known kind"),
    "x.png": (png(0), "x.png is a file of no known kind"),
}


LEFT_OUT = {
    "hidden folder": 3,
    "hidden file": 1,
    "no ending": 1,
    "a stray image": 1,
    "a stray image in train": 1,
    "a folder beside train": 3,
    "linked files": -1,
    "a table and unlisted images": 1,
}
"""Images that are not read, where some are; a link to one is one more."""


def is_image(content: Content) -> bool:
    return isinstance(content, bytes) and content[:3] in (b"\x89PN", b"\xff\xd8\xff")


def refusal(place: Path) -> str:
    with pytest.raises(CnnbenchError) as refused:
        load("folder", Source(Path("nowhere"), place))
    assert refused.value.code == Exit.DATA
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", READ)
def test_an_odd_folder_is_read_and_told(tmp_path: Path, name: str) -> None:
    contents, said = READ[name]
    data = load("folder", Source(Path("nowhere"), lay(tmp_path / "x", contents), size=8))
    assert any(said in note for note in data.notes), data.notes
    assert not any("\n" in note for note in data.notes)
    images = sum(content if isinstance(content, int) else is_image(content) for content in contents.values())
    assert len(data.train) + len(data.val) + len(data.test) == images - LEFT_OUT.get(name, 0)
    assert {*data.train.labels.tolist()} == {*range(len(data.class_names))}


@pytest.mark.parametrize("name", REFUSED)
def test_an_odd_folder_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    contents, said = REFUSED[name]
    assert said in refusal(lay(tmp_path / "x", contents))


@pytest.mark.parametrize("name", ARCHIVES_READ)
def test_an_archive_is_read_and_told(tmp_path: Path, name: str) -> None:
    content, said = ARCHIVES_READ[name]
    (tmp_path / name).write_bytes(content)
    data = load("folder", Source(Path("nowhere"), tmp_path / name, size=8))
    assert any(said in note for note in data.notes), data.notes
    assert data.class_names == ("cat", "dog")
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == [name], "nothing is unpacked"


@pytest.mark.parametrize("name", ARCHIVES_REFUSED)
def test_an_archive_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, said = ARCHIVES_REFUSED[name]
    (tmp_path / name).write_bytes(content)
    assert said in refusal(tmp_path / name)


def test_there_are_sixty_and_more_of_them() -> None:
    assert len(READ) + len(REFUSED) + len(ARCHIVES_READ) + len(ARCHIVES_REFUSED) >= 60
