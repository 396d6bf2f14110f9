"""`report`: one page of everything that was measured, which needs no network, no server and no script to be read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench import records
from cnnbench.tables.gather import gather
from cnnbench.types import CnnbenchError, Exit

if TYPE_CHECKING:
    from cnnbench.page.answer import Answer
    from cnnbench.page.parts import Material, Section


def report(
    paths: list[str],
    out: str = "report.html",
    target: float | None = None,
    root: str | None = None,
    folder: str | None = None,
) -> int:
    """Write one self-contained HTML page: the answer in words, the table, and pictures of everything that was measured.

    It opens from disk without a network. 0.9 MB of it is the JavaScript of its charts (Vega); without scripts it shows
    the same tables and still pictures.

    Args:
        paths: Folders of runs and bundles, and latency files of `bench`; folders are searched for all three.
        out: The page to write.
        target: Accuracy that is enough, such as 0.99: of test images for the answer, of validation images for the time
            it took; by default the best of each dataset, rounded down.
        root: Folder of the downloaded datasets, for the pictures of mistakes.
        folder: Folder of your own images, likewise.
    """
    if target is not None and not 0 < target < 1:
        raise CnnbenchError(f"--target {target:g}: expected a fraction between 0 and 1, such as 0.99")
    from cnnbench.page.parts import Material

    page = render(Material(gather(paths), target, root, folder))
    with records.replacing(Path(out)) as partial:
        partial.write_text(page, encoding="utf-8")
    print(f"page: {out}")
    return Exit.OK


def render(material: Material) -> str:
    """The page as HTML; text from records is escaped wherever it stands."""
    import vl_convert
    from jinja2 import Environment, PackageLoader, StrictUndefined

    answers, sections = answered(material), sectioned(material)
    environment = Environment(
        loader=PackageLoader("cnnbench.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = any(block.pictures for section in sections for block in section.blocks)
    return environment.get_template("report.html").render(
        answers=answers,
        sections=sections,
        counts=counts(material),
        missing=missing(sections, material),
        vega=vl_convert.javascript_bundle() if drawn else "",  # type: ignore[call-arg] # the stub forgets a default
        marks=MARKS,
    )


MARKS = {
    "circle": "M6 1.5a4.5 4.5 0 1 1 0 9a4.5 4.5 0 1 1 0-9z",
    "square": "M2 2h8v8h-8z",
    "triangle-up": "M6 1.5l5 8.7h-10z",
    "diamond": "M6 .6l4.2 5.4l-4.2 5.4l-4.2-5.4z",
    "cross": "M4.3 1h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "triangle-down": "M6 10.5l5-8.7h-10z",
    "triangle-right": "M10.5 6l-8.7 5v-10z",
}
"""Vega's symbols as paths, for legends."""


def answered(material: Material) -> list[Answer]:
    """One answer a dataset."""
    from cnnbench.page.answer import answer

    return [answer(dataset, material.of(dataset), material.target, material.measured) for dataset in material.datasets]


def sectioned(material: Material) -> list[Section]:
    """The sections for which there is something to show."""
    from cnnbench.page import accuracy as report_accuracy
    from cnnbench.page import behaviour as report_behaviour
    from cnnbench.page import shipping as report_shipping

    chosen = [each.chosen for each in answered(material) if each.chosen]
    made = [
        report_accuracy.pareto(material) if material.groups else None,
        report_accuracy.table(material) if material.groups else None,
        report_accuracy.seeds(material),
        report_accuracy.curves(material),
        report_accuracy.time_to_target(material),
        report_accuracy.efficiency(material),
        report_behaviour.shifts(material),
        report_behaviour.confusions(material, chosen),
        report_behaviour.calibration(material),
        report_shipping.latency(material),
        report_shipping.verdicts(material),
        report_shipping.failures(material),
        report_shipping.environment(material),
    ]
    return [section for section in made if section]


def counts(material: Material) -> str:
    """What the page stands on, in one line."""
    found = material.found

    def told(count: int, what: str) -> str:
        return f"{count:,} {what}{'' if count == 1 else 's'}"

    parts = [(len(material.groups), "network"), (len(found.runs), "run"), (len(material.datasets), "dataset")]
    parts += [(len(found.bundles), "bundle"), (len(found.latencies), "latency case"), (len(found.failures), "failure")]
    return ", ".join(told(count, what) for count, what in parts if count)


MEASURES = {
    "seeds": ("the spread over seeds", "cnnbench sweep --seeds 5"),
    "data": ("accuracy with fewer training images", "cnnbench fit --data.train_images 1000"),
    "target": ("the time to a target accuracy", "cnnbench report --target 0.99"),
    "shifts": ("shifted images", "cnnbench robustness RUNS"),
    "mistakes": ("single predictions", "cnnbench test"),
    "latency": ("latency", "cnnbench bench EXPORTS"),
    "verdicts": ("exported files", "cnnbench export RUN"),
}
"""What makes a section appear that is not there, by its anchor."""


def missing(sections: list[Section], material: Material) -> list[tuple[str, str]]:
    """What was not measured, and the command that measures it."""
    there = {section.anchor for section in sections}
    return [told for anchor, told in MEASURES.items() if anchor not in there]
