"""The verification of every file of a bundle: PyTorch's logits, the passes of ONNX Runtime, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnbench import records
from cnnbench.bundles.parity import child, comparison
from cnnbench.records.bundle import Contract, Pass, Precision, PrecisionFile, Reference
from cnnbench.runtime import sandbox
from cnnbench.runtime.providers import Level
from cnnbench.types import CnnbenchError, Exit

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.bundles.parity.golden import Golden
    from cnnbench.types import Dataset

BY_LEVEL: dict[Level, tuple[int, ...]] = {"on": comparison.BATCH_SIZES, "off": (comparison.CHUNK,)}
"""Levels of graph optimisation of the passes, and the batch sizes of each."""
PROVIDER_MEMORY = {"cpu": sandbox.MEMORY}  # a GPU's driver reserves address space without end


@dataclass(frozen=True)
class ReferenceLogits:
    """PyTorch's float32 logits `(N, num_classes)` of the test and the validation split, their images in .npy files."""

    images: Path
    labels: np.ndarray
    logits: np.ndarray
    summary: Reference
    val_images: Path
    val_labels: np.ndarray
    val_logits: np.ndarray

    @property
    def val_correct(self) -> int:
        """Images of the validation split that PyTorch classifies correctly."""
        return int((self.val_logits.argmax(1) == self.val_labels).sum())


@dataclass(frozen=True)
class Candidate:
    """A file to verify.

    Args:
        precision: What the file is.
        file: The ONNX file; it is read alone in an empty folder, by a fresh process.
        contract: The contract of its graph.
        metadata: The metadata it must have; see `contract.metadata`.
        control_flow: Whether the network itself has branches or loops.
        temperature: By which the logits are divided before the softmax.
    """

    precision: Precision
    file: Path
    contract: Contract
    metadata: dict[str, str]
    control_flow: bool = False
    temperature: float = 1.0


@dataclass(frozen=True)
class PassOutcome:
    """One pass over the test split: its figures, the images that change class, and its logits `(N, num_classes)`."""

    figures: Pass
    flips: comparison.Flips
    logits: np.ndarray


@dataclass(frozen=True)
class FileOutcome:
    """A verified file, kept or refused, its passes, and its classes of the validation images `(N,)`."""

    record: PrecisionFile
    passes: tuple[PassOutcome, ...]
    val_predictions: np.ndarray


@contextmanager
def reference_logits(
    network: nn.Module, data: Dataset, *, golden: Golden, exact: np.ndarray, tested: np.ndarray | None = None
) -> Iterator[ReferenceLogits]:
    """PyTorch's logits, computed once; within the context the images are kept on disk.

    Args:
        network: The trained network.
        data: The images that it was trained and tested on.
        golden: Some images of the test split, and others.
        exact: Logits of these in float64.
        tested: Logits of the test split from `test`, if there are any; some are computed again to see that they are
            this network's.

    Raises:
        CnnbenchError: A logit is not finite, or `tested` is another network's (exit 3); float32 is too little for the
            network (exit 4).
    """
    from cnnbench.bundles.parity.reference import torch_logits

    logits = torch_logits(network, data.test.images) if tested is None else tested
    computed = torch_logits(network, golden.pixels)
    largest = float(np.abs(np.concatenate([logits, computed])).max())
    if not np.isfinite(largest):
        raise CnnbenchError(
            "the trained network returns logits that are not finite: there is nothing to export", Exit.DATA
        )
    error = float(np.abs(computed - exact).max())
    bound = comparison.error_bound(error, largest)
    if bound > comparison.LOOSEST * largest:
        raise CnnbenchError(
            f"PyTorch's float32 logits differ by {error / largest:.1e} of the largest from those in float64: the "
            "network needs more than float32, or it is another one",
            Exit.VERDICT,
        )
    of_test = golden.places >= 0
    if not np.abs(logits[golden.places[of_test]] - computed[of_test]).max() <= bound:
        raise CnnbenchError(
            "the logits that `test` left are not those of this checkpoint: run `cnnbench test` again", Exit.DATA
        )
    _require_same_in_large_batches(network, data.test.images, logits, bound=bound)
    summary = Reference(
        images=len(data.test),
        correct=int((logits.argmax(1) == data.test.labels).sum()),
        logits_from="export" if tested is None else "test",
        float64_error=error,
        error_bound=bound,
    )
    with records.temporary_folder() as folder:
        files = {name: Path(folder) / f"{name}.npy" for name in ("test", "val")}
        np.save(files["test"], data.test.images)
        np.save(files["val"], data.val.images)
        yield ReferenceLogits(
            files["test"],
            data.test.labels,
            logits,
            summary,
            files["val"],
            data.val.labels,
            torch_logits(network, data.val.images),
        )


