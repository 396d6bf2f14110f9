"""`audit`: check a folder of images before training on them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cnnbench.cli.hints import say_next
from cnnbench.cli.table import render
from cnnbench.tables.columns import Column
from cnnbench.tables.text import percent, plural
from cnnbench.types import Exit, listed, one_line

if TYPE_CHECKING:
    from cnnbench.audit.audit import Audit, Copies, Place

MOST = 10
"""Files, groups or sizes that the text names of each kind."""


def audit(
    folder: str,
    *,
    split: str | None = None,
    out: str | None = None,
    strict: bool = False,
    format: Literal["text", "json"] = "text",
) -> int:
    """Check a folder of images for broken files, copies, leaks between splits and doubtful labels.

    Images are compared by their decoded pixels at their own size, so that a copy in another format is found; with
    the package imagehash (pip install 'cnnbench[audit]') also similar-looking ones. Identical files are decoded once.

    Args:
        folder: Images in FOLDER/<class>/, or FOLDER/train/<class>/ and so on; or a table, an archive or arrays.
        split: Percent of train, val and test where they are drawn, such as 70,15,15; as --data.split.
        out: Write a page with thumbnails to this .html file.
        strict: Exit with 3 where an image is in several splits.
        format: How to print it.

    Examples:
        cnnbench audit FOLDER
        cnnbench audit FOLDER --out audit.html
    """
    from cnnbench.audit.audit import audit_folder

    if out:
        from cnnbench.page.write import check_place

        check_place(out)
    found = audit_folder(folder, split=split)
    if out:
        from cnnbench.page.audit import audit_page
        from cnnbench.page.write import write

        write(audit_page(found), Path(out))
    if format == "json":
        print(json.dumps(_document(found), indent=2))
    else:
        _print(found)
        if out:
            print(one_line(f"page: {out}"))
        if found.advice.command:
            say_next(*shlex.split(found.advice.command)[1:], format=format)
    return Exit.DATA if strict and found.leaks else Exit.OK


def _print(found: Audit) -> None:
    splits = list(found.counts)
    rows = [{"class": name, **{split: found.counts[split][name] for split in splits}} for name in found.counts["train"]]
    columns = [Column("class", "class"), *(Column(split, split, "{:,}".format, right=True) for split in splits)]
    drawn = f"; {' and '.join(found.drawn)} drawn" if found.drawn else ""
    render(columns, rows, title=one_line(f"{found.folder}: {found.layout}{drawn}"))
    for line in _lines(found):
        print(one_line(line))


def _lines(found: Audit) -> Iterator[str]:
    name, share = found.majority
    if found.images:
        yield f"always answering {name}: {percent(share)} of the training images"
        yield f"sizes: {_ranking(found.sizes)}"
        yield f"formats and modes: {_ranking(found.modes)}"
    yield from _named("broken", [f"{file.name} ({file.reason})" for file in found.broken])
    yield from _named("not read", [f"{file.name} ({file.reason})" for file in found.skipped])
    yield from _named("of one colour", [place.name for place in found.flat])
    yield from _groups("leak: one image in several splits", found.leaks)
    yield from _groups("one image under several labels", found.contradictions)
    within = [copies for copies in found.copies if len(copies.splits) == len(copies.classes) == 1]
    yield from _groups("copies within a split", within)
    if found.near is None:
        yield "images that only look alike were not looked for: pip install 'cnnbench[audit]'"
    elif found.near:
        pairs = [f"{one.name} ({one.split}) and {other.name} ({other.split})" for one, other in found.near]
        yield from _named("look alike, in two splits", pairs)
    leaks = plural(len(found.leaks), "leak")
    yield f"{leaks} between splits, {plural(len(found.contradictions), 'image')} under several labels, " + (
        f"{plural(len(found.broken), 'broken file')}"
    )
    yield from found.advice.remarks


def _ranking(counts: Mapping[str, int]) -> str:
    return listed([f"{name} ({count:,})" for name, count in counts.items()], MOST)


def _named(what: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        yield f"{what}: {len(names):,}: {listed(names, MOST)}"


def _groups(what: str, groups: Sequence[Copies]) -> Iterator[str]:
    for copies in groups[:MOST]:
        places = [f"{place.name} ({place.split}, {place.class_name})" for place in copies.places]
        yield f"{what}: {listed(places, MOST)}"
    if len(groups) > MOST:
        yield f"{what}: {len(groups) - MOST:,} more"


def _document(found: Audit) -> dict[str, Any]:
    name, share = found.majority
    return {
        "folder": found.folder,
        "layout": found.layout,
        "drawn": found.drawn,
        "undrawn": found.undrawn,
        "sha256": found.sha256,
        "counts": found.counts,
        "majority": {"class": name, "share": share},
        "sizes": found.sizes,
        "modes": found.modes,
        "broken": [asdict(file) for file in found.broken],
        "skipped": [asdict(file) for file in found.skipped],
        "flat": [_place(place) for place in found.flat],
        "leaks": [_group(copies) for copies in found.leaks],
        "contradictions": [_group(copies) for copies in found.contradictions],
        "copies": [_group(copies) for copies in found.copies],
        "near": None if found.near is None else [[_place(place) for place in pair] for pair in found.near],
        "advice": asdict(found.advice),
    }


def _group(copies: Copies) -> list[dict[str, str]]:
    return [_place(place) for place in copies.places]


def _place(place: Place) -> dict[str, str]:
    return {"split": place.split, "class": place.class_name, "file": place.name}
