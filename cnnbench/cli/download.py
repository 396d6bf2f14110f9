"""`download`: fetch a data set once, so that later runs find it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Literal

from cnnbench import progress
from cnnbench.cli.hints import say_next
from cnnbench.datasets.download import download_dataset
from cnnbench.types import Exit, one_line


def download(name: str, *, root: str | None = None, format: Literal["text", "json"] = "text") -> int:
    """Fetch a data set if it is not there, read it, and print its folder.

    Args:
        name: Name of the data set; `cnnbench list datasets` prints them.
        root: Folder to fetch it into; by default CNNBENCH_DATA, else the user's cache folder.
        format: text for people, json for one JSON document.

    Examples:
        cnnbench download mnist
    """
    with progress.display(None):
        progress.step(f"looking for {name}")
        got = download_dataset(name, root=root)
    if format == "json":
        print(json.dumps(asdict(got), indent=2))
    else:
        counts = f"{got.train_images:,} / {got.val_images:,} / {got.test_images:,} images"
        print(one_line(f"{got.dataset} is in {got.root}: {counts}, sha256 {got.sha256[:12]}"))
    say_next("fit", "lenet5", "--dataset", name, format=format)
    return Exit.OK