def _require_same_in_large_batches(network: nn.Module, images: np.ndarray, logits: np.ndarray, *, bound: float) -> None:
    """A network that answers otherwise in large batches is found here: the proof in float64 asks in small ones.

    Raises:
        CnnbenchError: It does (exit 4).
    """
    from cnnbench.bundles.parity.reference import torch_logits

    size = max(comparison.BATCH_SIZES)
    together = torch_logits(network, images[:size], size=size)
    difference = float(np.abs(together - logits[:size]).max())
    if not difference <= bound:
        raise CnnbenchError(
            f"the trained network is not a function of the image: in a batch of {len(together)} its logits differ by "
            f"{difference:.2g} from those in small ones (bound {bound:.2g})",
            Exit.VERDICT,
        )


def verify_file(
    candidate: Candidate,
    reference: ReferenceLogits,
    *,
    providers: Sequence[str],
    max_accuracy_loss: float,
    fp32: Path | None = None,
) -> FileOutcome:
    """Verify one file: every provider, graph optimisations on and off, all test images, several batch sizes.

    A file of lower precision is run on the validation split, too, whose accuracy decides: the test split is read, and
    chooses nothing.

    Args:
        candidate: The file, with its contract and metadata.
        reference: PyTorch's logits.
        providers: Short names, each usable.
        max_accuracy_loss: Points of accuracy on the validation split that a file of lower precision may lose.
        fp32: The float32 file, for one of lower precision: both are timed in turn.

    Raises:
        CnnbenchError: The file cannot be read, run, or breaks the contract (exit 3 or 4).
    """
    passes = [outcome for name in providers for outcome in _run_passes(candidate, reference, name)]
    race = _race(candidate, fp32, reference.images) if fp32 else None
    if race is None:
        refused = refusal([outcome.figures for outcome in passes], reference.summary)
        predictions, lost = reference.val_logits.argmax(1), 0.0
    else:
        by_pass = [_val_predictions(candidate, reference, name) for name in providers]
        predictions = by_pass[0][0]
        correct = [int((row == reference.val_labels).sum()) for rows in by_pass for row in rows]
        lost = points_lost(reference.val_correct, correct, images=len(reference.val_labels))
        refused = refusal_of_lower(lost, max_accuracy_loss)
    record = PrecisionFile(
        precision=candidate.precision,
        file=candidate.file.name,
        bytes=candidate.file.stat().st_size,
        refused=refused,
        budget_points=0.0 if candidate.precision == "fp32" else max_accuracy_loss,
        lost_points=lost,
        test_lost_points=points_lost(
            reference.summary.correct,
            [outcome.figures.correct for outcome in passes],
            images=reference.summary.images,
        ),
        latency_ms=float(np.median(race.candidate)) if race else None,
        fp32_latency_ms=float(np.median(race.fp32)) if race else None,
        passes=tuple(outcome.figures for outcome in passes),
    )
    return FileOutcome(record, tuple(passes), predictions)


def points_lost(reference: int, correct: Sequence[int], *, images: int) -> float:
    """Points of accuracy (percent) that the worst of some passes loses to PyTorch, by images that are right."""
    return 100 * (reference - min(correct)) / images


def refusal(passes: Sequence[Pass], reference: Reference) -> str:
    """Why a float32 file is not the trained network; empty where it is."""
    for figures in passes:
        error = max([figures.max_abs_error, *figures.batch_errors.values()])
        if figures.flips or error > reference.error_bound:
            return (
                f"on {figures.provider}, graph optimisations {'on' if figures.optimized else 'off'}, {figures.flips} "
                f"of {reference.images} images change class beyond rounding, largest logit error {error:.2g} "
                f"(bound {reference.error_bound:.2g})"
            )
    return ""


def loses_too_much(lost_points: float, max_accuracy_loss: float) -> bool:
    """Whether a file of lower precision loses more points of accuracy than it may."""
    return lost_points > max_accuracy_loss + 1e-9


def refusal_of_lower(lost: float, max_accuracy_loss: float) -> str:
    """Why a file of lower precision is not kept; empty where it is. A slower one may still be wanted for its size."""
    if loses_too_much(lost, max_accuracy_loss):
        return f"loses {lost:.2f} points of accuracy on validation; at most {max_accuracy_loss:g} are accepted"
    return ""


