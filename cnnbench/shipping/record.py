"""decision.json: every network, when it left and why, the figures that decided, and what they took."""

from __future__ import annotations

from cnnbench.records.schema import Amount, Count, Fraction, Part, Some, TaskPart
from cnnbench.types import check_name


class Request(Part, frozen=True, kw_only=True):
    """What was asked for."""

    dataset: str
    folder: str | None = None
    archs: tuple[str, ...] = ()
    """Empty for the registered small networks."""
    budget_seconds: Amount
    min_accuracy: Fraction | None = None
    max_latency_ms: Amount | None = None
    max_bytes: Count | None = None
    seed: Count = 1
    """Seed of the first run of each network."""


class Scored(Part, frozen=True):
    """Images that are classified correctly, of how many."""

    right: Count
    images: Some

    def __post_init__(self) -> None:
        if self.right > self.images:
            raise ValueError(f"{self.right} images are right, of {self.images}")

    @property
    def accuracy(self) -> float:
        return self.right / self.images


class Images(Part, frozen=True, kw_only=True):
    """The images."""

    name: str
    sha256: str
    train: Count
    val: Count
    test: Count
    size: str
    classes: Some
    folds: Count
    """Folds of the cross-validation that ranked; 0 where the validation split did."""
    found: tuple[str, ...] = ()
    """What the audit of a folder says."""


class Competitor(Part, frozen=True, kw_only=True):
    """One network, and what became of it."""

    arch: str
    params: Count
    macs: Count
    untrained_ms: Amount | None = None
    """Median of one call of its fastest file before training; None where it was not measured."""
    left: str
    """When: before training, with so many epochs, by seeds, when a file was chosen; or chosen."""
    why: str
    epochs: Count | None = None
    """Epochs of its longest schedule; None where it was not trained."""
    val: Scored | None = None
    """With that schedule, over all seeds."""
    seeds: Count = 0
    runs: Count = 0
    seconds: Amount = 0.0
    """In its runs."""


class Rung(Part, frozen=True, kw_only=True):
    """Networks trained with one schedule, best first."""

    epochs: Count
    archs: tuple[str, ...]
    val: tuple[Scored, ...]
    """Validation score of seed 1."""
    returned: tuple[str, ...] = ()
    """Those of them that had left before, and got this schedule with the time that was left."""


class File(Part, frozen=True, kw_only=True):
    """A file that could be shipped, scored on the validation images."""

    task: str
    seed: Count
    precision: str
    bytes: Count | None = None
    val: Scored | None = None
    p90_ms: Amount | None = None
    """90th percentile of one call with one image, on one thread; None where it was not measured."""
    why: str
    """Why it was not chosen; empty for the chosen one."""


class Chosen(TaskPart, frozen=True, kw_only=True):
    """What is shipped."""

    seed: Count
    epochs: Count
    run: str
    """Folder of the run, below that of the decision; so are the next two."""
    bundle: str
    file: str
    precision: str
    bytes: Count
    val: Scored
    test: Scored
    """Test score of the file, as it was verified on the whole test split."""
    test_low: Fraction
    """95 % interval for new images (Wilson)."""
    test_high: Fraction
    majority: str
    """The largest class of the test images."""
    majority_share: Fraction
    """What always answering it scores on them."""
    p50_ms: Amount | None = None
    p90_ms: Amount | None = None

    def __post_init__(self) -> None:
        TaskPart.__post_init__(self)
        for place in (self.run, self.bundle, self.file):
            for part in place.split("/"):
                check_name(part, f"a part of {place}")


class Decision(Part, frozen=True, kw_only=True, tag_field="schema", tag="cnnbench.decision/1"):
    """`decision.json` of a shipped network."""

    request: Request
    images: Images
    finished: bool
    """False while it goes on, and where it was stopped: the same command goes on."""
    interrupted: bool = False
    """Whether Ctrl-C ended the race, and the best so far was shipped."""
    ended: str
    """Why there was no further step."""
    seconds: Amount
    """So far, earlier attempts of the same command included."""
    competitors: tuple[Competitor, ...]
    rungs: tuple[Rung, ...] = ()
    files: tuple[File, ...] = ()
    answer: str = ""
    """The choice in a sentence."""
    chosen: Chosen | None = None
    nearest: str = ""
    """Where no file keeps the limits, the one that misses the fewest."""
    relax: str = ""
    """And which limits it would need."""
