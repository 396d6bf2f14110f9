"""Every parser of ours, on whatever may be given to it: it reads it, or refuses it in one line of its own."""

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench import records, tasks
from cnnbench.bench import record as latency
from cnnbench.cli import units
from cnnbench.datasets.layout import read_listing
from cnnbench.records import io as records_io
from cnnbench.records.bundle import Manifest
from cnnbench.records.schema import Failure, Robustness, RunRecord
from cnnbench.sweeps.executors import parse_options
from cnnbench.types import CnnbenchError, Exit, ImageSpec

FEW, MANY = 25, 20_000
EXAMPLES = [FEW, pytest.param(MANY, marks=pytest.mark.slow)]
TEXTS = st.text(max_size=40)
WORDS = st.text(max_size=8)
# Small values: what is drawn, not what is parsed, takes the time, and it grows with every leaf.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
FILE = Path("file")


def holds(examples: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], object]) -> None:
    """Run a check on so many inputs."""

    @settings(max_examples=examples, deadline=None, database=None)
    @given(strategy)
    def test(value: Any) -> None:
        check(value)

    test()


def refuses(parse: Callable[[], object], *codes: Exit) -> None:
    """Whatever it raises is a line of ours."""
    refused: CnnbenchError | None = None
    try:
        parse()
    except CnnbenchError as error:
        refused = error
    assert refused is None or refused.code in codes
    assert refused is None or (str(refused).strip() and "\n" not in str(refused))


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("kind", [RunRecord, Manifest, Failure, Robustness], ids=lambda kind: kind.__name__)
def test_records(kind: Any, examples: int) -> None:
    """JSON of the right schema and seal, whose fields are anything."""
    fields = st.sampled_from(kind.__struct_fields__)

    def check(content: dict[str, Any]) -> None:
        content = {**content, "schema": kind.__struct_config__.tag}
        FILE.write_text(json.dumps({**content, "seal": records_io.seal(content)}))
        refuses(lambda: records.read(FILE, kind), Exit.DATA, Exit.VERDICT)

    holds(examples, st.dictionaries(fields, JSON, max_size=4), check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_bytes_of_records(examples: int) -> None:
    def check(content: bytes) -> None:
        FILE.write_bytes(content)
        refuses(lambda: records.read_json(FILE), Exit.DATA)

    holds(examples, st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()), check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_latencies(examples: int) -> None:
    names = ("task", "arch", "model_sha256", "backend", "precision", "batch", "threads", "processes")
    cases = st.fixed_dictionaries(
        {}, optional={"extra_info": st.dictionaries(st.sampled_from(names), JSON, max_size=3), "stats": JSON}
    )

    def check(content: Any) -> None:
        FILE.write_text(json.dumps(content))
        refuses(lambda: latency.read(FILE), Exit.DATA)

    holds(examples, st.fixed_dictionaries({"benchmarks": st.lists(cases, max_size=2) | JSON}), check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_tasks(examples: int) -> None:
    yaml = st.text("abc:-{}[]&*!|>'\"#, \n\t0123456789.~<=?%@", max_size=60) | TEXTS

    def check(text: str) -> None:
        FILE.write_bytes(text.encode(errors="surrogatepass"))
        refuses(lambda: tasks.read(FILE), Exit.USAGE)

    holds(examples, yaml, check)


UNITS = {
    "accuracy": units.accuracy,
    "points": units.points,
    "seconds": units.seconds,
    "duration": units.duration,
    "milliseconds": units.milliseconds,
    "size": units.size,
}


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("name", UNITS)
def test_units(name: str, examples: int) -> None:
    def check(text: str) -> None:
        value = 0.0
        with suppress(ValueError):
            value = UNITS[name](text)
        assert 0 <= value < float("inf")

    unit = "(%|s|ms|us|h|m|min|MB|kB|MiB|B)?"
    numbers = st.from_regex(r"[0-9]{1,3}(\.[0-9]{0,3})?([eE][+-]?[0-9]{1,3})? ?" + unit, fullmatch=True)
    holds(examples, numbers | TEXTS, check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_sizes_of_images(examples: int) -> None:
    texts = st.from_regex(r"[0-9]{1,20}(x[0-9]{1,20}){0,3}", fullmatch=True) | TEXTS
    holds(examples, texts, lambda text: refuses(lambda: ImageSpec.of(text, 10), Exit.USAGE))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_options_of_executors(examples: int) -> None:
    texts = st.text("ab=:[]{}&*!'\" 012.\x00\x1b\u202e", max_size=20)
    holds(examples, texts, lambda text: refuses(lambda: parse_options([text]), Exit.USAGE))


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".npz", ".zip", ".tar"])
def test_own_images(suffix: str, examples: int) -> None:
    """Tables, arrays and archives of one's own images: anything, or an archive whose members are anything."""
    names = st.text("abc/.\\x00", min_size=1, max_size=8)
    rows = st.lists(st.lists(WORDS, max_size=3), max_size=3).map(
        lambda rows: "\n".join(["path,label", *[",".join(row) for row in rows]]).encode(errors="surrogatepass")
    )
    archives = st.dictionaries(names, st.binary(max_size=30), max_size=2).map(zipped)
    path = Path(f"images{suffix}")

    def check(content: bytes) -> None:
        path.write_bytes(content)
        refuses(lambda: read_listing(path), Exit.DATA, Exit.USAGE)

    holds(examples, st.binary(max_size=200) | rows | archives, check)
