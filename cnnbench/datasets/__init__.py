"""ON WHAT: one file per source, each dataset a decorated function that finds, reads and checks its images.

A builder takes a `Source` and returns `Decoded`. `choice.load` checks the hash where we have seen the data, splits
validation off the training images, and returns a `Dataset`. Arrays are numpy, so nothing here needs torch unless a
reader does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from cnnbench.registry import COUNT, SHA256, Declarable, Registry
from cnnbench.types import Augment, ImageSpec, Preprocessing, Split

DECLARABLES = {
    "size": Declarable(
        Annotated[str, Meta(pattern=r"^[1-9][0-9]*(x[1-9][0-9]*){0,2}\Z")], "HEIGHTxWIDTHxCHANNELS, such as '28x28x1'"
    ),
    "classes": COUNT,
    "sha256": Declarable(SHA256, "64 hexadecimal digits"),
    "uses": Declarable(list[str], "names of options of the data, such as 'folder'"),
    "splits": Declarable(dict[str, SHA256], "names, each with 64 hexadecimal digits"),
}

dataset = Registry("dataset", package="cnnbench.datasets", declarables=DECLARABLES)
"""Decorator. `size` and `classes`: what every image is and how many classes there are, where that is fixed; `sha256`:
the hash of the decoded arrays, where we have seen the data; `splits`: names of other splits, each with its hash;
`uses`: which of `OPTIONS` it looks at, where others are to be refused."""

OPTIONS = ("root", "folder", "download", "size", "channels", "skip_broken")
"""Fields of a `Source` that not every dataset uses; `split` is refused by its own rule."""


dataset.__doc__ = """Register a function from a `Source` to a `Decoded`; see docs/bring-your-own.md.

Images are uint8 `(N, H, W, C)`, labels whole numbers `(N,)` from 0. The data set is known at once, by the function's
name or by `name=`; `size="28x28x1"` and `classes=10` declare what is fixed. The decorator takes no arguments, or these.

Raises:
    CnnbenchError: The name is taken, there is none, or it cannot name a folder; something else is declared, or a value
        of another type (exit 2).
"""


@dataclass(frozen=True)
class Source:
    """Where a dataset may look. What `folder` alone uses of ours: `folder`, `size`, `channels` and `skip_broken`."""

    root: Path
    folder: Path | None = None
    download: bool = False
    size: int = 32
    channels: int = 3
    split: str | None = None
    """Name of one of several splits; for `folder` the shares of those to draw."""
    skip_broken: bool = False


@dataclass(frozen=True)
class Decoded:
    """What a builder returns. `val` is None where it is to be split off `train`.

    `preprocessing` is for image files; `sha256`, `notes` and `broken` are for the user's own: the hash of the encoded
    files, what `fit` says of them, and how many could not be read.
    """

    spec: ImageSpec
    class_names: tuple[str, ...]
    train: Split
    test: Split
    val: Split | None = None
    augment: Augment = field(default_factory=Augment)
    preprocessing: Preprocessing | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    broken: int = 0
