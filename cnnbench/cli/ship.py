"""`ship`: train, choose, verify and export a network, within a time budget."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from cnnbench import progress
from cnnbench.cli.hints import say_next
from cnnbench.cli.units import Accuracy, Bytes, Milliseconds, Seconds
from cnnbench.tables.text import count, milliseconds, percent
from cnnbench.types import Exit, one_line

if TYPE_CHECKING:
    from cnnbench.shipping.record import Decision


def ship(
    folder: str | None = None,
    *,
    dataset: str | None = None,
    budget: Seconds = 1800.0,
    min_accuracy: Accuracy | None = None,
    max_latency: Milliseconds | None = None,
    max_bytes: Bytes | None = None,
    arch: list[str] | None = None,
    out: str | None = None,
    seed: int = 1,
    jobs: int | None = None,
    executor: Literal["local", "ray", "slurm"] = "local",
    executor_options: list[str] | None = None,
    format: Literal["text", "json"] = "text",
) -> int:
    """From images to a verified file: audit, race of small networks, choice, one test, bundle, latency and page.

    Every choice is made on validation images; the test images are read once, for the chosen file. Run it again to
    resume. Ctrl-C ships the best so far. If no file is within the limits, it exits with 8 and names the one to relax.

    Args:
        folder: Your own images in FOLDER/<class>/, or in another layout (`cnnbench audit --help`); or give --dataset.
        dataset: A registered data set, such as mnist5k.
        budget: Time limit for the whole procedure.
        min_accuracy: Minimum of the accuracy of the file on the validation images.
        max_latency: Maximum of the 90th percentile of one call with one image.
        max_bytes: Maximum size of the ONNX file.
        arch: Networks that compete; by default the registered small ones, at most 12.
        out: Folder of the bundle, the page, decision.json and commands.sh; by default shipped/<name of the images>.
        seed: Seed of the first run of each network; later runs count up from it.
        jobs: Parallel runs on this machine; by default one per core.
        executor: Where runs are trained: this machine, an existing Ray cluster, or Slurm (through submitit).
        executor_options: For ray: address, num_cpus, num_gpus, max_retries; for slurm submitit's, as timeout_min=60.
        format: How to print: text, or decision.json.

    Examples:
        cnnbench ship FOLDER --budget 30m
        cnnbench ship --dataset mnist5k --min-accuracy 98% --max-bytes 400kB
    """
    began = time.monotonic()  # before the imports, which take seconds
    from cnnbench.shipping.ship import ship as ship_images
    from cnnbench.sweeps.executors import parse_options

    with progress.display(budget, budget=True):
        decision = ship_images(
            folder,
            dataset=dataset,
            budget_seconds=budget,
            min_accuracy=min_accuracy,
            max_latency_ms=max_latency,
            max_bytes=max_bytes,
            arch=arch or (),
            out=out,
            seed=seed,
            executor=executor,
            jobs=jobs,
            options=parse_options(executor_options or []) or None,
            began=began,
        )
    place = Path(out) if out is not None else Path("shipped") / decision.images.name
    if format == "json":
        print(json.dumps(msgspec.to_builtins(decision), indent=2))
    else:
        for line in _lines(decision, place):
            print(one_line(line))
    if decision.chosen:
        say_next("classify", place / decision.chosen.bundle, "IMAGES", format=format)
    else:
        say_next("compare", place, format=format)
    if decision.interrupted:
        return Exit.INTERRUPTED
    return Exit.OK if decision.chosen else Exit.LIMITS


def _lines(decision: Decision, place: Path) -> Iterator[str]:
    from cnnbench.shipping.images import FEW

    chosen, images = decision.chosen, decision.images
    if chosen is None:
        nearest = f"; the nearest is {decision.nearest}: relax {decision.relax}" if decision.nearest else ""
        yield f"{decision.answer or decision.ended}{nearest}"
        for competitor in decision.competitors:
            yield f"  {competitor.arch}: {competitor.left}: {competitor.why}"
        yield f"why: {place / 'decision.json'}"
        return
    test = chosen.test
    ends = f"95 % interval {percent(chosen.test_low)} to {percent(chosen.test_high)}"
    right = f"{test.right:,} of {test.images:,}"
    yield f"network: {chosen.arch}, {chosen.epochs} epochs, seed {chosen.seed}, of {len(decision.competitors)} networks"
    yield f"file: {place / chosen.bundle / chosen.file} ({chosen.precision}, {count(chosen.bytes)} bytes)"
    yield f"test accuracy: {percent(test.accuracy)} ({right}; {ends}); validation {percent(chosen.val.accuracy)}"
    yield f"always answering {chosen.majority}: {percent(chosen.majority_share)}"
    if chosen.p50_ms is not None:
        p90 = "" if chosen.p90_ms is None else f", 90th percentile {milliseconds(chosen.p90_ms)} ms"
        yield f"latency of one image, one thread: median {milliseconds(chosen.p50_ms)} ms{p90}"
    yield f"why: {place / 'report.html'}, {place / 'decision.json'}; again: sh {place / 'commands.sh'}"
    if images.train + images.val + images.test < FEW:
        yield (
            "a network that was pretrained on other images would probably do better with so few; cnnbench trains from "
            "scratch"
        )
    yield f"without cnnbench: python {place / chosen.bundle / 'predict.py'} IMAGE"
