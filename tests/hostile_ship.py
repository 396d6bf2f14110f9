"""Decisions of `ship` and predictions of runs that are damaged or hostile."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import builders as made
import pyarrow as pa
import pyarrow.parquet as pq
from hostile import Case
from hostile_records import BYTES, HUGE, PLACES, REMOVED, TABLES, changed, good, in_place_of, named, raw, replaced

PREDICTIONS = Path("runs/d_a/seed1/predictions.parquet")
SHIP = ["ship", "--dataset", "mnist5k", "--arch", "linear,mlp", "--max-bytes", "1kB", "--jobs", "1", "--out", "out"]
"""No network can keep the limit: it ends before anything is trained."""
OF_DECISIONS = [SHIP]
OF_PREDICTIONS = [
    *TABLES[1:3],
    ["compare", "--pair", "a,b", "runs"],
    ["compare", "--view", "pairs", "runs"],
]
Table = dict[str, Any]


VALUES: list[tuple[tuple[str | int, ...], Any]] = [
    *[(("chosen", place), to) for place in ("run", "bundle", "file") for to in ("../../x", "/etc/passwd", "a//b", 5)],
    *[(("chosen", "task"), to) for to in ("../x", "", "\ud800", "x" * 300)],
    *[(("chosen", "test", "images"), to) for to in (0, -1, HUGE, "500", None)],
    *[(("chosen", "test", "right"), to) for to in (501, -1, HUGE)],
    (("chosen", "test_low"), -0.5),
    (("chosen", "test_high"), 1e308),
    (("chosen", "bytes"), -1),
    (("chosen", "p50_ms"), -1.0),
    (("chosen", "p90_ms"), "fast"),
    (("chosen",), []),
    (("request",), {}),
    (("request", "budget_seconds"), -1e308),
    (("request", "archs"), "linear"),
    (("images", "classes"), 0),
    (("images", "found"), [5]),
    (("competitors",), None),
    (("competitors", 0, "params"), HUGE),
    (("competitors", 0, "left"), "a\x1b[2Jb"),
    (("rungs", 0, "epochs"), "9"),
    (("files", 0, "val"), {"right": 1}),
    (("finished",), "yes"),
    (("seconds",), -5.0),
    (("answer",), 5),
    (("schema",), "cnnbench.decision/99"),
    (("ended",), REMOVED),
]


def decisions() -> list[Case]:
    makers: dict[str, Callable[[], object]] = {name: raw("decision", content) for name, content in BYTES.items()}
    makers |= {name: in_place_of("decision", put) for name, put in PLACES.items()}
    makers |= {named(keys, value): changed("decision", *keys, to=value) for keys, value in VALUES}
    makers["edited"] = replaced("decision", '"right": 485', '"right": 495')
    return [Case("decision", name, make, OF_DECISIONS, 8, "the budget begins anew") for name, make in makers.items()]


# predictions


def table(**changes: Any) -> Callable[[], None]:
    """The predictions of a good run with some columns replaced; None leaves one out."""

    def make() -> None:
        columns = {name: pq.read_table(PREDICTIONS)[name] for name in pq.read_schema(PREDICTIONS).names}
        for name, change in changes.items():
            if change is None:
                del columns[name]
            else:
                columns[name] = change(columns.get(name))
        pq.write_table(pa.table(columns), PREDICTIONS)

    return make


def values(*items: Any, kind: pa.DataType | None = None) -> Callable[[Any], pa.Array]:
    """The first values of a column replaced."""

    def change(column: pa.ChunkedArray) -> pa.Array:
        kept = column.to_pylist()
        return pa.array([*items, *kept[len(items) :]], kind or column.type)

    return change


def listed(*items: Any) -> Callable[[Any], pa.Array]:
    """The first probabilities replaced, in lists of any length."""
    return values(*items, kind=pa.list_(pa.float32()))


def rows(count: int) -> None:
    """So many images, or the first of them."""
    known = pq.read_table(PREDICTIONS)
    pq.write_table(known.take(pa.array([place % len(known) for place in range(count)], pa.int32())), PREDICTIONS)


def many() -> None:
    """Ten million rows of zeros, which take little room."""
    count = 10**7
    zeros = pa.nulls(count, pa.int32()).fill_null(0)
    halves = pa.FixedSizeListArray.from_arrays(pa.nulls(2 * count, pa.float32()).fill_null(0.5), 2)
    columns = {"index": zeros, "label": zeros, "prediction": zeros, "probabilities": halves, "logits": halves}
    pq.write_table(pa.table(columns), PREDICTIONS)


def cut(to: float) -> None:
    os.truncate(PREDICTIONS, int(PREDICTIONS.stat().st_size * to))


def put(place: Callable[[Path], object]) -> None:
    PREDICTIONS.unlink()
    place(PREDICTIONS)


CHANGES: dict[str, Callable[[], object]] = {
    "empty": partial(cut, 0.0),
    "cut in half": partial(cut, 0.5),
    "text": lambda: PREDICTIONS.write_text("index,label"),
    "a head and a foot": lambda: PREDICTIONS.write_bytes(b"PAR1" + bytes(100) + b"PAR1"),
    "a foot that claims 2^31 bytes": lambda: PREDICTIONS.write_bytes(b"PAR1" + b"\xff\xff\xff\x7fPAR1"),
    "no labels": table(label=None),
    "no probabilities": table(probabilities=None),
    "labels that are text": table(label=lambda column: pa.array(["a"] * len(column))),
    "labels that are lists": table(label=lambda column: pa.array([[0]] * len(column))),
    "labels that are missing": table(label=values(None)),
    "a label of -1": table(label=values(-1)),
    "a label of 2^31 - 1": table(label=values(2**31 - 1)),
    "labels of 2^64 - 1": table(label=values(2**64 - 1, kind=pa.uint64())),
    "labels that are fractions": table(label=values(0.5, kind=pa.float64())),
    "a prediction of no class": table(prediction=values(7)),
    "a prediction that is not the likeliest": table(prediction=values(1, 0, 1, 0)),
    "images in another order": table(index=values(1, 0)),
    "probabilities that are NaN": table(probabilities=values([float("nan")] * 2)),
    "probabilities that are infinite": table(probabilities=values([float("inf"), 0.0])),
    "probabilities that are negative": table(probabilities=values([-0.5, 1.5])),
    "probabilities that sum to 2": table(probabilities=values([1.0, 1.0])),
    "probabilities that are missing": table(probabilities=values(None)),
    "lists of other lengths": table(probabilities=listed([1.0], [0.2, 0.3, 0.5])),
    "lists that are empty": table(probabilities=lambda column: pa.array([[]] * len(column), pa.list_(pa.float32()))),
    "no rows": partial(rows, 0),
    "99 of 100 images": partial(rows, 99),
    "200 of 100 images": partial(rows, 200),
    "ten million rows": many,
    "another accuracy": lambda: made.write_certain(PREDICTIONS.parent, made.first(50)),
    "a folder": partial(put, Path.mkdir),
    **{name: partial(put, place) for name, place in PLACES.items()},
}


def of_predictions(change: Callable[[], object]) -> None:
    good()
    made.write_certain(made.write_run(made.run_record("b")), made.first(90))
    change()


def predictions() -> list[Case]:
    return [
        Case("predictions", name, partial(of_predictions, change), OF_PREDICTIONS, 3, "predictions.parquet")
        for name, change in CHANGES.items()
    ]
