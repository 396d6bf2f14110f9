"""The page of `audit`: what was found in the user's images, with the images."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from cnnbench.audit.audit import Audit, Copies, Place
from cnnbench.audit.facts import WIDE_MODES
from cnnbench.datasets.tree import Skipped
from cnnbench.page.section import Answer, Block, Fact, Page, Section, Table, Thumbnail
from cnnbench.tables.columns import Column
from cnnbench.tables.text import percent, plural

SHOWN = 40
"""Groups of images that stand on the page."""
IN_GROUP = 12
"""Images of a group that do."""
SAMPLES = 8
"""Images of each class that do."""
MOST_CLASSES = 30
"""Classes of which some images are shown."""
SIDE = 120
"""Pixels of a thumbnail."""


def audit_page(audit: Audit) -> Page:
    """The page of an audit; it reads the files that it shows. A section without anything to show is left out."""
    sections = [
        _groups("leaks", "Leaks between splits", audit.leaks, LEAKS),
        _groups("labels", "One image under two labels", audit.contradictions, CONTRADICTIONS),
        _near(audit),
        _groups("copies", "Copies within a split", _within(audit), COPIES),
        _flat(audit),
        _counts(audit),
        _samples(audit),
        _files(audit),
        _left_out(audit),
    ]
    return Page(
        "audit",
        f"Images in {audit.folder}",
        counts=f"{audit.layout}; hash {audit.sha256[:12]}",
        answers=[_answer(audit)],
        sections=[section for section in sections if section],
        origin=f"Written by cnnbench audit {audit.folder}; nothing was trained.",
    )


LEAKS = (
    "Each group is one image, pixel for pixel, in several splits: the network is scored on what it was trained on, and "
    "the score is too good. Remove it from all splits but one."
)
CONTRADICTIONS = "Each group is one image, pixel for pixel, under several classes."
COPIES = "Each group is one image, pixel for pixel, of one split and class: it counts more than others."


def findings(audit: Audit) -> list[str]:
    """What is wrong, in a few words each, the worst first; empty where nothing is."""
    near = len(audit.near or ())
    counts = {
        "fit cannot draw splits": len(audit.undrawn),
        plural(len(audit.leaks), "leak") + " between splits": len(audit.leaks),
        f"{plural(len(audit.contradictions), 'image')} under two labels": len(audit.contradictions),
        plural(len(audit.broken), "broken file"): len(audit.broken),
        f"{plural(near, 'pair')} across splits that look alike": near,
        f"{plural(len(audit.flat), 'image')} of one colour": len(audit.flat),
    }
    return [words for words, count in counts.items() if count]


def _answer(audit: Audit) -> Answer:
    images = sum(sum(of_class.values()) for of_class in audit.counts.values())
    name, share = audit.majority
    found = findings(audit)
    facts = [
        Fact(f"{images:,}", "images"),
        Fact(f"{len(audit.counts['train'])}", "classes"),
        Fact(percent(share), f"always answering {name}"),
        Fact(f"{audit.advice.size}x{audit.advice.size}x{audit.advice.channels}", "suggested"),
    ]
    remarks = [f"{remark}." for remark in audit.advice.remarks]
    also = [f"Also {', '.join(found[1:])}."] if found[1:] else []
    command = [f"Train with: {audit.advice.command}"] if audit.advice.command else []
    sentences = [*also, *remarks, *command]
    return Answer(
        "", "What is wrong with these images?", found[0] if found else "No problem was found", sentences, facts
    )


def _groups(anchor: str, heading: str, groups: Sequence[Copies], lead: str) -> Section | None:
    if not groups:
        return None
    notes = [f"{SHOWN} of {len(groups):,} are shown."] if len(groups) > SHOWN else []
    shown = [[_thumbnail(place) for place in copies.places[:IN_GROUP]] for copies in groups[:SHOWN]]
    return Section(anchor, heading, lead, [Block(notes=notes, groups=shown)])


def _within(audit: Audit) -> list[Copies]:
    """Copies that are told nowhere else."""
    return [copies for copies in audit.copies if len(copies.splits) == len(copies.classes) == 1]


def _near(audit: Audit) -> Section | None:
    if not audit.near:
        return None
    lead = (
        "Pairs of images in two splits whose perceptual hashes differ in at most 3 of 64 bits: crops, scaled or "
        "recompressed copies, neighbouring frames; simple shapes may look alike without being copies."
    )
    notes = [f"{SHOWN} of {len(audit.near):,} are shown."] if len(audit.near) > SHOWN else []
    pairs = [[_thumbnail(place) for place in pair] for pair in audit.near[:SHOWN]]
    return Section("near", "Nearly the same in two splits", lead, [Block(notes=notes, groups=pairs)])


def _flat(audit: Audit) -> Section | None:
    if not audit.flat:
        return None
    shown = [_thumbnail(place) for place in audit.flat[:SHOWN]]
    notes = [f"{SHOWN} of {len(audit.flat):,} are shown."] if len(audit.flat) > SHOWN else []
    lead = "All pixels of these images are equal: nothing can be learnt from them."
    return Section("flat", "Images of one colour", lead, [Block(notes=notes, groups=[shown])])


def _counts(audit: Audit) -> Section:
    splits = list(audit.counts)
    rows = [{"class": name, **{split: audit.counts[split][name] for split in splits}} for name in audit.counts["train"]]
    columns = [Column("class", "class"), *(Column(split, split, "{:,}".format, right=True) for split in splits)]
    drawn = f" {' and '.join(audit.drawn)} were drawn here, stratified, copies together." if audit.drawn else ""
    name, share = audit.majority
    lead = f"Always answering {name}, the largest class, would be right on {percent(share)}.{drawn}"
    return Section("counts", "Images by class and split", lead, [Block(table=Table(columns, rows, filtered=True))])


def _samples(audit: Audit) -> Section | None:
    """Some images of each class: a folder with another name than its images is seen at once."""
    blocks = [
        Block(name, groups=[[_thumbnail(place) for place in places]])
        for name, places in list(audit.samples(SAMPLES).items())[:MOST_CLASSES]
        if places
    ]
    lead = "Training images spread over each class, as files."
    return Section("samples", "Some images of each class", lead, blocks) if blocks else None


def _files(audit: Audit) -> Section:
    lead = "Every image is brought to one size and mode; docs/folders.md says how."
    tables = [_ranking(audit.sizes, "size", "Sizes"), _ranking(audit.modes, "format and mode", "Formats")]
    return Section("files", "Sizes and modes", lead, [Block(table=table) for table in tables])


def _ranking(counts: Mapping[str, int], heading: str, title: str) -> Table:
    rows = [{"name": name, "count": count} for name, count in counts.items()]
    columns = [Column("name", heading), Column("count", "images", "{:,}".format, right=True)]
    return Table(columns, rows, title, filtered=len(rows) > SHOWN)


def _left_out(audit: Audit) -> Section | None:
    tables = [_skipped(audit.broken, "Broken files"), _skipped(audit.skipped, "Not read")]
    blocks = [Block(table=table) for table in tables if table.rows]
    lead = "Broken files are refused by fit; the others are no images of any class."
    return Section("left-out", "Files that are left out", lead, blocks) if blocks else None


def _skipped(files: Sequence[Skipped], title: str) -> Table:
    columns = [Column("name", "file"), Column("reason", "why")]
    return Table(columns, files, title, filtered=len(files) > SHOWN)


def _thumbnail(place: Place) -> Thumbnail:
    return Thumbnail(_png(place), f"{place.split}: {place.class_name}", place.name)


def _png(place: Place) -> str:
    """A file as a data URI, upright and small; empty where it cannot be read any more."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with place.opened() as file, Image.open(file) as image:
                image.filename = ""  # as in predict.decode
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith(WIDE_MODES):  # as bright as it can be
                    values = np.asarray(upright).astype(np.float64)
                    upright = Image.fromarray((255 * values / max(values.max(), 1)).clip(0, 255).astype(np.uint8))
                upright = upright.convert("RGBA") if upright.has_transparency_data else upright.convert("RGB")
                upright.thumbnail((SIDE, SIDE))
                content = io.BytesIO()
                upright.save(content, "png", optimize=True)
    except Exception:  # as in audit.facts
        return ""
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
