"""What crosses folders: the image a network sees, the images of a dataset, a cost, and the error a user sees.

Everything here is plain data. Nothing imports torch, so a reader of results pays for none of it.
"""

from __future__ import annotations

import operator
import unicodedata
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


class Exit(IntEnum):
    """Exit codes of every verb; 130 and 143 (Ctrl-C, SIGTERM) follow the shell's rule of 128 + signal."""

    OK = 0
    BUG = 1  # internal error: an unexpected exception
    USAGE = 2  # unknown name or key, bad value, a size the network cannot take, checkpoint and config disagree
    DATA = 3  # missing, truncated or altered data, checkpoint, record or ONNX file
    VERDICT = 4  # PyTorch and ONNX Runtime differ, or a bundle was edited
    REGRESSION = 5  # slower than before, beyond the noise
    ENVIRONMENT = 6  # provider, GPU or extra not there, two machines compared, or `doctor` found something broken
    SWEEP = 7  # a sweep whose runs did not all succeed
    LIMITS = 8  # `choose`: no network keeps the limits
    INTERRUPTED = 130
    TERMINATED = 143


class CnnbenchError(Exception):
    """A mistake that the user can correct: one line that says what, where, and what would be accepted.

    Args:
        message: The line shown on stderr, without a trailing period.
        code: The exit code of the process.
    """

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code


class Terminated(SystemExit):
    """A signal ends the process. Unlike a SystemExit of a package's own code, it is never turned into an error."""


ERROR_FILE = "CNNBENCH_ERROR_FILE"
"""Environment variable: the file in which a process leaves the line of its error, for the sweep that started it."""


def check_name(name: str, what: str = "the task's name") -> str:
    """The name itself, where it can name a folder and nothing but its own folder.

    Args:
        name: The name of a task, of an architecture, or of a dataset.
        what: What it is, for the message.

    Raises:
        CnnbenchError: It is not text, is empty, begins with a dot, or has a separator of paths or a control character
            (exit 2).
    """
    parted = not isinstance(name, str) or any(part in "/\\" or is_control(part) for part in name)
    if parted or not name or name.startswith(".") or len(name.encode()) > LONGEST_NAME:
        shown = name[:LONGEST_NAME] if isinstance(name, str) else name
        raise CnnbenchError(
            f"{what} is {shown!r}: it names a folder, so expected text without / and \\, "
            f"without control characters, of at most {LONGEST_NAME} bytes, that does not begin with a dot"
        )
    return name


def check_text(text: str, what: str) -> str:
    """The text itself, where it can be shown as a name.

    Raises:
        CnnbenchError: It is empty, too long, or has a control character (exit 2).
    """
    if not text or len(text) > LONGEST_NAME or any(map(is_control, text)):
        raise CnnbenchError(
            f"{what} is {text[:LONGEST_NAME]!r}: expected text of at most {LONGEST_NAME} characters, without control "
            "characters"
        )
    return text


LONGEST_NAME = 200
"""Characters of the name of a class or of an architecture, and bytes of one that names a folder, which has 255."""
SEED = 20_261_122
"""Seeds every draw that must be the same in all runs: splits, calibration images, noise, bootstraps. Not a flag."""


class DatasetNotFoundError(CnnbenchError):
    """The files of a dataset are not on this machine."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.DATA)


class SpecError(CnnbenchError):
    """Numbers that no image spec can have."""


DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of the text behind them."""
INVISIBLE = frozenset(
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2060\u2061\u2062\u2063\u2064\u2800\u3164\ufeff"
    "\uffa0\ufff9\ufffa\ufffb"
)
"""Characters without width or ink, by which two names look the same. Not the joiners U+200C and U+200D, which Persian,
Hindi and emoji need."""
TAGS = range(0xE0000, 0xE0080)
"""Invisible letters, in which a text can be hidden."""


