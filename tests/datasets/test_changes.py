"""What changed between two contents of a folder, real changes first."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dataset_helpers import save_images

from cnnbench.datasets.changes import remember, what_changed
from cnnbench.datasets.layout import read_listing


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def remembered(folder: Path) -> str:
    listing = read_listing(folder)
    remember(listing)
    return listing.sha256


@pytest.fixture
def pets() -> Path:
    """Of each of two classes, ten images in train and two in val and test."""
    for place, (split, count) in enumerate((("train", 10), ("val", 2), ("test", 2))):
        for value, name in enumerate(("cat", "dog")):
            save_images(Path("pets", split, name), count, 10 * place + value)
    return Path("pets")


def move(one: str, other: str) -> None:
    Path("pets", one).rename(Path("pets", other))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda: move("train/cat/1.png", "train/cat/new name.png"), ""),
        (lambda: Path("pets/val/cat/1.png").unlink(), "1 gone: val/cat/1.png (val)"),
        (lambda: save_images(Path("pets/val/cat/x"), 1, 99), "1 more: val/cat/x/0.png (val)"),
        (lambda: move("val/cat/1.png", "val/dog/9.png"), "1 of another class: val/dog/9.png (val)"),
        (lambda: move("train/cat/1.png", "val/cat/9.png"), "1 in another split: val/cat/9.png (val)"),
        (
            lambda: shutil.copy("pets/train/cat/0.png", "pets/test/cat/0.png"),
            "1 of another content: test/cat/0.png (test)",
        ),
    ],
    ids=["name", "gone", "more", "class", "split", "content"],
)
def test_each_kind_of_change_is_told_as_what_it_is(pets: Path, change: Callable[[], object], told: str) -> None:
    before = remembered(pets)
    change()
    assert what_changed(before, remembered(pets)) == told


def test_images_that_are_drawn_into_another_split_come_last() -> None:
    """One image less, and the draw of others is another."""
    for value, name in enumerate(("cat", "dog")):
        save_images(Path("pets", name), 40, value)
    before = remembered(Path("pets"))
    for number in range(7):
        Path(f"pets/cat/{number}.png").unlink()
    kinds = [part.split(":")[0] for part in what_changed(before, remembered(Path("pets"))).split("; ")]
    assert kinds[0] == "7 gone"
    assert [kind.split(" ", 1)[1] for kind in kinds[1:]] == ["in another split"]


def test_a_content_that_is_not_remembered_has_no_difference(pets: Path) -> None:
    assert what_changed("0" * 64, remembered(pets)) == ""
