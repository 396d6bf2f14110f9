"""`report`: one HTML page of all results; needs no network or server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from cnnbench.cli.hints import say_next
from cnnbench.cli.units import Accuracy, Bytes, Milliseconds
from cnnbench.types import CnnbenchError, Exit


def report(
    paths: list[str],
    *,
    out: str = "report.html",
    min_accuracy: Accuracy | None = None,
    max_latency: Milliseconds | None = None,
    max_bytes: Bytes | None = None,
    target_accuracy: Accuracy | None = None,
    root: str | None = None,
    folder: str | None = None,
    format: Literal["text", "json"] = "text",
) -> int:
    """Write one self-contained HTML page: the answer in words, the table, and charts of everything that was measured.

    It opens from disk without a network. 0.9 MB of it is the JavaScript of its charts (Vega); without scripts it shows
    the same tables and still pictures.

    Args:
        paths: Folders of runs and bundles, and latency files of `bench`; folders are searched for all three.
        out: The page to write.
        min_accuracy: The file that the page names has at least this accuracy on the validation images; by default the
            best of each dataset, rounded down.
        max_latency: The file takes at most this time for one image (90th percentile).
        max_bytes: The file has at most this size.
        target_accuracy: Adds what training took until this validation accuracy was first reached; also the minimum
            accuracy where none is given.
        root: Folder of the downloaded datasets, for the pictures of mistakes.
        folder: Folder of your own images, for the same pictures.
        format: text for people, json for one JSON document.

    Examples:
        cnnbench report runs exports
        cnnbench report runs exports --out report.html
    """
    if target_accuracy is not None and not 0 < target_accuracy < 1:
        raise CnnbenchError(f"--target-accuracy {target_accuracy:g}: expected more than 0 % and less than 100 %")
    from cnnbench.page.material import Material
    from cnnbench.page.report import report_page
    from cnnbench.page.write import check_place, write
    from cnnbench.tables.gather import gather
    from cnnbench.tables.limits import Limits

    check_place(out)
    limits = Limits(min_accuracy=min_accuracy, max_latency_ms=max_latency, max_bytes=max_bytes)
    write(report_page(Material(gather(paths), target_accuracy, root, folder, limits)), Path(out))
    print(json.dumps({"page": out}, indent=2) if format == "json" else f"page: {out}")
    say_next("choose", *paths, "--min-accuracy", f"{100 * (min_accuracy or 0.98):g}%", format=format)
    return Exit.OK
