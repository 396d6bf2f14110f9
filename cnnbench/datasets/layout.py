"""Which images a folder, a table, arrays or an archive hold: their splits, classes and hashes. Nothing is decoded.

One split of the same files has the same listing however it lies, but for names: entries are ordered by class and
content.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from cnnbench.datasets.hashes import Hashes
from cnnbench.datasets.splits import divided
from cnnbench.datasets.tree import File, Skipped, Tree, image_suffixes, shown, walk
from cnnbench.types import CnnbenchError, Exit

EXPECTED = (
    "train/<class>/<image> with at least two classes and optionally val/ and test/, or <class>/<image>; "
    "a CSV or Parquet table of path and label; an .npz of images and labels; or a .zip or .tar of these"
)
ROLES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Split by the name of its folder, in any case."""
SHARES = {"train": 70.0, "val": 15.0, "test": 15.0}
"""Percent of the images that a split has where it is drawn."""


@dataclass(frozen=True)
class Entry:
    """One image."""

    name: str
    """As people see it: below the folder, parts joined by slashes."""
    label: int
    opened: Callable[[], BinaryIO]
    """Opens the encoded file; raises OSError."""
    sha256: str
    """Of the encoded file; of arrays, of shape and pixels."""
    group: str | None = None
    """Images of one group are in one split."""
    place: int = 0
    """Rank in the order in which files are fast to read."""


@dataclass(frozen=True)
class Listing:
    """All images of the user's data, in their splits."""

    folder: Path
    """The folder, table or archive."""
    layout: str
    """How it lies, in words."""
    class_names: tuple[str, ...]
    train: tuple[Entry, ...]
    val: tuple[Entry, ...]
    test: tuple[Entry, ...]
    drawn: tuple[str, ...]
    """The splits that were drawn here, because the data have none of their own."""
    skipped: tuple[Skipped, ...] = ()
    unreadable: tuple[Skipped, ...] = ()
    """Files that could not be read, and folders that could not be listed; none of them is in a split."""

    @property
    def splits(self) -> dict[str, tuple[Entry, ...]]:
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def sha256(self) -> str:
        """Over (split, class, hash of the encoded file) of every image, in an order of their own."""
        lines = sorted(
            f"{split}\0{self.class_names[entry.label]}\0{entry.sha256}\n"
            for split, entries in self.splits.items()
            for entry in entries
        )
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()

    def counts(self, split: str) -> dict[str, int]:
        """Images of each class."""
        counted = Counter(entry.label for entry in self.splits[split])
        return {name: counted[label] for label, name in enumerate(self.class_names)}


@dataclass(frozen=True)
class Found:
    """An image before its splits are settled."""

    file: File
    class_name: str
    split: str | None = None
    """None where it is to be drawn."""
    group: str | None = None


@dataclass(frozen=True)
class Layout:
    """What a reader of one layout returns."""

    words: str
    found: tuple[Found, ...]
    skipped: tuple[Skipped, ...] = ()
    unreadable: tuple[Skipped, ...] = ()


def read_listing(folder: Path, *, shares: Mapping[str, float] | None = None) -> Listing:
    """Which images lie in a folder, table or archive, each with its hash; broken ones are not known yet.

    Args:
        folder: Where they lie.
        shares: Percent of the images for train, val and test, where a split is to be drawn; by default `SHARES`.

    Raises:
        CnnbenchError: There is nothing, or no layout that is known; a class has no training image, or too few to
            divide (exit 3). Shares are given, and all splits are there (exit 2).
    """
    if not folder.is_dir():
        raise CnnbenchError(f"no folder {folder}; expected {EXPECTED}", Exit.DATA)
    layout = _of_folders(walk(folder), folder)
    hashes = Hashes(folder)
    listing = _settled(folder, layout, hashes, shares=shares)
    hashes.keep()
    return listing


def _of_folders(tree: Tree, folder: Path) -> Layout:
    """Images in folders named for their classes, with or without folders of splits above."""
    tops = tree.below("")
    roles: dict[str, str] = {}
    for name in tops:
        role = ROLES.get(name.lower())
        if role in roles:
            raise CnnbenchError(f"{folder} holds both {roles[role]} and {name}: keep one of them", Exit.DATA)
        if role:
            roles[role] = name
    if roles and "train" not in roles:
        raise CnnbenchError(
            f"{folder} holds {' and '.join(roles.values())}, but no folder train; expected {EXPECTED}", Exit.DATA
        )
    places: dict[str, str | None] = {name: role for role, name in roles.items()} or {"": None}
    first = roles.get("train", "")
    classes = tree.below(first)
    if len(classes) < 2:
        where = f"{folder}/{first}" if first else f"{folder}"
        raise CnnbenchError(f"{where} holds {len(classes)} class folders; expected {EXPECTED}", Exit.DATA)
    for place in places:
        if unknown := set(tree.below(place)) - set(classes):
            names = ", ".join(shown(name) for name in sorted(unknown))
            raise CnnbenchError(f"{folder / place} holds classes that {first} lacks: {names}", Exit.DATA)
    found, skipped = _sorted_out(tree.files, places)
    _require_images(found, places, classes, folder)
    words = f"{'/, '.join(roles.values())}/ with a folder per class" if roles else "a folder per class"
    beside = [Skipped(name, "a folder beside train") for name in tops if roles and name not in places]
    return Layout(words, tuple(found), (*tree.skipped, *beside, *skipped), tree.unreadable)


