"""`clean`: list what can be removed from the disk, and with --remove remove it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from cnnbench.cli.hints import say_next
from cnnbench.training.clean import KINDS, Clutter, Kind, find_clutter, remove_clutter
from cnnbench.types import CnnbenchError, Exit, one_line


def clean(
    folders: list[str] | None = None,
    *,
    remove: list[Kind] | None = None,
    format: Literal["text", "json"] = "text",
) -> int:
    """Show caches, replaced runs and leftovers with their sizes; nothing is removed without --remove.

    Args:
        folders: Folders of runs and bundles; by default runs and exports.
        remove: What to remove: images, downloads, checks, runs, leftovers, or several of them.
        format: text for people, json for one JSON document.

    Examples:
        cnnbench clean
        cnnbench clean --remove images
    """
    if absent := [folder for folder in folders or [] if not Path(folder).is_dir()]:
        raise CnnbenchError(f"no folder {', '.join(absent)}: expected folders of runs and bundles")
    places = folders or ["runs", "exports"]
    found = remove_clutter(remove, folders=places) if remove else find_clutter(places)
    if format == "json":
        print(json.dumps([{**asdict(clutter), "path": str(clutter.path)} for clutter in found], indent=2))
        return Exit.OK
    for clutter in found:
        print(one_line(f"{'removed ' * bool(remove)}{clutter.kind:9} {clutter.bytes / 1e6:10,.1f} MB  {clutter.path}"))
    print(_summary(found, removed=bool(remove)))
    if found and not remove:
        say_next("clean", *(folders or []), "--remove", ",".join(_kinds(found)), format=format)
    return Exit.OK


def _summary(found: list[Clutter], *, removed: bool) -> str:
    total = f"{sum(clutter.bytes for clutter in found) / 1e6:,.1f} MB"
    if removed:
        return f"{total} removed"
    if not found:
        return "nothing to remove"
    lines = [f"  {kind}: {KINDS[kind]}" for kind in _kinds(found)]
    return "\n".join([f"{total} can be removed:", *lines])


def _kinds(found: list[Clutter]) -> list[Kind]:
    return [kind for kind in KINDS if any(clutter.kind == kind for clutter in found)]