def is_control(character: str) -> bool:
    """Whether a character moves the cursor, colours a terminal, turns its text, cannot be seen, or is none of Unicode.

    Those of private use are none: each font has its own.
    """
    hidden = character in DIRECTIONS or character in INVISIBLE or ord(character) in TAGS
    return hidden or unicodedata.category(character) in ("Cc", "Cs", "Co", "Zl", "Zp")


def printable(text: str) -> str:
    """`text` with control characters escaped, but for line ends and tabs: what comes from a file is printed so."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if is_control(character) and character not in "\n\t" else character
        for character in text
    )


def one_line(text: str) -> str:
    """`text` with line ends escaped, too: no file name can look like a separate line."""
    return printable(text).replace("\r", "\\r").replace("\n", "\\n")


def listed(names: Sequence[object], most: int = 5) -> str:
    """`a, b, c, d, e and 3 more`: the names in a message, of many the first."""
    return ", ".join(map(str, names[:most])) + f" and {len(names) - most:,} more" * (len(names) > most)


def first_line(error: object) -> str:
    """The first line of an error's message that is not blank, else the name of its class."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@dataclass(frozen=True)
class Finding:
    """A fact about this machine or installation."""

    topic: str
    fact: str
    wrong: str = ""
    """What is wrong and how to correct it; empty where nothing is."""


LARGEST_COUNT = 2**53
"""Largest whole number of anything counted: all up to it are exact as floats."""
SMALL_SIDE = 64
"""Images of up to this many pixels a side are small."""


