"""Which images a folder, a table, arrays or an archive hold: their splits, classes and hashes. Nothing is decoded.

One split of the same files has the same listing however it lies, but for names: entries are ordered by class and
content.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from cnnbench.datasets.archives import is_archive, open_archive, reason
from cnnbench.datasets.arrays import of_arrays
from cnnbench.datasets.class_folders import of_folders
from cnnbench.datasets.hashes import Hashes
from cnnbench.datasets.splits import divided
from cnnbench.datasets.tables import METADATA, Fault, fault_of, is_table, of_tables
from cnnbench.datasets.tree import ROLES, File, Layout, Skipped, Tree, file_at, shown, walk
from cnnbench.types import LONGEST_NAME, CnnbenchError, Exit, is_control, listed

EXPECTED = (
    "train/<class>/<image> with at least two classes and optionally val/ and test/, or <class>/<image>; "
    "a CSV or Parquet table of path and label; an .npz of images and labels; or a .zip or .tar of these"
)
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

    def read(self) -> bytes:
        """The encoded file; raises OSError."""
        with self.opened() as file:
            return file.read()


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
    undrawn: str = ""
    """Why splits that are missing could not be drawn: all images without one are in train; empty where they could."""
    skipped: tuple[Skipped, ...] = ()
    unreadable: tuple[Skipped, ...] = ()
    """Files that could not be read, and folders that could not be listed; none of them is in a split."""

    @property
    def splits(self) -> dict[str, tuple[Entry, ...]]:
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def sha256(self) -> str:
        """Over (split, class, hash of the encoded file) of every image; their order is that of class and content."""
        lines = (
            f"{split}\0{self.class_names[entry.label]}\0{entry.sha256}\n"
            for split, entries in self.splits.items()
            for entry in entries
        )
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()

    def counts(self, split: str) -> dict[str, int]:
        """Images of each class."""
        counted = Counter(entry.label for entry in self.splits[split])
        return {name: counted[label] for label, name in enumerate(self.class_names)}


def read_listing(folder: Path, *, shares: Mapping[str, float] | None = None, undrawn: bool = False) -> Listing:
    """Which images lie in a folder, table or archive, each with its hash; broken ones are not known yet.

    Args:
        folder: Where they lie.
        shares: Percent of the images for train, val and test, where a split is to be drawn; by default `SHARES`.
        undrawn: Return what there is where a split cannot be drawn; `Listing.undrawn` says why.

    Raises:
        CnnbenchError: There is nothing, or no layout that is known; a class has no training image, or too few to
            divide (exit 3). Shares are given, and all splits are there (exit 2).
    """
    layout = _layout(folder)
    hashes = Hashes(folder)
    listing = _settled(folder, layout, hashes, shares=shares, undrawn=undrawn)
    hashes.keep()
    return listing


def _layout(folder: Path) -> Layout:
    name = folder.name.lower()
    if folder.is_dir():
        return _of_tree(walk(folder), folder)
    if not folder.is_file():
        here = f" in {Path.cwd()}" if not folder.is_absolute() else ""
        raise CnnbenchError(f"no folder {folder}{here}; expected {EXPECTED}", Exit.DATA)
    if is_archive(folder):
        return _of_tree(open_archive(folder), folder)
    if name.endswith(".npz"):
        return of_arrays(folder)
    if is_table(name):
        table = file_at(folder, folder.name)
        return of_tables([(table, None)], found=lambda path: file_at(folder.parent / path, path))
    raise CnnbenchError(f"{folder} is a file of no known kind; expected {EXPECTED}", Exit.DATA)


def _of_tree(tree: Tree, folder: Path) -> Layout:
    """Images below a folder or in an archive: by a table that lies there, else by folders of classes."""
    base = folder
    while inner := _only_folder(tree, folder):
        tree, base = tree.within(inner), base / inner
    tables, faults = _tables(tree)
    if not tables:
        return _without_tables(tree, folder, faults)
    known = {file.name: file for file in tree.files}
    layout = of_tables(tables, found=partial(_in_tree, known, None if is_archive(folder) else base))
    rank = {file.name: place for place, file in enumerate(tree.files)}  # a compressed archive is read front to back
    found = tuple(sorted(layout.found, key=lambda image: rank.get(image.file.name, len(rank))))
    told = {image.file.name for image in found} | {table.name for table, _ in tables}
    others = [
        Skipped(file.name, "a table that lists no images" if file.name in faults else "in no table")
        for file in tree.files
        if file.name not in told
    ]
    return replace(layout, found=found, skipped=(*tree.skipped, *others), unreadable=tree.unreadable)


def _without_tables(tree: Tree, folder: Path, faults: Mapping[str, Fault]) -> Layout:
    """Images in folders of classes; what is wrong with tables beside them is told."""
    try:
        layout = of_folders(tree, folder, expected=EXPECTED)
    except CnnbenchError as error:
        if not faults:
            raise
        nor = str(error).partition("; expected")[0]
        raise CnnbenchError(f"{next(iter(faults.values())).reason}; without it, {nor}", error.code) from None
    told = {name: fault.reason.partition("; expected")[0] for name, fault in faults.items() if fault.meant}
    skipped = (replace(item, reason=told.get(item.name, item.reason)) for item in layout.skipped)
    return replace(layout, skipped=tuple(skipped))


def _only_folder(tree: Tree, folder: Path) -> str:
    """The folder that holds all the rest; empty where there is none, or it may be a class."""
    tops = tree.below("")
    if len(tops) != 1 or any("/" not in file.name for file in tree.files) or tops[0].lower() in ROLES:
        return ""
    inner = tree.below(tops[0])
    splits = any(name.lower() in ROLES for name in inner)
    holds = splits or (is_archive(folder) and (inner or _has_tables(tree.within(tops[0]))))
    return tops[0] if holds else ""


def _has_tables(tree: Tree) -> bool:
    return any("/" not in file.name and is_table(file.name) for file in tree.files)


def _tables(tree: Tree) -> tuple[list[tuple[File, str | None]], dict[str, Fault]]:
    """The tables that list the images, at the top or in the folders of splits, and what is wrong with others, by name.

    Each table comes with the split in its name.

    Raises:
        CnnbenchError: Beside tables that list images lies one named for a split that cannot be read (exit 3).
    """
    tops = [file for file in tree.files if "/" not in file.name and is_table(file.name)]
    metadata = [file for file in tops if file.name in METADATA]
    named: list[tuple[File, str | None]] = [
        (file, ROLES[file.parts[0].lower()])
        for file in tree.files
        if len(file.parts) == 2 and file.parts[1] in METADATA and file.parts[0].lower() in ROLES
    ]
    if metadata or not named:
        named = [(file, ROLES.get(Path(file.name).stem.lower())) for file in (metadata or tops)]
    faults = {file.name: fault for file, _ in named if (fault := fault_of(file))}
    tables = [pair for pair in named if pair[0].name not in faults]
    split_of = {file.name: split for file, split in named}
    for name, fault in faults.items():
        if fault.meant and (Path(name).name in METADATA or (tables and split_of[name])):
            raise CnnbenchError(fault.reason, Exit.DATA)
    return tables, faults


def _in_tree(known: Mapping[str, File], base: Path | None, path: str) -> File:
    """The file that a table means; one outside of the folder `base` is read where it lies, but for archives."""
    if path in known or base is None:
        return known.get(path) or File(path, partial(_absent, path))
    for place in (base.absolute(), base.resolve()):  # a path from the root, or by way of the folders above
        if (name := os.path.relpath(os.path.normpath(place / path), place)) in known:
            return known[name]
    return file_at(base / path, path)


def _absent(path: str) -> BinaryIO:
    raise OSError(f"no {path} in the archive")


def _settled(
    folder: Path, layout: Layout, hashes: Hashes, *, shares: Mapping[str, float] | None, undrawn: bool
) -> Listing:
    """The listing of a layout: every file hashed, missing splits drawn, entries in their order."""
    names = _class_names(folder, layout)
    labels = {name: label for label, name in enumerate(names)}
    unreadable = [*layout.unreadable]
    entries: list[Entry] = []
    splits: list[str | None] = []
    for place, image in enumerate(layout.found):
        try:
            digest = image.file.sha256 or hashes.of(image.file)
        except (OSError, RuntimeError) as error:
            unreadable.append(Skipped(image.file.name, reason(error)))
            continue
        name, label = shown(image.file.name), labels[image.class_name]
        entries.append(Entry(name, label, image.file.opened, digest, image.group, place))
        splits.append(image.split)
    order = sorted(range(len(entries)), key=lambda index: _rank(entries[index]))
    entries, splits = [entries[index] for index in order], [splits[index] for index in order]
    fault = ""
    try:
        drawn = _drawn(entries, splits, folder=folder, class_names=names, shares=shares)
    except CnnbenchError as error:
        if not undrawn or error.code != Exit.DATA:
            raise
        drawn, fault = (), str(error)
        splits = [split or "train" for split in splits]
    parts = {
        split: tuple(entry for entry, given in zip(entries, splits, strict=True) if given == split) for split in SHARES
    }
    return Listing(
        folder,
        layout.words,
        names,
        parts["train"],
        parts["val"],
        parts["test"],
        drawn=drawn,
        undrawn=fault,
        skipped=layout.skipped,
        unreadable=tuple(unreadable),
    )


def _class_names(folder: Path, layout: Layout) -> tuple[str, ...]:
    names = tuple(sorted({image.class_name for image in layout.found}))
    if odd := [name for name in names if not name.strip() or len(name) > LONGEST_NAME or any(map(is_control, name))]:
        told = listed([repr(name[:LONGEST_NAME]) for name in odd])
        raise CnnbenchError(
            f"{folder} has classes named {told}: expected text of at most {LONGEST_NAME} characters, without control "
            "characters",
            Exit.DATA,
        )
    if len(names) < 2:
        raise CnnbenchError(f"{folder} has images of {len(names)} classes; expected at least two", Exit.DATA)
    trained = {image.class_name for image in layout.found if image.split in (None, "train")}
    if lacking := [name for name in names if name not in trained]:
        raise CnnbenchError(f"{folder} has classes without a training image: {listed(lacking)}", Exit.DATA)
    return names


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


def without(listing: Listing, names: Iterable[str]) -> Listing:
    """The listing without the images of these names."""
    gone = {*names}
    train, val, test = (
        tuple(entry for entry in entries if entry.name not in gone) for entries in listing.splits.values()
    )
    return replace(listing, train=train, val=val, test=test)
