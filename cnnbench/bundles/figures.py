"""Figures and words of a manifest that no export can have written, whatever the network is."""

from __future__ import annotations

import re
from collections import Counter

from cnnbench.analysis import selective
from cnnbench.bundles.evidence import failed
from cnnbench.bundles.parity import comparison
from cnnbench.bundles.parity import run as parity
from cnnbench.records.bundle import Manifest, Pass, PrecisionFile, Threshold
from cnnbench.runtime.providers import PROVIDERS

LICENCE = re.compile(r"[A-Za-z0-9.+-]{1,64}")
"""What an SPDX identifier is made of: https://spdx.github.io/spdx-spec/v3.0.1/annexes/spdx-license-expressions/."""


def check(manifest: Manifest) -> None:
    """Refuse figures that cannot be.

    Raises:
        CheckError: One cannot be (exit 4).
    """
    for right, claim in _of_manifest(manifest):
        _require(right, claim)
    for offered in manifest.thresholds:
        for right, claim in _of_threshold(offered, manifest):
            _require(right, f"of the threshold {offered.threshold:g} {claim}")
    for file in manifest.variants:
        for right, claim in _of_file(file):
            _require(right, f"of {file.file} {claim}")
        for figures in file.passes:
            name = f"{file.file} on {figures.provider}, graph optimisations {'on' if figures.optimized else 'off'}"
            for right, claim in _of_pass(figures, manifest.reference.images):
                _require(right, f"of {name} {claim}")


def _require(right: bool, claim: str) -> None:
    if not right:
        raise failed("manifest", f"the manifest claims {claim}")


def _of_manifest(manifest: Manifest) -> tuple[tuple[bool, str], ...]:
    """Whether each claim of the whole can be, and how it is told where it cannot."""
    run, reference, cost, licence = manifest.run, manifest.reference, manifest.cost, manifest.licence
    precisions, fitted = [file.precision for file in manifest.variants], manifest.calibration
    return (
        (len({*precisions}) == len(precisions), "two files of one precision"),
        (manifest.data.test_images == reference.images, f"{reference.images} test images, and another number of them"),
        (0 <= reference.correct <= reference.images, f"{reference.correct} of {reference.images} images right"),
        (not reference.tf32, "TF32, which is off on every provider"),
        (reference.logits_from in ("test", "export"), f"logits from {reference.logits_from[:40]!r}"),
        (
            0 <= comparison.BOUND_FACTOR * reference.float64_error <= reference.error_bound,
            f"an error of {reference.float64_error:g} from float64, and a bound of {reference.error_bound:g}",
        ),
        (run.epochs >= 1, f"{run.epochs} epochs"),
        (min(cost.params, cost.macs, cost.activations, cost.depth) >= 0, "a cost below 0"),
        (manifest.proof.folded >= 0, f"{manifest.proof.folded} folded batch norms"),
        (_is_followed(manifest), "its own preprocessing, which predict.py would not follow"),
        (manifest.data.preprocessing in (None, manifest.preprocessing), "two preprocessings"),
        (
            fitted is None or (fitted.split, fitted.images) == ("val", manifest.data.val_images),
            "probabilities calibrated on other images than those of validation",
        ),
        (
            fitted is None or all(0 <= error <= 1 for error in (fitted.ece_before or 0.0, fitted.ece_after or 0.0)),
            "a calibration error that is not a fraction",
        ),
        (
            list(manifest.thresholds) == sorted(manifest.thresholds, key=lambda offered: offered.level)
            and len({offered.level for offered in manifest.thresholds}) == len(manifest.thresholds),
            "thresholds in another order than their levels",
        ),
        (licence is None or bool(LICENCE.fullmatch(licence)), f"the licence {(licence or '')[:80]!r}: expected SPDX's"),
    )


def _of_threshold(offered: Threshold, manifest: Manifest) -> tuple[tuple[bool, str], ...]:
    val, test = offered.val, offered.test
    of_splits = ((val, manifest.data.val_images), (test, manifest.reference.images))
    return (
        (0 < offered.threshold <= 1, "that it is a probability"),
        (offered.level in selective.LEVELS, f"the level {offered.level:g}"),
        (
            all(0 <= answered.correct <= answered.images <= images for answered, images in of_splits),
            "more images than there are",
        ),
        (
            val.images >= selective.LEAST_ANSWERED and val.correct >= offered.level * val.images,
            f"that {val.correct} of {val.images} validation images reach {offered.level:g}",
        ),
    )


def _is_followed(manifest: Manifest) -> bool:
    chosen = manifest.preprocessing
    if chosen is None:
        return True
    levels = 0 <= chosen.background <= 255 and 0 <= chosen.border <= 255
    return levels and 0 <= chosen.shift <= 8 and manifest.spec.channels == {"L": 1, "RGB": 3}[chosen.mode]


def _of_file(file: PrecisionFile) -> tuple[tuple[bool, str], ...]:
    levels = Counter((figures.provider, figures.optimized) for figures in file.passes)
    providers = {provider for provider, _ in levels}
    times = [time for time in (file.latency_ms, file.fp32_latency_ms) if time is not None]
    timed = len(times) == (0 if file.precision == "fp32" else 2) or not file.passes
    return (
        (
            levels == dict.fromkeys(((provider, level) for provider in providers for level in (True, False)), 1),
            "other passes than one with graph optimisations and one without, on each provider",
        ),
        (timed and all(time > 0 for time in times), "times that are none"),
        (0 <= file.budget_points <= 100, f"a budget of {file.budget_points:g} points"),
        (-100 <= file.lost_points <= 100, f"a loss of {file.lost_points:g} points"),
        (file.clamped >= 0, f"{file.clamped} weights at the limit"),
    )


def _of_pass(figures: Pass, images: int) -> tuple[tuple[bool, str], ...]:
    active = PROVIDERS[figures.provider][0] if figures.provider in PROVIDERS else "none"
    sizes = {str(size) for size in parity.BY_LEVEL["on" if figures.optimized else "off"]}
    absolute, relative = (
        (figures.max_abs_error, figures.p999_abs_error),
        (figures.max_rel_error, figures.p999_rel_error),
    )
    shares = [share for found in figures.placement.values() for share in (found.nodes, found.time)]
    own = {active} <= {*figures.placement} and (figures.provider != "cpu" or len(figures.placement) == 1)
    changed = figures.flips + figures.rounding_flips
    return (
        (figures.active == active, f"that {figures.active[:40]} ran it; expected {active}"),
        (own and all(0 <= share <= 1 for share in shares), "shares of providers that cannot be"),
        (min(figures.correct, figures.flips, figures.rounding_flips) >= 0, "a number of images below 0"),
        (max(figures.correct, changed) <= images, f"more than the {images} test images"),
        (figures.largest_margin >= 0 and (changed > 0 or not figures.largest_margin), "a margin that no image has"),
        (_ordered(*absolute), f"a largest error of {absolute[0]:g}, and {absolute[1]:g} within it"),
        (_ordered(*relative), f"a largest relative error of {relative[0]:g}, and {relative[1]:g} within it"),
        ({*figures.batch_errors} == sizes, "errors at other batch sizes than an export runs"),
        (min(figures.batch_errors.values(), default=0) >= 0, "an error below 0"),
    )


def _ordered(largest: float, quantile: float) -> bool:
    return 0 <= quantile <= largest * (1 + 1e-6)  # a quantile is interpolated
