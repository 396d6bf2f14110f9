"""Mutants of a bundle: what a fault is, how `verify` is run on it, and the table that the tests make of all of them."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from export_helpers import Forger, Graph

from cnnbench.bundles import answers
from cnnbench.bundles.evidence import Check
from cnnbench.bundles.verify import verify_bundle
from cnnbench.records import io
from cnnbench.types import CnnbenchError, Exit, printable

NOTHING = "nothing"
DOCUMENT = Path(__file__).parents[2] / "docs" / "mutants.md"
MOST_SECONDS, MOST_MEMORY = 40, 1024
"""Seconds and MiB that the process of `verify` may take for any mutant, also on a busy machine."""
LONGEST_WORDS = 200
"""Characters of what `verify` says that the table shows."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A fault and the check that must catch it: by `verify`, or only by `verify --rescore`.

    Args:
        name: Of its row.
        apply: Puts the fault into a bundle.
        check: The name of the check, or `NOTHING`.
        word: Part of what verify says; for one that nothing catches, why.
        rescore: Whether it takes the test images.
        quick: Whether the evaluation in float64 is left out.
        sign: Whether to sign the bundle anew; else `apply` did, or the fault is found before anything is read.
        new_card: Whether that writes the card anew, too.
        timeout: Seconds that verify is given.
        slow: Whether the test is.
    """

    name: str
    apply: Callable[[Forger], object]
    check: str
    word: str
    rescore: bool = False
    quick: bool = False
    sign: bool = True
    new_card: bool = True
    timeout: float | None = None
    slow: bool = False

    def put_into(self, forger: Forger) -> None:
        """Change a bundle, and sign it anew."""
        self.apply(forger)
        if self.sign:
            forger.sign(self.new_card)

    @property
    def command(self) -> str:
        """What `verify` is told, for the table."""
        return " with --rescore" * self.rescore + " with --quick" * self.quick


def of_claim(name: str, change: Callable[[Forger], object], check: str, word: str, **more: Any) -> Mutant:
    return Mutant(name=name, apply=change, check=check, word=word, **more)


def of_graph(name: str, change: Callable[[Graph], Graph | None], check: str, word: str, **more: Any) -> Mutant:
    return of_claim(name, lambda forger: forger.graph(change), check, word, **more)


def of_file(name: str, file: str, change: Callable[[bytes], bytes], check: str, word: str, **more: Any) -> Mutant:
    return of_claim(name, lambda forger: forger.file(file, change), check, word, **more)


def of_manifest(name: str, change: Callable[[dict[str, Any]], object], check: str, word: str) -> Mutant:
    """The manifest changed as plain JSON, so that it need not be one that cnnbench could write, and sealed."""

    def reseal(forger: Forger) -> None:
        forger.sign()
        content = json.loads((forger.path / "manifest.json").read_text())
        del content["seal"]
        change(content)
        text = json.dumps({**content, "seal": io.seal(content)})
        (forger.path / "manifest.json").write_text(text.replace("Infinity", "1e400"))  # which Python reads as one

    return of_claim(name, reseal, check, word, sign=False)


def parameters(mutants: list[Mutant]) -> list[Any]:
    """The mutants as parameters of a test, slow ones marked."""
    return [pytest.param(each, id=each.name, marks=[pytest.mark.slow] * each.slow) for each in mutants]


def ran(bundle: Path) -> Path:
    """The file that planted code leaves beside a bundle."""
    return bundle.parent / "ran"


def planted(bundle: Path) -> str:
    """Python that shows that it was run, and ends the process that ran it."""
    return f"from pathlib import Path\nPath({str(ran(bundle))!r}).touch()\nraise SystemExit('planted code ran')\n"


# --- what verify does with one ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A mutant in the table: what caught it, what verify said, and what that took."""

    name: str
    by: str
    said: str
    seconds: float
    mebibytes: int
    """Of the process of verify, at its peak, above what it had before."""

    def __str__(self) -> str:
        said = self.said if len(self.said) <= LONGEST_WORDS else f"{self.said[:LONGEST_WORDS]} ..."
        said = printable(said).replace("|", "\\|").replace("\n", " ")
        return f"| {self.name} | {self.by} | {said} | {self.seconds:.1f} | {self.mebibytes} |"


class Meter:
    """Seconds, and MiB at the peak above what there was before."""

    seconds = 0.0
    mebibytes = 0


