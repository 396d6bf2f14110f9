"""The golden images through every file of a bundle: at every level of graph optimisation, at many batch sizes.

A graph can tell the levels apart, by a product that overflows unless two of its factors are merged, and batch sizes by
the shape of its input. Whoever deploys a bundle chooses both, so every level is run, and some batch sizes are drawn
when a bundle is verified: whoever made it cannot know them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cnnbench import records
from cnnbench.bundles.evidence import SECONDS, Check, CheckError, OpenBundle, arrays, failed
from cnnbench.bundles.parity import child, comparison
from cnnbench.bundles.parity import run as parity
from cnnbench.records.bundle import PrecisionFile
from cnnbench.runtime.providers import LEVELS, Level
from cnnbench.types import CnnbenchError, ImageSpec

EVERYWHERE = (1, 100)
"""Batch sizes at every level."""
DRAWN, DRAWN_ELSEWHERE = 3, 1
"""How many batch sizes are drawn for the level that is the default, and for each of the others."""


@dataclass(frozen=True)
class Answers:
    """Logits `(M, num_classes)` of golden images `rows`, at one batch size and level of graph optimisation."""

    level: Level
    size: int
    rows: np.ndarray
    logits: np.ndarray


def drawn(count: int, spec: ImageSpec) -> list[int]:
    """Batch sizes from the system's randomness, none of those that are always run."""
    most = 300 if spec.small else 100  # larger images take too much memory
    return sorted(secrets.SystemRandom().sample([*{*range(1, most + 1)} - {*comparison.BATCH_SIZES}], count))


def _passes(bundle: OpenBundle) -> Iterator[child.PassRequest]:
    """The passes of an export, then the levels between; each with the sizes that only `verify` runs."""
    spec = bundle.manifest.spec
    for level in LEVELS if bundle.backend == "onnxruntime" else LEVELS[:1]:  # OpenVINO has one
        sizes = {
            *parity.BY_LEVEL.get(level, ()),
            *EVERYWHERE,
            *drawn(DRAWN if level == LEVELS[0] else DRAWN_ELSEWHERE, spec),
        }
        yield child.PassRequest(level=level, sizes=dict.fromkeys(sorted(sizes), 0), profile=False)


def of_golden(bundle: OpenBundle, file: PrecisionFile) -> list[Answers]:
    """Logits of the golden images in every pass, from a separate process, which checks the file first.

    They are repeated, so that each batch size is filled.

    Raises:
        CheckError: The file is refused, or does not run.
    """
    pixels, passes = bundle.golden.pixels, [*_passes(bundle)]
    count = len(pixels)
    rows = np.resize(np.arange(count), max(count, *(size for each in passes for size in each.sizes)))
    filled = [records.replace(each, sizes={size: max(size, count) for size in each.sizes}) for each in passes]
    try:
        found = bundle.logits(file, pixels[rows], passes=filled, most=SECONDS)
    except CnnbenchError as error:
        raise CheckError("graph", str(error), error.code) from None
    return [
        Answers(each.level, size, rows[: len(logits)], logits)
        for each, by_size in zip(passes, found, strict=True)
        for size, logits in by_size.items()
    ]


def check(bundle: OpenBundle, file: PrecisionFile, *, answers: list[Answers]) -> Check:
    """Logits of float32 against the reference network's; of lower precision against its own when it was exported.

    Raises:
        CheckError: They differ by more than rounding (exit 4), or golden.npz cannot be read (exit 3).
    """
    expected = _expected(bundle, file)
    kept = np.isfinite(expected).all(axis=1)
    if any(answer.logits.shape[1:] != expected.shape[1:] for answer in answers):
        raise failed("golden", f"golden.npz holds logits {expected.shape}, the graph gives {answers[0].logits.shape}")
    largest = float(np.abs(expected[kept]).max(initial=0))
    # other processors' kernels round 8-bit numbers elsewhere; the weights themselves are compared exactly
    bound = bundle.manifest.reference.error_bound if file.precision == "fp32" else comparison.LOOSEST_LOWER * largest
    if file.precision == "fp32" and not bound <= comparison.LOOSEST * largest:
        raise failed("golden", f"the manifest's error bound {bound:.2g} would hide another network")
    error = 0.0
    for answer in answers:
        own = float(np.abs(answer.logits - expected[answer.rows])[kept[answer.rows]].max(initial=0))
        if not own <= bound:
            raise failed(
                "golden",
                f"golden logits of {file.file} differ by {own:.2g} at batch {answer.size}, graph optimisations "
                f"{answer.level}; bound {bound:.2g}",
            )
        error = max(error, own)
    sizes = ", ".join(map(str, sorted({answer.size for answer in answers})))
    levels = ", ".join(dict.fromkeys(answer.level for answer in answers))
    return Check(
        "golden",
        f"{file.file}: {kept.sum()} images at batches {sizes}, graph optimisations {levels}, largest logit error "
        f"{error:.1e} (bound {bound:.1e})",
    )


def _expected(bundle: OpenBundle, file: PrecisionFile) -> np.ndarray:
    """Logits `(N, num_classes)` of the golden images; NaN where a file of lower precision has none to compare with."""
    golden = bundle.golden
    if file.precision == "fp32":
        return golden.logits
    (of_test,) = arrays("golden", bundle.path / "golden.npz", f"logits_{file.precision}")
    expected = np.full_like(golden.logits, np.nan)  # what is not of the test split is not compared
    if of_test.shape != expected[golden.places >= 0].shape:
        raise failed("golden", f"golden.npz holds logits {of_test.shape} of {file.file}")
    expected[golden.places >= 0] = of_test
    return expected