def _sorted_out(files: Iterable[File], places: Mapping[str, str | None]) -> tuple[list[Found], list[Skipped]]:
    """The images in folders of classes, and what else there is.

    Args:
        files: All files.
        places: Split by the folder of a split; one empty name where there are none.
    """
    found, skipped = [], []
    for file in files:
        place, *rest = file.parts if "" not in places else ("", *file.parts)
        if not rest and place not in places:
            skipped.append(Skipped(file.name, "beside the class folders"))
        elif place not in places:
            continue  # its folder is told of
        elif len(rest) < 2:
            skipped.append(Skipped(file.name, "beside the class folders"))
        elif not _is_image(file.name):
            skipped.append(Skipped(file.name, "no image by its name"))
        else:
            found.append(Found(file, shown(rest[0]), places[place]))
    return found, skipped


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in image_suffixes()


def _require_images(
    found: Sequence[Found], places: Mapping[str, str | None], classes: Sequence[str], folder: Path
) -> None:
    for place, split in places.items():
        counted = Counter(image.class_name for image in found if image.split == split)
        if not counted and split != "train" and split is not None:
            raise CnnbenchError(
                f"{folder / place} holds no images: add some to its class folders, or remove it", Exit.DATA
            )
        for name in classes if split in ("train", None) else ():
            if not counted[shown(name)]:
                raise CnnbenchError(
                    f"{folder / place / shown(name)} holds no image that Pillow reads: add some, or remove the folder",
                    Exit.DATA,
                )


def _settled(folder: Path, layout: Layout, hashes: Hashes, *, shares: Mapping[str, float] | None) -> Listing:
    """The listing of a layout: every file hashed, missing splits drawn, entries in their order."""
    names = tuple(sorted({image.class_name for image in layout.found}))
    labels = {name: label for label, name in enumerate(names)}
    unreadable = [*layout.unreadable]
    entries: list[Entry] = []
    splits: list[str | None] = []
    for place, image in enumerate(layout.found):
        try:
            digest = hashes.of(image.file)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            unreadable.append(Skipped(image.file.name, f"cannot be read: {reason}"))
            continue
        name, label = shown(image.file.name), labels[image.class_name]
        entries.append(Entry(name, label, image.file.opened, digest, image.group, place))
        splits.append(image.split)
    order = sorted(range(len(entries)), key=lambda index: _rank(entries[index]))
    entries, splits = [entries[index] for index in order], [splits[index] for index in order]
    drawn = _drawn(entries, splits, folder=folder, class_names=names, shares=shares)
    parts = {
        split: tuple(entry for entry, given in zip(entries, splits, strict=True) if given == split) for split in SHARES
    }
    return Listing(
        folder, layout.words, names, **parts, drawn=drawn, skipped=layout.skipped, unreadable=tuple(unreadable)
    )


def _rank(entry: Entry) -> tuple[int, str, str]:
    """By class and content: the same whatever the files are called."""
    return entry.label, entry.sha256, entry.name


def _drawn(
    entries: Sequence[Entry],
    splits: list[str | None],
    *,
    folder: Path,
    class_names: Sequence[str],
    shares: Mapping[str, float] | None,
) -> tuple[str, ...]:
    """Settle `splits` in place where an image has none, or a split has no image; returns the splits drawn.

    Val and test that are missing are taken from train, or from images without a split.
    """
    missing = tuple(part for part in ("val", "test") if part not in splits)
    if not missing:
        if shares is not None:
            raise CnnbenchError(f"data.split divides images that have no split: {folder} has train, val and test")
        return ()
    pool = [index for index, split in enumerate(splits) if split in ("train", None)]
    percent = shares or SHARES
    parts = divided(
        [entries[index].label for index in pool],
        _kept_together([entries[index] for index in pool]),
        fractions={part: percent[part] / 100 for part in missing},
        class_names=class_names,
    )
    for index, part in zip(pool, parts, strict=True):
        splits[index] = part
    return missing


def _kept_together(entries: Sequence[Entry]) -> list[str]:
    """A key of each entry, equal for those of one content or one group, and for what these join."""
    parents: dict[str, str] = {}

    def root(key: str) -> str:
        while parents.setdefault(key, key) != key:
            parents[key] = parents[parents[key]]
            key = parents[key]
        return key

    for entry in entries:
        if entry.group is not None:
            one, other = sorted((root(entry.sha256), root(f"group {entry.group}")))
            parents[other] = one  # the hash: it comes before the word
    return [root(entry.sha256) for entry in entries]


def without(listing: Listing, broken: Iterable[str]) -> Listing:
    """The listing without the images whose encoded file has one of these hashes."""
    gone = {*broken}
    train, val, test = (
        tuple(entry for entry in entries if entry.sha256 not in gone) for entries in listing.splits.values()
    )
    return replace(listing, train=train, val=val, test=test)
