"""The page of `report`: the answer in words, every measurement in a table, and charts."""

from __future__ import annotations

from collections.abc import Sequence

from cnnbench.page import accuracy, behaviour, exports, pairs
from cnnbench.page.answer import recommend
from cnnbench.page.material import Material
from cnnbench.page.section import Missing, Page, Section
from cnnbench.tables.text import plural

MEASURES = {
    "seeds": Missing("variation between seeds", "cnnbench sweep --seeds 5"),
    "data": Missing("accuracy with fewer training images", "cnnbench fit --data.train_images 1000"),
    "target": Missing("time to a target accuracy", "cnnbench report --target-accuracy 99%"),
    "shifts": Missing("shifted images", "cnnbench robustness RUNS"),
    "mistakes": Missing("predictions per image", "cnnbench test"),
    "latency": Missing("latency", "cnnbench bench EXPORTS"),
    "verdicts": Missing("exported files", "cnnbench export RUN"),
}
"""What adds a section, by its anchor."""


def report_page(material: Material) -> Page:
    """The page of everything that was measured; a section without anything to show is left out."""
    recommendations = [recommend(material, dataset) for dataset in material.datasets]
    chosen = [recommendation.group for recommendation in recommendations if recommendation.group]
    sections = [
        accuracy.pareto(material),
        accuracy.table(material),
        accuracy.seeds(material),
        pairs.section(material),
        accuracy.curves(material),
        accuracy.time_to_target(material),
        accuracy.efficiency(material),
        behaviour.shifts(material),
        behaviour.errors(material, chosen),
        behaviour.calibration(material),
        exports.latency(material),
        exports.verdicts(material),
        exports.failures(material),
        exports.environment(material),
    ]
    shown = [section for section in sections if section]
    return Page(
        "report",
        "Which network to choose",
        counts=_counts(material),
        answers=[recommendation.answer for recommendation in recommendations],
        sections=shown,
        missing=_missing(shown),
        origin=(
            "Every figure comes from the records in the given folders; cnnbench compare --format csv prints them in "
            "full."
        ),
    )


def _counts(material: Material) -> str:
    """What the page is based on, in one line."""
    records = material.records
    counts = {
        "network": len(material.groups),
        "run": len(records.runs),
        "dataset": len(material.datasets),
        "bundle": len(records.bundles),
        "latency case": len(records.latencies),
        "failure": len(records.failures),
    }
    return ", ".join(plural(count, noun) for noun, count in counts.items() if count)


def _missing(sections: Sequence[Section]) -> list[Missing]:
    anchors = {section.anchor for section in sections}
    return [missing for anchor, missing in MEASURES.items() if anchor not in anchors]
