"""Results for Python: rows to look at, to select from, and to turn into a pandas table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, overload

from cnnbench.arguments import require_fraction
from cnnbench.tables.columns import every_column, latency_pair_column, plain, select, texts
from cnnbench.tables.gather import Records, gather
from cnnbench.tables.rows import LatencyKey, Row, latency_keys, rows_of
from cnnbench.types import CnnbenchError, Exit

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

    from cnnbench.tables.columns import Column

SHOWN = (
    "arch",
    "dataset",
    "accuracy_and_std",
    "accuracy_interval",
    "seeds_and_failures",
    "params",
    "macs",
    "model_bytes",
)


@dataclass(frozen=True, repr=False)
class Results(Sequence[Row]):
    """One row per task, the most accurate of each dataset first; in Jupyter, a table.

    >>> results = read_results("results")  # doctest: +SKIP
    >>> results[0].accuracy, len(results)  # doctest: +SKIP
    """

    rows: tuple[Row, ...]
    records: Records
    """All that the rows were made from."""

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...

    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @property
    def latency_keys(self) -> list[LatencyKey]:
        """Every setting that a latency was measured in."""
        return latency_keys(self.records)

    def to_pandas(self) -> pd.DataFrame:
        """Every figure in full precision, a column per figure named as in CSV and JSON; accuracies are fractions.

        Raises:
            CnnbenchError: pandas is not installed (exit 6).
        """
        try:
            import pandas as pd
        except ImportError:
            raise CnnbenchError("pandas is not installed: pip install pandas", Exit.ENVIRONMENT) from None
        columns = every_column(self.latency_keys)
        return pd.DataFrame(plain(columns, self.rows), columns=[column.key for column in columns])

    def _columns(self) -> list[Column]:
        keys = [key for key in self.latency_keys if key.batch == 1]
        return [*select(*SHOWN), *map(latency_pair_column, keys)]

    def __str__(self) -> str:
        columns = self._columns()
        cells = [[column.title for column in columns], *(texts(columns, row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table that Jupyter shows."""
        columns = self._columns()
        head = "".join(f"<th>{escape(column.title)}</th>" for column in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in texts(columns, row)) + "</tr>" for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def read_results(paths: str | Path | Sequence[str | Path], *, target_accuracy: float | None = None) -> Results:
    """Every result below some folders: runs, bundles and latency files of `bench`.

    Args:
        paths: A folder or a file, or several.
        target_accuracy: Validation accuracy, a fraction: rows then say what training took until it was first reached.

    Raises:
        CnnbenchError: The target is not a fraction (exit 2); a path does not exist, a record cannot be read, or there
            is no result at all (exit 3).
    """
    require_fraction("target accuracy", target_accuracy)
    gathered = gather(paths)
    return Results(tuple(rows_of(gathered, target=target_accuracy)), gathered)