@dataclass(frozen=True)
class ImageSpec:
    """What a network sees and must answer.

    `mean` and `std` are per channel, of pixels in [0, 1] over the training split. Left empty, pixels are
    not normalised, which is what counting costs needs.
    """

    height: int
    width: int
    channels: int
    num_classes: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("height", "width", "channels", "num_classes"):
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, operator.index(value))  # numpy's numbers cannot be written to records
            except TypeError:
                raise SpecError(f"{name} is {value!r}: an image spec needs a whole number") from None
            if value < 1:
                raise SpecError(f"{name} is {value}: an image spec needs at least 1")
            if value > LARGEST_COUNT:
                raise SpecError(f"{name} has {len(str(value))} digits: an image spec needs at most {LARGEST_COUNT}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            try:
                object.__setattr__(self, name, tuple(float(value) for value in values))  # JSON brings lists
            except (TypeError, ValueError):
                raise SpecError(f"{name} is {values!r}: an image spec needs a number per channel") from None
            if getattr(self, name) and len(getattr(self, name)) != self.channels:
                raise SpecError(f"{name} has {len(getattr(self, name))} values for {self.channels} channels")

    @classmethod
    def of(cls, size: str | None, num_classes: int | None) -> ImageSpec:
        """From `HxWxC`, `HxW` (3 channels) or `S` (`SxSx3`), as on the command line; None is what `COST_SPEC` has.

        Raises:
            CnnbenchError: It is none of these, or a number is not at least 1.
        """
        size = COST_SPEC.size if size is None else size
        num_classes = COST_SPEC.num_classes if num_classes is None else num_classes
        parts = size.lower().split("x")
        if not 1 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise CnnbenchError(f"size {size!r}: expected HEIGHTxWIDTHxCHANNELS, such as 28x28x1, or 224 for 224x224x3")
        height, width, channels = {1: [*parts * 2, "3"], 2: [*parts, "3"], 3: parts}[len(parts)]
        return cls(int(height), int(width), int(channels), num_classes)

    @property
    def small(self) -> bool:
        """Whether networks take their small-image stem; above it their authors' original."""
        return max(self.height, self.width) <= SMALL_SIDE

    @property
    def size(self) -> str:
        """Height x width x channels, as sizes are written."""
        return f"{self.height}x{self.width}x{self.channels}"

    def __str__(self) -> str:
        return f"{self.size}, {self.num_classes} classes"


COST_SPEC = ImageSpec(height=32, width=32, channels=3, num_classes=10)
"""Where every architecture declares its cost."""

Size = str | int | ImageSpec
"""Size of images: "28x28x1", 224 for 224x224x3, or an ImageSpec, which has the number of classes too."""


def spec_of(size: Size, num_classes: int | None = None) -> ImageSpec:
    """The images that a size means, with this many classes where a number is given.

    Raises:
        CnnbenchError: See `ImageSpec.of`.
    """
    if isinstance(size, ImageSpec):
        return size if num_classes is None else replace(size, num_classes=num_classes)
    return ImageSpec.of(str(size), num_classes)


@dataclass(frozen=True)
class Split:
    """Images `(N, H, W, C)` uint8, as a decoder gives them, and labels `(N,)` int64 in [0, num_classes)."""

    images: np.ndarray
    labels: np.ndarray
    names: np.ndarray | None = None
    """Names of the files, `(N,)` of text, where images are files."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Augment:
    """Random crop after padding by `pad` pixels of zeros on each side, and random horizontal flip."""

    pad: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "pad", operator.index(self.pad))
        object.__setattr__(self, "flip", bool(self.flip))

    def __str__(self) -> str:
        words = [f"crops of images padded by {self.pad}"] * (self.pad > 0) + ["horizontal flips"] * self.flip
        return " and ".join(words) or "none"


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What makes pixels of an image file: the same in training, predict.py, manifest and card; see docs/folders.md.

    What has a default is the same for all networks; predict.py follows nothing else.
    """

    background: int
    """Gray level, 0 to 255, under transparent pixels."""
    shift: int
    """A value of 16 bits becomes `min(value >> shift, 255)`, gray alone: colour has its upper 8 bits from Pillow."""
    border: int
    """Mean gray level, 0 to 255, of the outermost pixels of training images: what an image is expected to lie on."""
    mode: Literal["L", "RGB"]
    """Pillow's name of gray or colour."""
    orientation: Literal["upright"] = "upright"
    """Turned as EXIF says, before anything else."""
    frame: Literal["first"] = "first"
    """Frame of animations and files of several pages."""
    inverted: Literal[False] = False
    """0 is black in every file; nothing is inverted."""
    resize: Literal["bilinear, width then height"] = "bilinear, width then height"
    antialias: Literal[True] = True
    """The filter grows with the scale, as Pillow's does."""
    aspect: Literal["stretched"] = "stretched"
    """The whole image is brought to the size of the network; nothing is cut off, nothing added."""


@dataclass(frozen=True)
class Dataset:
    """A loaded dataset.

    `sha256` covers the decoded pixels and labels of all splits before `val` is split off; of the user's own images it
    covers split, class and encoded file of each, however they lie.
    """

    name: str
    spec: ImageSpec
    class_names: tuple[str, ...]
    augment: Augment
    sha256: str
    train: Split
    val: Split
    test: Split
    preprocessing: Preprocessing | None = None
    """How an image file becomes such an image; None where no file has as many channels."""
    notes: tuple[str, ...] = ()
    """What `fit` says of the images, besides how many there are."""
    broken: int = 0
    """Files that could not be read and were left out."""


@dataclass(frozen=True)
class Cost:
    """What a network costs without running it, for one image in float32."""

    params: int
    macs: int
    """Multiply-adds, one each, in convolutions and matrix products only: batch norm, activations, pooling and
    additions are not counted. `flops` is `2 * macs` by definition."""
    activations: int
    """Elements that convolutions and matrix products put out (Radosavovic et al. 2020, arXiv:2003.13678)."""
    depth: int
    """Layers with weights on the longest path from image to logits, as papers count them."""
    form: str = ""
    """Empty for the network as it is trained; else how it was counted: in its inference form, as it is exported."""

    def __post_init__(self) -> None:
        """Raises CnnbenchError: a count is negative, or above 2^53 (exit 2)."""
        for name in ("params", "macs", "activations", "depth"):
            if not 0 <= getattr(self, name) <= LARGEST_COUNT:
                raise CnnbenchError(f"{name} is not a valid count: expected 0 to {LARGEST_COUNT}")

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def activation_bytes(self) -> int:
        return 4 * self.activations

    @property
    def weight_bytes(self) -> int:
        return 4 * self.params
