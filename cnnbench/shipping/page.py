"""The page of `ship`: what was shipped and why, and then what `report` shows of everything that was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cnnbench.page.material import Material
from cnnbench.page.report import report_page
from cnnbench.page.section import Answer, Block, Fact, Section, Table
from cnnbench.page.write import write
from cnnbench.progress import in_words
from cnnbench.shipping.record import Competitor, Decision, File, Scored
from cnnbench.tables.columns import Column
from cnnbench.tables.gather import gather
from cnnbench.tables.text import count, milliseconds, percent, percent_digits

NETWORKS = [
    Column("arch", "network"),
    Column("val", "validation accuracy", percent_digits, unit="%", right=True, read=lambda one: _accuracy(one.val)),
    Column("epochs", "epochs", right=True),
    Column("left", "left"),
    Column("why", "why"),
    Column("seeds", "seeds", right=True),
    Column("runs", "runs", right=True),
    Column("seconds", "training", "{:.0f}".format, unit="s", right=True),
    Column("macs", "MACs", count, right=True),
    Column("params", "parameters", count, right=True),
]
FILES = [
    Column("task", "task"),
    Column("precision", "precision"),
    Column("bytes", "bytes", count, right=True),
    Column("val", "validation accuracy", percent_digits, unit="%", right=True, read=lambda one: _accuracy(one.val)),
    Column("p90_ms", "p90 latency", milliseconds, unit="ms", right=True),
    Column("why", "why it was not chosen"),
]


def _accuracy(scored: Scored | None) -> float | None:
    return scored.accuracy if scored else None


def write_page(decision: Decision, out: Path) -> None:
    """Write report.html into the folder of a decision.

    Raises:
        CnnbenchError: A record there cannot be read (exit 3).
    """
    report = report_page(Material(gather(out)))
    own = [_networks(decision), *([_files(decision)] if decision.files else [])]
    page = replace(report, verb="ship", answers=[_answer(decision)], sections=[*own, *report.sections], missing=())
    write(page, out / "report.html")


def _answer(decision: Decision) -> Answer:
    chosen, images = decision.chosen, decision.images
    question = f"Which network ships on {images.name}?"
    if chosen is None:
        nearest = f"The nearest is {decision.nearest}: relax {decision.relax}." if decision.nearest else ""
        return Answer(images.name, question, "none", [*filter(None, [decision.answer or decision.ended, nearest])])
    facts = [
        Fact(percent(chosen.test.accuracy), f"test accuracy, {chosen.test.right:,} of {chosen.test.images:,}"),
        Fact(f"{percent(chosen.test_low)} to {percent(chosen.test_high)}", "95 % interval for new images"),
        Fact(percent(chosen.majority_share), f"always answering {chosen.majority}"),
        Fact(count(chosen.bytes), f"bytes, {chosen.file}"),
    ]
    if chosen.p90_ms is not None:
        facts.append(Fact(f"{milliseconds(chosen.p90_ms)} ms", "90th percentile of one image, one thread"))
    spent = f"{in_words(decision.seconds)} of {in_words(decision.request.budget_seconds)} were spent"
    sentences = [f"{decision.answer}.", f"The race ended: {decision.ended}; {spent}."]
    return Answer(images.name, question, f"{chosen.arch}, {chosen.precision}", sentences, facts)


def _networks(decision: Decision) -> Section:
    """Every network, and when and why it left."""

    def order(one: Competitor) -> tuple[bool, int, float, int]:
        return one.left != "chosen", -(one.epochs or 0), -(one.val.accuracy if one.val else 0.0), one.macs

    rows: list[Competitor] = sorted(decision.competitors, key=order)
    folds = f" Accuracies are over {decision.images.folds} folds." if decision.images.folds else ""
    lead = (
        "Each rung trains its networks anew with a whole schedule; at most half go on to the next. Some that had left "
        "without being shown to be worse may get the last schedule, too, with the time that is left. Every choice was "
        f"made on validation images.{folds}"
    )
    return Section("race", "Why this network", lead, [Block(notes=decision.images.found, table=Table(NETWORKS, rows))])


def _files(decision: Decision) -> Section:
    """The files that could have been shipped."""
    rows: tuple[File, ...] = decision.files
    lead = "Made of the best networks and scored on the validation images, before any test image was read."
    return Section("files", "Why this file", lead, [Block(table=Table(FILES, rows))])
