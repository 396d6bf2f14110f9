"""The images: a registered data set, or a folder that is looked at first; and a recipe for so many of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnbench.audit.audit import Audit, audit_folder
from cnnbench.datasets.choice import open_choice
from cnnbench.records.schema import DataConfig
from cnnbench.tables.text import plural
from cnnbench.types import CnnbenchError, Dataset, Exit, check_name, one_line

FEW = 2_000
"""Images below which a cross-validation ranks, and a pretrained network would probably do better."""
BATCHES = (128, 64, 32, 16)
STEPS = 30
"""Fewest steps of an epoch, where a smaller batch gives them."""
LR, BATCH_OF_LR = 0.2, 64
"""The usual learning rate, and the batch size below which it shrinks in proportion (Goyal et al. 2017,
arXiv:1706.02677)."""


@dataclass(frozen=True)
class ShipImages:
    """What is trained on."""

    config: DataConfig
    data: Dataset
    flags: tuple[str, ...]
    """Flags of `fit`: which images."""
    recipe: tuple[str, ...]
    """Options of `fit`, where there is no task of this data set and network."""
    found: tuple[str, ...]
    """What the audit says."""

    @property
    def count(self) -> int:
        return len(self.data.train) + len(self.data.val) + len(self.data.test)

    @property
    def few(self) -> bool:
        return self.count < FEW

    @property
    def ranking_labels(self) -> np.ndarray:
        """Labels `(N,)` of the images that rank: those of validation, or of all folds."""
        labels = self.data.val.labels
        return np.concatenate([self.data.train.labels, labels]) if self.few else labels


def of_dataset(name: str) -> ShipImages:
    """A registered data set.

    Raises:
        CnnbenchError: It is unknown (exit 2), or not here (exit 3).
    """
    config = DataConfig(dataset=name)
    data = open_choice(config)
    return ShipImages(config, data, (f"--data.dataset={name}",), _recipe(len(data.train)), ())


def of_folder(folder: str | Path) -> ShipImages:
    """A folder, a table or an archive of the user's images, after an audit.

    Raises:
        CnnbenchError: There are no images, no layout that is known, or nothing that can be learnt from (exit 3).
    """
    found = audit_folder(folder)
    place = Path(folder).expanduser().resolve()
    _require_learnable(found)
    size, channels, broken = found.advice.size, found.advice.channels, bool(found.broken)
    name = _name(place)
    config = DataConfig(
        dataset="folder", folder=str(place), name=name, size=size, channels=channels, skip_broken=broken
    )
    data = open_choice(config)
    flags = [
        "--data.dataset=folder",
        f"--data.folder={place}",
        f"--data.name={name}",
        f"--data.size={size}",
        f"--data.channels={channels}",
        *["--data.skip_broken=true"] * broken,
    ]
    return ShipImages(config, data, tuple(flags), _recipe(len(data.train)), tuple(map(one_line, _findings(found))))


def _name(place: Path) -> str:
    """What records call the data: the folder's name where it can name a task."""
    name = place.name.partition(".")[0]
    try:
        return check_name(name, "the data's name")
    except CnnbenchError:
        return "images"


def _require_learnable(found: Audit) -> None:
    where = found.folder
    if found.undrawn:
        raise CnnbenchError(f"{where}: {found.undrawn}", Exit.DATA)
    trained = found.counts["train"]
    empty = [name for name, count in trained.items() if not count]
    if len(trained) < 2 or len(empty) == len(trained):
        raise CnnbenchError(f"{where}: nothing to learn: expected images of two classes or more", Exit.DATA)
    if empty:
        raise CnnbenchError(f"{where}: no readable training image of {', '.join(empty[:10])}", Exit.DATA)
    for split in ("val", "test"):
        if not sum(found.counts[split].values()):
            raise CnnbenchError(f"{where}: no readable {split} image; expected one of each class or more", Exit.DATA)
    total = sum(sum(counts.values()) for counts in found.counts.values())
    if len(found.flat) == total:
        raise CnnbenchError(f"{where}: every image has one colour: there is nothing to learn from", Exit.DATA)
    contradicting = sum(len(copies.places) for copies in found.contradictions)
    if 2 * contradicting > total:
        raise CnnbenchError(
            f"{where}: {contradicting:,} of {total:,} images are there under several labels: there is nothing to learn "
            "from; `cnnbench audit` names them",
            Exit.DATA,
        )


def _findings(found: Audit) -> list[str]:
    leaks = sum(len(copies.places) for copies in found.leaks)
    findings = [
        f"{plural(len(found.broken), 'broken file')} left out" * bool(found.broken),
        f"{plural(leaks, 'image')} in several splits: accuracies are too high" * bool(leaks),
        f"{plural(len(found.contradictions), 'image')} under several labels" * bool(found.contradictions),
        f"{plural(len(found.skipped), 'file')} not read" * bool(found.skipped),
    ]
    remarks = [remark for remark in found.advice.remarks if not remark.startswith("fit refuses")]
    return [*filter(None, findings), *remarks]


def _recipe(train_images: int) -> tuple[str, ...]:
    """Batch size and learning rate: few images need small batches, for enough steps."""
    batch = next((size for size in BATCHES if train_images // size >= STEPS), BATCHES[-1])
    lr = LR * min(1.0, batch / BATCH_OF_LR)
    return (f"--data.batch_size={batch}", *([f"--model.lr={lr:g}"] if lr != LR else []))


def majority(labels: np.ndarray, names: Sequence[str]) -> tuple[str, float]:
    """The largest class of labels `(N,)`, and its share."""
    counts = np.bincount(labels, minlength=len(names))
    label = int(counts.argmax())
    return names[label], float(counts[label] / len(labels))