def examine(request: child.Examination, *, about: str, seconds: float | None = None) -> tuple[child.PassAnswer, ...]:
    """`child.examine` in a separate process; see `sandbox.call`."""
    return sandbox.call(
        child.examine,
        request,
        about=about,
        reads=[request.model, request.images],
        writes=[request.out],
        seconds=seconds,
        memory=PROVIDER_MEMORY.get(request.provider, 0),
        devices=request.provider != "cpu",
    )


def pass_requests(count: int, *, few: int, profile: bool = False) -> tuple[child.PassRequest, ...]:
    """The passes that a file is judged by: graph optimisations on at every batch size, then off.

    Args:
        count: Images at the batch size that is run in full.
        few: Images at each of the others.
        profile: Whether to say which provider ran which nodes.
    """
    return tuple(
        child.PassRequest(
            level=level,
            sizes={size: count if size == comparison.CHUNK else few for size in sizes},
            profile=profile,
        )
        for level, sizes in BY_LEVEL.items()
    )


def _examined(
    candidate: Candidate, images: Path, *, provider: str, passes: tuple[child.PassRequest, ...]
) -> list[tuple[child.PassAnswer, dict[int, np.ndarray]]]:
    """Answer of each pass, and the logits by batch size."""
    with records.temporary_folder() as out:
        request = child.Examination(
            model=str(candidate.file.absolute()),
            contract=candidate.contract,
            metadata=candidate.metadata,
            provider=provider,
            images=str(images),
            passes=passes,
            out=out,
            control_flow=candidate.control_flow,
            temperature=candidate.temperature,
        )
        answers = examine(request, about=candidate.file.name)
        return [
            (answer, {size: np.load(f"{out}/{index}-{size}.npy", allow_pickle=False) for size in passes[index].sizes})
            for index, answer in enumerate(answers)
        ]


def _run_passes(candidate: Candidate, reference: ReferenceLogits, provider: str) -> list[PassOutcome]:
    """Both passes on one provider: optimised as by default, then not."""
    count = len(reference.labels)
    requests = pass_requests(count, few=min(count, comparison.BATCH_SIZE_IMAGES), profile=True)
    examined = _examined(candidate, reference.images, provider=provider, passes=requests)
    return [
        _compare(reference, by_size, answer, provider=provider, optimized=request.level == "on")
        for request, (answer, by_size) in zip(requests, examined, strict=True)
    ]


def _val_predictions(candidate: Candidate, reference: ReferenceLogits, provider: str) -> list[np.ndarray]:
    """Classes of the validation images on one provider, graph optimisations on and off."""
    sizes = {comparison.CHUNK: len(reference.val_labels)}
    passes = tuple(child.PassRequest(level=level, sizes=sizes, profile=False) for level in BY_LEVEL)
    examined = _examined(candidate, reference.val_images, provider=provider, passes=passes)
    return [by_size[comparison.CHUNK].argmax(1) for _, by_size in examined]


def _compare(
    reference: ReferenceLogits,
    by_size: Mapping[int, np.ndarray],
    answer: child.PassAnswer,
    *,
    provider: str,
    optimized: bool,
) -> PassOutcome:
    """Compare the logits of a pass, `(N, num_classes)` by batch size, with PyTorch's."""
    logits = by_size[comparison.CHUNK]
    first = slice(comparison.BATCH_SIZE_IMAGES)
    batch_errors = {
        str(size): comparison.errors(reference.logits[first], values[first]).max_abs_error
        for size, values in by_size.items()
    }  # each size against PyTorch, and so against batch 1
    flips = comparison.flips(reference.logits, logits, bound=reference.summary.error_bound)
    figures = Pass(
        provider=provider,
        active=answer.active,
        optimized=optimized,
        placement=answer.placement,
        correct=int((logits.argmax(1) == reference.labels).sum()),
        flips=flips.beyond_rounding,
        rounding_flips=flips.rounding,
        largest_margin=float(flips.margins[0]) if len(flips.margins) else 0.0,
        **asdict(comparison.errors(reference.logits, logits)),
        batch_errors=batch_errors,
    )
    return PassOutcome(figures, flips, logits)


def _race(candidate: Candidate, fp32: Path, images: Path) -> child.Race:
    request = child.RaceRequest(
        candidate=str(candidate.file.absolute()),
        fp32=str(fp32.absolute()),
        dtype=candidate.contract.input.dtype,
        images=str(images),
    )
    reads = [request.candidate, request.fp32, request.images]
    return sandbox.call(child.race, request, about=candidate.file.name, reads=reads)
