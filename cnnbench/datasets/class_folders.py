"""Folders named for their classes: `train/<class>/*`, with or without `val` and `test`, or `<class>/*`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cnnbench.datasets.tree import ROLES, File, Found, Layout, Skipped, Tree, is_image, shown
from cnnbench.types import CnnbenchError, Exit, listed, one_line


def of_folders(tree: Tree, folder: Path, *, expected: str) -> Layout:
    """The images in folders of classes, with or without folders of splits above.

    Args:
        tree: What there is.
        folder: Where it lies, for messages.
        expected: The layouts that are read, for messages.

    Raises:
        CnnbenchError: There are no folders of two classes or more, one of them is empty or in val or test alone, or a
            split has two folders (exit 3).
    """
    tops = tree.below("")
    roles: dict[str, str] = {}
    for name in tops:
        role = ROLES.get(name.lower())
        if role in roles:
            raise CnnbenchError(f"{folder} holds both {roles[role]} and {name}: keep one of them", Exit.DATA)
        if role:
            roles[role] = name
    roles = {role: roles[role] for role in ("train", "val", "test") if role in roles}
    hint = _hint(tree, roles.values())
    if roles and "train" not in roles:
        raise CnnbenchError(
            f"{folder} holds {' and '.join(roles.values())}, but no folder train{hint}; expected {expected}", Exit.DATA
        )
    places: dict[str, str | None] = {name: role for role, name in roles.items()} or {"": None}
    first = roles.get("train", "")
    classes = tree.below(first)
    if len(classes) < 2:
        where = f"{folder}/{first}" if first else f"{folder}"
        raise CnnbenchError(f"{where} holds {len(classes)} class folders{hint}; expected {expected}", Exit.DATA)
    for place in places:
        if unknown := set(tree.below(place)) - set(classes):
            names = listed([shown(name) for name in sorted(unknown)])
            raise CnnbenchError(f"{folder / place} holds classes that {first} lacks: {names}", Exit.DATA)
    found, skipped = _sorted_out(tree.files, places)
    _require_images(found, places, classes, folder)
    words = f"{'/, '.join(roles.values())}/ with a folder per class" if roles else "a folder per class"
    beside = [Skipped(name, "a folder beside train") for name in tops if roles and name not in places]
    hollow = [Skipped(name, "an empty folder with an image's name") for name in _hollow(tree)]
    return Layout(words, tuple(found), (*tree.skipped, *beside, *skipped, *hollow), tree.unreadable)


def _hint(tree: Tree, splits: Iterable[str]) -> str:
    """What to do where a class may have the name of a split; empty where none does."""
    meant = [name for name in splits if not tree.below(name) and any(file.parts[0] == name for file in tree.files)]
    others = len(tree.below("")) - len({*splits})
    if not meant or not others:
        return ""
    return f" (a folder named {' or '.join(meant)} is a split: if it is a class, give it another name)"


def _hollow(tree: Tree) -> list[str]:
    """Folders below others that are called like an image and hold no file, as a broken download leaves them."""
    named = [name for name in tree.folders if "/" in name and is_image(name)]
    return sorted(name for name in named if not any(file.name.startswith(f"{name}/") for file in tree.files))


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
        elif not is_image(file.name):
            skipped.append(Skipped(file.name, "no image by its name"))
        else:
            found.append(Found(file, shown(rest[0]), places[place]))
    return found, skipped


def _require_images(
    found: Sequence[Found], places: Mapping[str, str | None], classes: Sequence[str], folder: Path
) -> None:
    for place, split in places.items():
        counted = Counter(image.class_name for image in found if image.split == split)
        if not counted and split != "train" and split is not None:
            raise CnnbenchError(
                f"{folder / place} holds no images: add some to its class folders, or remove it", Exit.DATA
            )
        if split in ("train", None) and (empty := [shown(name) for name in classes if not counted[shown(name)]]):
            one = f"{folder / place / empty[0]} holds no image that Pillow reads: add some, or remove the folder"
            of_many = (
                f"{folder / place} holds {len(empty)} classes without an image that Pillow reads: "
                f"{listed(empty)}; add some, or remove the folders"
            )
            raise CnnbenchError(one_line(of_many if len(empty) > 1 else one), Exit.DATA)