@contextmanager
def measured() -> Iterator[Meter]:
    """Time and memory of this process for what is within; 0 where the system does not tell the memory."""
    meter, began, before = Meter(), time.monotonic(), _peak(reset=True)
    yield meter
    meter.seconds = time.monotonic() - began
    meter.mebibytes = round((_peak() - before) / 1024) if before else 0


def _peak(*, reset: bool = False) -> int:
    """The largest resident set of this process so far, kB; `reset` makes it the present one."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def largest_child() -> int:
    """MiB: no child of this process that has ended had more; what this process had when it started one counts, too."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024


def verified(
    forger: Forger, *, rescore: bool = False, quick: bool = False, timeout: float | None = None
) -> list[Check]:
    """`verify_bundle`, with batch sizes that are the same each time: any could be drawn, also one of a mutant."""
    folder = str(forger.images) if forger.images else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "drawn", lambda count, _: [13, 150, 290][:count])
        return verify_bundle(forger.path, rescore=rescore, quick=quick, folder=folder, timeout=timeout)


def caught(forger: Forger, mutant: Mutant) -> Row:
    """See that the check that understands the fault catches it, in one line, with little time and memory."""
    with measured() as meter, pytest.raises(CnnbenchError) as refused:
        verified(forger, rescore=mutant.rescore, quick=mutant.quick, timeout=mutant.timeout)
    said = str(refused.value).replace(f"{forger.path}/", "").replace(str(forger.path), "the folder")
    check = getattr(refused.value, "check", "")
    by = f"`{check}`" if check else "reading the manifest"
    assert check == mutant.check, said
    assert mutant.word in said
    assert refused.value.code in (Exit.DATA, Exit.VERDICT)
    assert "\n" not in said
    assert meter.mebibytes < MOST_MEMORY
    assert meter.seconds < MOST_SECONDS
    return Row(mutant.name, by + mutant.command, said, meter.seconds, meter.mebibytes)


# --- the table --------------------------------------------------------------------------------------------------------

COMMAND = "pytest tests/bundles/test_mutants*.py -n 0 --slow --mutants docs/mutants.md"
HEAD = """# Faults that the verifier was given to find

`{command}` makes this page, and fails where a fault
is caught by another check than the one that understands it, in more than one line, or takes {seconds} s and more, or
{most:,} MiB and more in the process that runs `verify`.

Each is a change of a verified bundle: a small colour network with batch norm (`inception_small` on a few hundred
generated shapes, barely trained), or LeNet-5 where smaller files are needed. It is signed anew: the card is written
from the changed manifest; the sizes and hashes of the files, and the seal, are made to fit. Only where a row says so
are the graph's metadata, the proof's hashes or the golden logits made to fit, too. Where the fault is in the text of
the card or in the kind or the size of a file, that file is as the row says. `--rescore` runs the whole test split;
what only it finds passes a plain `verify`. What nothing finds is named as such, with the reason.

Nothing of a bundle was executed: the Python that was planted, in modules, in predict.py, in YAML and in a pickled
array, leaves a file when it runs, and there was none after any row.

Seconds are those of one run on a machine that did other work, with the start of the child processes. MiB are the peak
of the process that runs `verify`, above what it had before. {child}

| mutant | caught by | what verify said | s | MiB |
| --- | --- | --- | ---: | ---: |
"""


class Table:
    """What became of the mutants of a test session; `path` is where it is to be written, if anywhere."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[Row] = []
        self.notes: list[str] = []

    def add(self, row: Row) -> None:
        """A row, which docs/mutants.md must have, unless it is written anew."""
        assert self.path or row.name in names_in_document(), f"run {COMMAND}"
        self.rows.append(row)

    def passed(self, mutant: Mutant, meter: Meter) -> None:
        """A row of a mutant that nothing catches, and why."""
        by = "nothing" + ", and --rescore neither" * mutant.rescore
        self.add(Row(mutant.name, by, f"verified: {mutant.word}", meter.seconds, meter.mebibytes))

    def note(self, text: str) -> None:
        """A line below the table."""
        self.notes.append(text)

    def write(self) -> None:
        """docs/mutants.md, or wherever `path` is."""
        child = (
            f"No child process had more than {largest_child():,} MiB, the memory of its parent at its start included."
        )
        text = HEAD.format(command=COMMAND, seconds=MOST_SECONDS, most=MOST_MEMORY, child=child) + "".join(
            f"{row}\n" for row in self.rows
        )
        assert self.path is not None
        self.path.write_text(text + "".join(f"\n{note}\n" for note in self.notes))


def names_in_document() -> list[str]:
    """The mutants that docs/mutants.md has a row of."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    return [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
