"""The exact half of a verification: is the network a function of the image, and is the file that network? In float64.

docs/proof.md explains the questions; the third, whether a runtime computes the file in float32, is in `parity.run`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from cnnbench.architectures.handling import copy_network
from cnnbench.bundles import contract
from cnnbench.bundles.float64 import in_float64
from cnnbench.bundles.graph import Deployable, Exported
from cnnbench.bundles.parity import comparison, exact, weights
from cnnbench.bundles.program import ReferenceNetwork, other_types
from cnnbench.pixels import to_graph_input
from cnnbench.records.bundle import Proof
from cnnbench.types import SEED, CnnbenchError, Exit

ASKED_IMAGES = 4
"""Golden images on which the trained network is asked more than once; a dim and a gray one are asked, too."""
SECONDS = 60.0
LEAST_IMAGES = 8
"""After `SECONDS` no more images are evaluated, unless they are fewer than this."""


@dataclass(frozen=True)
class Proven:
    """The proof, and the logits `(N, num_classes)` float64 of the reference network on all golden images."""

    proof: Proof
    logits: np.ndarray


@dataclass(frozen=True)
class Asked:
    """Logits `(N, num_classes)` float64 of the trained network, and how far other ways to ask for them are off."""

    logits: np.ndarray
    error: float


def ask(trained: Deployable, images: np.ndarray, *, dtype: str) -> Asked:
    """See that the trained network is a function of the image, on the first golden images.

    Args:
        trained: The network with its preprocessing.
        images: The golden images `(N, H, W, C)` uint8.
        dtype: Type of its input: "uint8" or "float32".

    Raises:
        CnnbenchError: Its logits are not finite (exit 3); they depend on the call, or on other images of the batch
            (exit 4).
    """
    golden = images[:ASKED_IMAGES]
    # most images hold black and white: what a network takes from the least value of a batch shows beside a dim one
    dim, gray = golden[:1] // 2 + np.uint8(64), np.full_like(golden[:1], 128)
    inputs = torch.tensor(to_graph_input(np.concatenate([golden, dim, gray]), dtype))
    logits, error = _function_of_the_image(trained, inputs)
    return Asked(logits[: len(golden)], error)


def prove(exported: Exported, *, images: np.ndarray, dtype: str, asked: Asked | None = None) -> Proven:
    """Prove that the trained network is a function of the image, and that the float32 file is that network.

    Args:
        exported: The trained network, the reference network made from it, and the file.
        images: The golden images `(N, H, W, C)` uint8.
        dtype: Type of the graph's input: "uint8" or "float32".

    Raises:
        CnnbenchError: A logit is not finite (exit 3); the network is not a function of the image, the reference network
            is another function, or the file is not the reference network (exit 4).
    """
    reference = exported.reference
    inputs = to_graph_input(images, dtype)
    asked = asked or ask(exported.deployable, images, dtype=dtype)
    fold_error = comparison.relative(asked.logits, in_float64(reference.exact, torch.tensor(inputs[:ASKED_IMAGES])))
    if not fold_error <= comparison.EXACT:
        raise _refused(
            f"traced and folded, the network computes something else: the logits of torch.export's graph of it differ "
            f"from its own by {fold_error:.1e} of the largest, both in float64; expected at most {comparison.EXACT:g}"
        )
    floats, integers = reference.numbers()
    with _other_types_named(reference):
        accounts = weights.account(exported.model, reference.tensors(), floats=floats, integers=integers)
    rounded, size = _double(reference.rounded), max(comparison.EXACT_BATCHES)
    batches = [torch.tensor(inputs[start : start + size]) for start in range(0, len(inputs), size)]
    expected = np.concatenate([in_float64(rounded, batch) for batch in batches])
    if odd := np.flatnonzero(~np.isfinite(expected).all(axis=1)).tolist():
        raise CnnbenchError(
            f"the trained network returns logits that are not finite for the golden images {odd}: test images, noise, "
            "checkerboards, single pixels, all black, all white; see docs/proof.md",
            Exit.DATA,
        )
    with _other_types_named(reference):
        graph_error, evaluated = _graph_error(exported.model, accounts, inputs, expected)
    proof = Proof(
        function_error=asked.error,
        folded=reference.folded,
        fold_error=fold_error,
        graph_error=graph_error,
        graph_images=evaluated,
        graph_batches=tuple(sorted(comparison.EXACT_BATCHES)),
        constants=accounts.constants,
        literals=accounts.literals,
        control_flow=contract.has_control_flow(exported.model),
    )
    return Proven(proof, expected)


def _function_of_the_image(trained: nn.Module, inputs: Tensor) -> tuple[np.ndarray, float]:
    """Logits of the trained network in float64, and the largest relative difference between ways to ask for them.

    Raises:
        CnnbenchError: One is not finite (exit 3); they depend on the call, or on other images of the batch (exit 4).
    """
    network, other = (copy_network(trained).eval().double() for _ in range(2))
    others = inputs.flip(0).roll(1, 1)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        first = in_float64(network, inputs)
        before = {name: buffer.clone() for name, buffer in network.named_buffers()}  # the first call may build tables
        in_float64(network, others)
        later = in_float64(network, inputs)
        torch.manual_seed(SEED + 1)
        reseeded = in_float64(network, inputs)
        in_float64(other, others)  # whose first images are others
        second = in_float64(other, inputs)
        alone = np.concatenate([in_float64(network, inputs[index : index + 1]) for index in range(len(inputs))])
        turned = in_float64(network, inputs.flip(0))[::-1]
        beside = in_float64(network, torch.cat([others[:3], inputs[:1], others[:1]]))[3:4]
    if not np.isfinite(first).all():
        reason = "the trained network returns logits that are not finite: there is nothing to export"
        raise CnnbenchError(reason, Exit.DATA)
    largest = float(np.abs(first).max())
    between_calls = max(comparison.relative(first, logits) for logits in (later, reseeded, second))
    if not between_calls <= comparison.EXACT:
        raise _refused(
            f"the trained network is not a function of the image: its answers differ between two calls, by "
            f"{between_calls:.1e} of the largest logit"
        )
    if changed := [
        name for name, buffer in network.named_buffers() if name not in before or not torch.equal(buffer, before[name])
    ]:
        name = changed[0].removeprefix("network.1.")
        raise _refused(f"the trained network is not a function of the image: its answers change its buffer {name}")
    of_batch = max(
        comparison.relative(first, alone),
        comparison.relative(first, turned),
        comparison.relative(first[:1], beside, largest=largest),
    )
    if not of_batch <= comparison.EXACT:
        raise _refused(
            f"the trained network is not a function of the image: it mixes the images of a batch, which changes logits "
            f"by {of_batch:.1e} of the largest"
        )
    return first, max(between_calls, of_batch)


def _graph_error(
    model: onnx.ModelProto, accounts: weights.Accounts, inputs: np.ndarray, expected: np.ndarray
) -> tuple[float, int]:
    """The largest relative difference of the file in float64, and the images that it was evaluated on.

    Raises:
        CnnbenchError: It is more than `comparison.EXACT`, or the file cannot be evaluated (exit 4).
    """
    file = exact.InFloat64(model, literals=weights.by_rounding(accounts.literals), parameters=accounts.of_parameters)
    worst, evaluated, began, largest = 0.0, 0, time.monotonic(), float(np.abs(expected).max())
    for size, most in comparison.EXACT_BATCHES.items():
        for start in range(0, len(inputs) if most is None else min(most, len(inputs)), size):
            batch = slice(start, start + size)
            worst = max(worst, comparison.relative(expected[batch], file.logits(inputs[batch]), largest=largest))
            evaluated = max(evaluated, min(start + size, len(inputs)))
            if most is None and evaluated >= LEAST_IMAGES and time.monotonic() - began > SECONDS:
                break
    if not worst <= comparison.EXACT:
        raise _refused(
            f"the ONNX file is not the trained network: evaluated in float64 its logits differ by {worst:.1e} of the "
            f"largest; expected at most {comparison.EXACT:g}"
        )
    return worst, evaluated


@contextmanager
def _other_types_named(reference: ReferenceNetwork) -> Iterator[None]:
    """Say of a file that is refused where the network leaves float32: there no file can be what float64 computes."""
    try:
        yield
    except CnnbenchError as error:
        types = [f"{dtype} within {place}" for dtype, place in other_types(reference.traced).items()]
        if not types:
            raise
        said = f"{error}; the network computes in {', in '.join(types)}: keep it in float32"
        raise CnnbenchError(said, error.code) from None


def _double(module: nn.Module) -> nn.Module:
    return copy_network(module).double()


def _refused(reason: str) -> CnnbenchError:
    return CnnbenchError(reason, Exit.VERDICT)
