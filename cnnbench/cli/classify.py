"""`classify`: name the class of every image file in a folder, with a bundle or a run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cnnbench import records
from cnnbench.bundles.classify import Answer, Answers
from cnnbench.cli.hints import say_next
from cnnbench.cli.table import Format, render, write
from cnnbench.tables.columns import Column, plain
from cnnbench.tables.text import plural
from cnnbench.types import CnnbenchError, Exit, listed, one_line

MOST = 10
"""Classes and unreadable files that are told."""


def classify(
    source: str,
    images: str,
    *,
    out: str | None = None,
    top: int | None = None,
    threshold: float = 0.0,
    precision: str = "fp32",
    format: Format = "table",
) -> int:
    """Name the class of every image file in a folder, with the probability of each class.

    A file that cannot be read has a line with the error, and the exit code is 3 at the end. `predict` is another verb:
    it writes what a run answers for the test images of its data set.

    Args:
        source: A bundle that `export` wrote (verify one that somebody else wrote first), or a run.
        images: A folder, whose subfolders are read too, or one image file.
        out: Write to this .csv, .json, .parquet or .md file; an existing file is replaced once the new one is complete.
        top: Write only this many of the likeliest classes, instead of a column per class.
        threshold: Say unknown below this probability of the likeliest class, 0 to 1; the card of a bundle offers one.
        precision: Which of a bundle's files: fp32, or fp16 or int8 where the bundle has them.
        format: How to print it where --out is not given.

    Examples:
        cnnbench classify exports/mnist5k_lenet5 FOLDER
        cnnbench classify exports/mnist5k_lenet5 FOLDER --out classes.csv
    """
    from cnnbench.bundles.classify import classify as classify_files
    from cnnbench.bundles.manifest import is_bundle

    if not 0 <= threshold <= 1:
        raise CnnbenchError(f"--threshold {threshold:g}: expected 0 to 1")
    if top is not None and top < 1:
        raise CnnbenchError(f"--top {top}: expected at least 1")
    if out:
        records.require_writable(Path(out))
    found = classify_files(source, images, precision=precision)
    if found.unread == len(found.answers):
        first = found.answers[0]
        raise CnnbenchError(
            f"none of {plural(len(found.answers), 'file')} could be read: {first.file}: {first.error}", Exit.DATA
        )
    columns = _columns(found.class_names, top, with_unknown=threshold > 0)
    rows = [_row(answer, found.class_names, threshold) for answer in found.answers]
    if out:
        write(Path(out), columns=columns, rows=rows)
        print(one_line(f"{out}: {_counts(found, rows)}"))
    else:
        brief = [column for column in columns if column.key in BRIEF[: None if found.unread else -1]]
        render(columns if format == "csv" else brief, plain(columns, rows) if format == "json" else rows, format=format)
    _tell(found)
    if found.unread:
        return Exit.DATA
    if out:
        say_next("bench" if is_bundle(Path(source)) else "export", source)
    else:
        say_next("classify", source, images, "--out", "classes.csv", format=format)
    return Exit.OK


BRIEF = ("file", "class", "probability", "unknown", "error")
"""What people read of a row."""


def _columns(class_names: Sequence[str], top: int | None, *, with_unknown: bool) -> list[Column]:
    """File, class and probability; then a column per class, or class and probability of each further rank."""
    first = [
        Column("file", "file", one_line),
        Column("class", "class", one_line),
        Column("probability", "probability", "{:.4f}".format, right=True),
    ]
    unknown = [Column("unknown", "unknown", lambda value: "unknown" if value else "")] if with_unknown else []
    error = [Column("error", "error", one_line)]
    if top is None:
        return [*first, *unknown, *error, *(Column(f"p_{name}", name) for name in class_names)]
    ranks = range(2, min(top, len(class_names)) + 1)
    others = [Column(f"{key}_{rank}", f"{key} {rank}") for rank in ranks for key in ("class", "probability")]
    return [*first, *unknown, *error, *others]


def _row(answer: Answer, class_names: Sequence[str], threshold: float) -> dict[str, object]:
    if answer.error:
        return {"file": answer.file, "error": answer.error}
    order = sorted(range(len(class_names)), key=lambda label: -answer.probabilities[label])  # the first of equals
    ranked = {
        f"{key}_{rank}": value
        for rank, label in enumerate(order, 1)
        for key, value in (("class", class_names[label]), ("probability", answer.probabilities[label]))
    }
    return {
        "file": answer.file,
        "class": ranked["class_1"],
        "probability": ranked["probability_1"],
        "unknown": answer.probabilities[order[0]] < threshold,
        **ranked,
        **{f"p_{name}": value for name, value in zip(class_names, answer.probabilities, strict=True)},
    }


def _counts(found: Answers, rows: Sequence[dict[str, object]]) -> str:
    """How many images were taken for each class, the most frequent first."""
    counted = Counter(str(row["class"]) for row in rows if "class" in row)
    named = [f"{name}: {count:,}" for name, count in counted.most_common(MOST)]
    more = f", {len(counted) - MOST} more classes" if len(counted) > MOST else ""
    unknown = sum(row.get("unknown") is True for row in rows)
    return f"{plural(counted.total(), 'image')} classified: {', '.join(named)}{more}" + (
        f"; {unknown:,} below the threshold" if unknown else ""
    )


def _tell(found: Answers) -> None:
    """On stderr, what was not classified."""
    if found.skipped:
        names = listed(found.skipped, 3)
        text = f"skipped {len(found.skipped):,} that are hidden, links, or no images by name: {names}"
        print(one_line(text), file=sys.stderr)
    for answer in [answer for answer in found.answers if answer.error][:MOST]:
        print(one_line(f"cannot read {answer.file} as an image: {answer.error}"), file=sys.stderr)
    if found.unread > MOST:
        print(f"and {found.unread - MOST:,} more that cannot be read", file=sys.stderr)
