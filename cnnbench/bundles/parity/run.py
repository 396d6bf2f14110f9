"""The trial of every file of a bundle: what it is held against, the passes it must run, and the sentence."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from cnnbench.bundles.parity import comparison as verdict
from cnnbench.bundles.quantise import Precision
from cnnbench.records.schema import Contract, Pass, Reference, Share, Variant
from cnnbench.runtime import sandbox
from cnnbench.types import SEED, CnnbenchError, Exit

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.types import Split

NOISE_IMAGES = 4
PROVIDER_MEMORY = {"cpu": sandbox.MEMORY}  # a GPU's driver reserves address space without end


@dataclass(frozen=True)
class Yardstick:
    """PyTorch's logits `(N, num_classes)` of the test split, where its images lie as a .npy file, and a few of noise.

    Noise `(M, H, W, C)` uint8 reaches weights that no test image does: those of a border that is always black, say.
    """

    images: Path
    labels: np.ndarray
    logits: np.ndarray
    noise: np.ndarray
    noise_logits: np.ndarray
    reference: Reference


@contextmanager
def yardstick(network: nn.Module, test: Split, tested: np.ndarray | None = None) -> Iterator[Yardstick]:
    """What the files of a bundle are held against, computed once; its images are kept on disk meanwhile.

    Args:
        network: The trained network.
        test: The test split.
        tested: Its logits from `test`, if there are any; some are computed again to see that they are this network's.

    Raises:
        CnnbenchError: A logit is not finite, or `tested` is another network's (exit 3).
    """
    from cnnbench.bundles.parity.reference import float64_logits, torch_logits

    noise = noise_like(test.images)
    some = spread(len(test), verdict.GAUGE_IMAGES)
    gauge = np.concatenate([test.images[some], noise])
    if tested is None:
        logits, noise_logits = torch_logits(network, test.images), torch_logits(network, noise)
        found = np.concatenate([logits[some], noise_logits])
    else:
        logits, found = tested, torch_logits(network, gauge)
        noise_logits = found[len(some) :]
    largest = float(np.abs(np.concatenate([logits, found])).max())
    if not np.isfinite(largest):
        raise CnnbenchError(
            "the trained network returns logits that are not finite: there is nothing to export", Exit.DATA
        )
    error = float(np.abs(found - float64_logits(network, gauge)).max())
    bound = verdict.error_bound(error, largest)
    if not np.abs(logits[some] - found[: len(some)]).max() <= bound:
        raise CnnbenchError(
            "the logits that `test` left are not those of this checkpoint: run `cnnbench test` again", Exit.DATA
        )
    reference = Reference(
        images=len(test),
        correct=int((logits.argmax(1) == test.labels).sum()),
        logits_from="export" if tested is None else "test",
        float64_error=error,
        error_bound=bound,
    )
    with tempfile.TemporaryDirectory(prefix="cnnbench-") as folder:
        np.save(Path(folder) / "images.npy", test.images)
        yield Yardstick(Path(folder) / "images.npy", test.labels, logits, noise, noise_logits, reference)


def spread(count: int, chosen: int) -> np.ndarray:
    """Up to `chosen` of `count` places, evenly from first to last: a folder's images are sorted by class."""
    return np.unique(np.linspace(0, count - 1, min(count, chosen)).astype(np.int64))


def noise_like(images: np.ndarray) -> np.ndarray:
    """A few images `(M, H, W, C)` of uniform noise, always the same."""
    random = np.random.RandomState(SEED)
    return random.randint(0, 256, (NOISE_IMAGES, *images.shape[1:]), dtype=np.uint8)


