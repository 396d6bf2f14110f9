"""Pages as tests read them, and records of everything that a report can show."""

import io
import json
from contextlib import chdir
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import builders as made
import numpy as np

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.records.schema import DataRecord, FitResult, RunRecord
from cnnbench.types import Cost

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Walks a page, and fails where tags are not balanced."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def all(self, tag: str, attribute: str) -> list[str]:
        return [found[attribute] or "" for name, found in self.tags if name == tag and attribute in found]

    def under(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]


NASTY = "<script>alert(1)</script>"
HOSTILE = [
    NASTY,
    "</script><img src=x onerror=alert(1)>",
    "\"><svg onload='alert(1)'>",
    "<!--<script>",
    "{{ 7 * 7 }}{% x %}",
    "a &amp; b]]>",
    "</title></style></textarea>",
]
SURE = 0.7  # in the middle of one of 15 bins
MACS = {"small": 9_000, "middle": 20_000, "large": 1_200_000}  # in another order as words than as figures
TOOK = (5.5, 9.5, 6.5)  # seconds to 90 %, of each seed
SHIFTED = ((0.5, 0.6, 0.61), (0.7, 0.88, 0.71), (0.8, 0.81, 0.82))
SECONDS = (0.001 * np.random.RandomState(0).lognormal(0, 0.2, 700)).tolist()  # enough for a 99th percentile


@dataclass
class Chart:
    """A chart as the page has it."""

    section: str
    stills: int = 0
    spec: str = ""


class Report(Page):
    """Reads the page: what each section says, its tables, its charts. Fails where tags are not balanced."""

    def __init__(self, path: Path) -> None:
        self.place = "head"
        self.said: dict[str, str] = {}
        self.answers: list[str] = []
        self.keys: dict[str, list[list[str]]] = {}
        """Of each table of a section."""
        self.rows: dict[str, list[list[list[tuple[str, str | None]]]]] = {}
        self.charts: list[Chart] = []
        super().__init__(path)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        found = dict(attrs)
        if tag in ("section", "article", "nav", "footer"):
            self.place = found.get("id") or tag
            self.answers += [""] * (tag == "article")
        elif tag == "table":
            self.keys.setdefault(self.place, []).append([])
            self.rows.setdefault(self.place, []).append([])
        elif tag == "th":
            self.keys[self.place][-1].append(found["data-key"] or "")
        elif tag == "tr":
            self.rows[self.place][-1].append([])
        elif tag == "td":
            self.rows[self.place][-1][-1].append(("", found.get("data-v")))
        elif tag == "div" and found.get("class") == "chart":
            self.charts.append(Chart(self.place))
        elif tag == "svg" and "figure" in self.open:
            self.charts[-1].stills += 1

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        if "script" in self.open:
            if "figure" in self.open:
                self.charts[-1].spec += data
        elif "svg" not in self.open and "style" not in self.open:
            self._say(data)

    def _say(self, data: str) -> None:
        self.said[self.place] = self.said.get(self.place, "") + data
        if self.place == "article":
            self.answers[-1] += data
        if "td" in self.open:
            text, value = self.rows[self.place][-1][-1][-1]
            self.rows[self.place][-1][-1][-1] = (text + data, value)

    @property
    def sections(self) -> set[str]:
        return {found["id"] or "" for tag, found in self.tags if tag == "section"}

    def table(self, section: str) -> list[dict[str, tuple[str, str | None]]]:
        """Of every row (what is shown, the value it is sorted by) by key; a section's tables of one length are one."""
        tables = [
            [dict(zip(keys, row, strict=True)) for row in rows if row]
            for keys, rows in zip(self.keys[section], self.rows[section], strict=True)
        ]
        first, *others = tables
        for rows in others:
            if len(rows) == len(first):
                first = [{**before, **row} for before, row in zip(first, rows, strict=True)]
        return first

    def cells(self, section: str) -> list[dict[str, str]]:
        return [{key: text for key, (text, _) in row.items()} for row in self.table(section)]

    def points(self, section: str) -> list[dict[str, Any]]:
        """Every mark of the section's charts."""
        specs = [json.loads(chart.spec) for chart in self.charts if chart.section == section]
        return [point for spec in specs for points in datasets(spec) for point in points]


def datasets(spec: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The data of a chart, each once however many of its layers draw it."""
    used = [spec.get("data"), *(layer.get("data") for layer in spec["layer"])]
    once = {json.dumps(data, sort_keys=True): data for data in used if data}
    return [data["values"] if "values" in data else spec["datasets"][data["name"]] for data in once.values()]


def images(name: str = "d", train_images: int = 80) -> DataRecord:
    """What a record says of its data: here, of images that are nowhere."""
    options = {"dataset": "mnist", "root": "nowhere", "size": 28, "channels": 1}
    return made.data_record(name, train_images=train_images, **options)


def network(
    arch: str, seed: int = 1, right: int | None = 90, dataset: str = "d", train_images: int = 80, **changes: Any
) -> RunRecord:
    """A run whose cost goes by its architecture."""
    macs = MACS.get(arch, 500_000)
    usual = {
        "cost": Cost(params=macs // 10, macs=macs, activations=300, depth=2),
        "data": images(dataset, train_images),
    }
    return made.run_record(arch, seed, right, dataset, **{**usual, **changes})


def everything() -> None:
    """Records of everything that the page can show, below the working folder."""
    environment = made.environment(packages={"torch": "2.0"}, platform=NASTY)
    for arch, right in (("small", (88, 90, 89)), ("middle", (93, 94, 95)), ("large", (96,))):
        for seed, count in enumerate(right, 1):
            folder = made.write_run(network(arch, seed, count, environment=environment, fit=fit(TOOK[seed - 1], count)))
            made.write_certain(folder, made.first(count), SURE)
    made.write_run(network("middle", right=None, task="d_untested"))
    made.write_run(network("small", right=70, task="d_few", train_images=40))
    made.write_run(network(NASTY, right=80, dataset="e"), "runs/nasty")
    made.write_run(network("small", right=75, dataset="e"))
    shifted = made.shifted("checkpoint of d_small 1", 0.88, 0.5, accuracy=SHIFTED)
    records.write(Path("runs/d_small/seed1/robustness.json"), shifted)
    made.write_bundle(network("small", right=88))
    made.write_bundle(network(NASTY, right=80, dataset="e"), class_names=(NASTY, "&amp;"))
    timed = [
        made.measured(network("small"), SECONDS, backend=engine, task="d_small") for engine in ("onnxruntime", "torch")
    ]
    made.write_latencies(*timed)
    made.write_failure("broken", 1, NASTY)


def fit(seconds: float, right: int = 90) -> FitResult:
    """Training whose second epoch, the first with 90 %, ended after `seconds`."""
    return made.fitted(right, curve=(made.CURVE[0], records.replace(made.CURVE[1], train_seconds=seconds)))


SKETCH = '<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'
"""A picture, for tests that do not look at it; matplotlib takes up to half a second for one."""


def sketch(figure: object, target: Path | io.BytesIO, format: str, *, text: bool = False) -> None:
    """In place of `pictures._save`: write a sketch at once."""
    if isinstance(target, Path):
        target.write_text(SKETCH)
    else:
        target.write(SKETCH.encode())


FOLDERS = ["runs", "exports", "latency.json"]


def tell_everything(folder: Path) -> None:
    """Write the records of `everything` into the folder, and their page, report.html."""
    with chdir(folder):
        everything()
        assert main(["report", *FOLDERS, "--target-accuracy", "90%"]) == 0
