"""`collect`: the small records of runs, bundles and latencies, to keep in a repository and to compare from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import msgspec

from cnnbench.cli.hints import say_next
from cnnbench.tables.collect import collect_records
from cnnbench.types import Exit


def collect(paths: list[str], *, out: str = "results", format: Literal["text", "json"] = "text") -> int:
    """Copy the records of runs and bundles, without weights, predictions and the machine's paths.

    Records already in the folder stay, unless the same run or bundle is collected again.

    Args:
        paths: Folders of runs and bundles, and latency files of `bench`.
        out: Output folder; `compare`, `choose` and `report` read it like any other.
        format: text for people, json for one JSON document with the counts.

    Examples:
        cnnbench collect runs exports --out results
    """
    collected = collect_records(paths, out=Path(out))
    if format == "json":
        print(json.dumps(msgspec.to_builtins(collected, enc_hook=str), indent=2))
        return Exit.OK
    size = f"{collected.files} files, {collected.bytes / 1e6:.2f} MB"
    print(f"{collected.out}: {collected.runs} runs and {collected.bundles} bundles; {size}")
    say_next("compare", collected.out, format=format)
    return Exit.OK