def judge(
    precision: Precision,
    file: Path,
    contract: Contract,
    stated: dict[str, str],
    held_against: Yardstick,
    providers: list[str],
    budget_points: float,
    fp32: Path | None = None,
) -> tuple[Variant, dict[tuple[str, bool], verdict.Flips], np.ndarray]:
    """Try one file: every provider, graph optimisations off and on, all test images, several batch sizes.

    Args:
        precision: What the file is.
        file: The ONNX file; it is read alone in an empty folder, by a fresh process.
        contract: See `contract.signature`.
        stated: See `contract.metadata`.
        held_against: PyTorch's logits.
        providers: Short names, each usable.
        budget_points: Points of accuracy that a file of lower precision may lose.
        fp32: The file to race against, for the others.

    Returns:
        The variant, refused or not; the images that change class, by provider and whether optimised; and the logits
        `(N, num_classes)` of the first pass.

    Raises:
        CnnbenchError: The file cannot be read, run, or breaks the contract (exit 3 or 4).
    """
    passes, changed, results = [], {}, []
    for provider in providers:
        for found, flips, logits in _passes(file, contract, stated, held_against, provider):
            passes.append(found)
            changed[provider, found.optimized] = flips
            results.append(logits)
    lost = 100 * max(held_against.reference.correct - found.correct for found in passes) / held_against.reference.images
    rounds = _race(file, fp32, contract, held_against.images) if fp32 else {}
    medians = {name: float(np.median(times)) for name, times in rounds.items()}
    if precision == "fp32":
        refused = not_the_network(passes, held_against.reference)
    elif lost > budget_points + 1e-9:
        refused = f"loses {lost:.2f} points of accuracy; its budget is {budget_points:g}"
    elif precision == "int8" and not all(a < b for a, b in zip(rounds["it"], rounds["fp32"], strict=True)):
        refused = f"not faster on this machine: {medians['it']:.3f} ms against {medians['fp32']:.3f} ms of fp32"
    else:
        refused = ""
    variant = Variant(
        precision=precision,
        file=file.name,
        bytes=file.stat().st_size,
        refused=refused,
        budget_points=0.0 if precision == "fp32" else budget_points,
        lost_points=lost,
        latency_ms=medians.get("it"),
        fp32_latency_ms=medians.get("fp32"),
        passes=tuple(passes),
    )
    return variant, changed, results[0]


def _passes(
    file: Path, contract: Contract, stated: dict[str, str], held_against: Yardstick, provider: str
) -> Iterator[tuple[Pass, verdict.Flips, np.ndarray]]:
    """Both passes on one provider: optimised as by default, then not."""
    everything, some = len(held_against.labels), min(len(held_against.labels), verdict.BATCH_SIZE_IMAGES)
    with tempfile.TemporaryDirectory(prefix="cnnbench-") as out:
        asked: list[dict[str, Any]] = [
            {
                "provider": provider,
                "optimized": optimized,
                "images": str(held_against.images),
                "sizes": {size: everything if size == verdict.CHUNK else some for size in sizes},
                "profile": True,
            }
            for optimized, sizes in ((True, verdict.BATCH_SIZES), (False, (verdict.CHUNK,)))
        ]
        answers = sandbox.call(
            "cnnbench.bundles.parity.child:examine",
            {
                "model": str(file.absolute()),
                "contract": msgspec.to_builtins(contract),
                "stated": stated,
                "passes": asked,
                "out": out,
            },
            about=file.name,
            memory=PROVIDER_MEMORY.get(provider, 0),
        )
        for index, answer in enumerate(answers):
            logits = np.load(f"{out}/{index}-{verdict.CHUNK}.npy", allow_pickle=False)
            batch_errors = {}
            for size in asked[index]["sizes"]:
                first = np.load(f"{out}/{index}-{size}.npy", allow_pickle=False)[:some]
                batch_errors[str(size)] = verdict.errors(held_against.logits[:some], first).max_abs_error
            flips = verdict.flips(held_against.logits, logits, held_against.reference.error_bound)
            yield (
                Pass(
                    provider=provider,
                    active=answer["active"],
                    optimized=asked[index]["optimized"],
                    placement={name: Share(**share) for name, share in answer["placement"].items()},
                    correct=int((logits.argmax(1) == held_against.labels).sum()),
                    flips=flips.bugs,
                    rounding_flips=flips.rounding,
                    largest_margin=float(flips.margins[0]) if len(flips.margins) else 0.0,
                    **asdict(verdict.errors(held_against.logits, logits)),
                    batch_errors=batch_errors,
                ),
                flips,
                logits,
            )


def not_the_network(passes: Sequence[Pass], reference: Reference) -> str:
    """Why a float32 file is not the trained network; empty where it is."""
    for found in passes:
        error = max([found.max_abs_error, *found.batch_errors.values()])
        if found.flips or error > reference.error_bound:
            return (
                f"on {found.provider}, graph optimisations {'on' if found.optimized else 'off'}, {found.flips} of "
                f"{reference.images} images change class beyond rounding, largest logit error {error:.2g} "
                f"(bound {reference.error_bound:.2g})"
            )
    return ""


def _race(file: Path, fp32: Path, contract: Contract, images: Path) -> dict[str, list[float]]:
    models = {"fp32": str(fp32.absolute()), "it": str(file.absolute())}
    arguments = {"models": models, "dtype": contract.input.dtype, "images": str(images)}
    rounds: dict[str, list[float]] = sandbox.call("cnnbench.bundles.parity.child:race", arguments, about=file.name)
    return rounds
