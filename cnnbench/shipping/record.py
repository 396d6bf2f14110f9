"""decision.json: every network, when it left and why, the figures that decided, and what they took."""

from __future__ import annotations

from cnnbench.records.schema import Part


class Request(Part, frozen=True, kw_only=True):
    """What was asked for."""

    dataset: str
    folder: str | None = None
    archs: tuple[str, ...] = ()
    """Empty for the registered small networks."""
    budget_seconds: float
    min_accuracy: float | None = None
    max_latency_ms: float | None = None
    max_bytes: int | None = None
    seed: int = 1
    """Seed of the first run of each network."""


class Scored(Part, frozen=True):
    """Images that are classified correctly, of how many."""

    right: int
    images: int

    @property
    def accuracy(self) -> float:
        return self.right / self.images


class Images(Part, frozen=True, kw_only=True):
    """The images."""

    name: str
    sha256: str
    train: int
    val: int
    test: int
    size: str
    classes: int
    folds: int
    """Folds of the cross-validation that ranked; 0 where the validation split did."""
    found: tuple[str, ...] = ()
    """What the audit of a folder says."""


class Competitor(Part, frozen=True, kw_only=True):
    """One network, and what became of it."""

    arch: str
    params: int
    macs: int
    untrained_ms: float | None = None
    """Median of one call of its fastest file before training; None where it was not measured."""
    left: str
    """When: before training, with so many epochs, by seeds, when a file was chosen; or chosen."""
    why: str
    epochs: int | None = None
    """Epochs of its longest schedule; None where it was not trained."""
    val: Scored | None = None
    """With that schedule, over all seeds."""
    seeds: int = 0
    runs: int = 0
    seconds: float = 0.0
    """In its runs."""


class Rung(Part, frozen=True, kw_only=True):
    """Networks trained with one schedule, best first."""

    epochs: int
    archs: tuple[str, ...]
    val: tuple[Scored, ...]
    """Validation score of seed 1."""
    returned: tuple[str, ...] = ()
    """Those of them that had left before, and got this schedule with the time that was left."""


class File(Part, frozen=True, kw_only=True):
    """A file that could be shipped, scored on the validation images."""

    task: str
    seed: int
    precision: str
    bytes: int | None = None
    val: Scored | None = None
    p90_ms: float | None = None
    """90th percentile of one call with one image, on one thread; None where it was not measured."""
    why: str
    """Why it was not chosen; empty for the chosen one."""


class Chosen(Part, frozen=True, kw_only=True):
    """What is shipped."""

    arch: str
    task: str
    seed: int
    epochs: int
    run: str
    """Folder of the run, below that of the decision; so are the next two."""
    bundle: str
    file: str
    precision: str
    bytes: int
    val: Scored
    test: Scored
    """Test score of the file, as it was verified on the whole test split."""
    test_low: float
    """95 % interval for new images (Wilson)."""
    test_high: float
    majority: str
    """The largest class of the test images."""
    majority_share: float
    """What always answering it scores on them."""
    p50_ms: float | None = None
    p90_ms: float | None = None


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
    seconds: float
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
