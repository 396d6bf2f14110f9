"""Whether a network of others can be trained and scored by the recipe: tried on random images before the first epoch.

Networks of ours are held to the same by a test, and are not tried again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from cnnbench import environment, records
from cnnbench.analysis.cost import cost
from cnnbench.architectures import architecture, build
from cnnbench.cache import cache_folder
from cnnbench.records.schema import NetworkChecks
from cnnbench.training.sources import sources, version_of
from cnnbench.types import COST_SPEC, SEED, CnnbenchError, Exit, ImageSpec, Terminated, first_line

IMAGES = 4
"""In a batch: more than one, so that an answer can depend on the others."""

REPEATED = 17
"""How often the images are repeated in a large batch, for one of more than 64."""

ROUNDING = 8 * torch.finfo(torch.float32).eps
"""What may differ between two calls of the same shape, in parts of the largest logit; most differ by nothing."""

ROUNDING_ELSEWHERE = 1e-4
"""The same for an image at another place, or in a batch of another size, which sums in another order."""

TRIED = 2
"""Version of these checks: a network that passed an earlier one is tried again."""

Check = Callable[[str, ImageSpec], tuple[str, ...]]


def check_once(arch: str, spec: ImageSpec, *, more: Check | None = None) -> NetworkChecks:
    """Try a network, or recall what was found when it was: once per source, images and version of torch.

    Args:
        arch: The architecture.
        spec: The images.
        more: A further check, which returns warnings.

    Raises:
        CnnbenchError: See `check_network`.
    """
    known = cache_folder("checks") / f"{_key(arch, spec, more)}.json"
    try:
        return msgspec.json.decode(known.read_bytes(), type=NetworkChecks)
    except (OSError, msgspec.MsgspecError):  # not tried yet
        pass
    warnings = list(check_network(arch, spec))
    if more is not None:
        warnings += more(arch, spec)
    checks = NetworkChecks(warnings=tuple(warnings))
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        with records.replacing(known) as partial:
            partial.write_bytes(msgspec.json.encode(checks))
    except (OSError, CnnbenchError):  # it is tried again next time
        pass
    return checks


def check_network(arch: str, spec: ImageSpec) -> tuple[str, ...]:
    """Try a network in training and in evaluation; returns what its user should know, a line each.

    Raises:
        CnnbenchError: It has lazy modules, returns something else than one finite logit per class, or cannot be trained
            or restored from a checkpoint (exit 2); or the network is not a function of the image (exit 4).
    """
    with _own_random_numbers():
        network = build(arch, spec)
        _refuse_lazy(arch, network)
        pixels = torch.rand(IMAGES, spec.channels, spec.height, spec.width)
        others = 1 - pixels / 4  # with other means and deviations
        labels = torch.arange(IMAGES) % spec.num_classes
        training_logits = _train_a_step(arch, network, pixels, labels, spec)
        logits = _evaluate(arch, network, pixels, others, spec)
        _refuse_dependence_on_the_batch(arch, network, pixels, logits, spec)
        _refuse_hidden_state(arch, network, pixels, logits, spec)
    return tuple(_softmax_warning(logits, training_logits) + _wrong_declarations(arch))


def _key(arch: str, spec: ImageSpec, more: Check | None) -> str:
    installed = {**environment.versions(), "cnnbench": metadata.version("cnnbench")}
    known_by = {
        "arch": arch,
        "spec": msgspec.to_builtins(spec),
        "sources": sources(arch),
        "versions": version_of(architecture, arch),
        "libraries": installed,
        "more": more.__name__ if more else "",
        "tried": TRIED,
    }
    return hashlib.sha256(msgspec.json.encode(known_by, order="sorted")).hexdigest()


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        yield


def _refuse_lazy(arch: str, network: nn.Module) -> None:
    lazy = [name for name, tensor in (*network.named_parameters(), *network.named_buffers()) if is_lazy(tensor)]
    if lazy:
        name = lazy[0].removeprefix("1.")
        raise CnnbenchError(f"{arch} has the lazy parameter {name}: give its layer the size of its input")


def _train_a_step(arch: str, network: nn.Module, pixels: Tensor, labels: Tensor, spec: ImageSpec) -> Tensor:
    """One step of SGD, so that a head that begins with zeros does not hide what the layers before it do.

    Returns:
        The logits in training mode.
    """
    mode = f"in training mode on {spec.size} images"
    network.train()
    with _failures_of(arch, mode):
        logits: Tensor = network(pixels)
    _check_logits(arch, logits, mode, spec)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not trained:
        raise CnnbenchError(f"{arch} has no parameter to train")
    with _failures_of(arch, f"in the backward pass on {spec.size} images"):
        F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    if not gradients:
        raise CnnbenchError(f"{arch} has no parameter that its output depends on")
    if not all(gradient.isfinite().all() for gradient in gradients):
        raise CnnbenchError(f"{arch} has gradients that are not finite, on {spec.size} images with pixels in [0, 1]")
    torch.optim.SGD(trained, lr=0.01).step()
    return logits.detach()


def _evaluate(arch: str, network: nn.Module, pixels: Tensor, others: Tensor, spec: ImageSpec) -> Tensor:
    """The logits of `pixels` `(IMAGES, C, H, W)`, found to be the same at every call."""
    mode = f"in evaluation mode on {spec.size} images"
    network.eval()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    mixed = torch.cat([pixels[:1], others[1:]])
    calls: list[Tensor] = []
    with torch.no_grad(), _failures_of(arch, mode):
        for batch in (pixels, pixels, others, pixels, mixed):
            calls.append(network(batch))
            _check_logits(arch, calls[-1], mode, spec)
        torch.manual_seed(SEED + 1)
        calls.append(network(pixels))
        _check_logits(arch, calls[-1], mode, spec)
    first, again, _, after_others, in_mixed, reseeded = calls
    for logits, how in (
        (again, "at a second call"),
        (reseeded, "with other random numbers"),
        (after_others, "after other images"),
        (in_mixed, "beside other images in the batch"),
    ):
        images = slice(0, 1) if logits is in_mixed else slice(None)
        _check_same(arch, first[images], logits[images], how)
    changed = [name for name, buffer in network.named_buffers() if not torch.equal(buffer, before[name])]
    if changed:
        raise CnnbenchError(
            f"{arch} is not a function of the image: it changes its buffer {changed[0].removeprefix('1.')} {mode}",
            Exit.VERDICT,
        )
    return first


def _refuse_dependence_on_the_batch(
    arch: str, network: nn.Module, pixels: Tensor, logits: Tensor, spec: ImageSpec
) -> None:
    """An image alone, at another place, and in a large batch must have the logits that it has among `pixels`."""
    places = torch.arange(IMAGES).roll(1)
    many = f"in a batch of {IMAGES * REPEATED} images"
    with torch.no_grad(), _failures_of(arch, f"in evaluation mode on another batch of {spec.size} images"):
        for batch, expected, how in (
            (pixels[places], logits[places], "at another place in the batch"),
            *((pixels[place : place + 1], logits[place : place + 1], "alone in the batch") for place in range(IMAGES)),
            (pixels.repeat(REPEATED, 1, 1, 1), logits.repeat(REPEATED, 1), many),
        ):
            found = network(batch)
            _check_logits(arch, found, "in evaluation mode", spec, images=len(batch))
            _check_same(arch, expected, found, how, rounding=ROUNDING_ELSEWHERE)


def _check_same(arch: str, logits: Tensor, others: Tensor, how: str, *, rounding: float = ROUNDING) -> None:
    difference = float((logits - others).abs().max())
    if not difference <= rounding * float(logits.abs().max()):
        raise CnnbenchError(
            f"{arch} is not a function of the image: {how} the logits of one image differ by {difference:.1e}",
            Exit.VERDICT,
        )


def _refuse_hidden_state(arch: str, network: nn.Module, pixels: Tensor, logits: Tensor, spec: ImageSpec) -> None:
    """A network that is built again and given the parameters and buffers of the first must answer the same."""
    torch.manual_seed(SEED + 2)
    rebuilt = build(arch, spec).eval()
    buffers = dict(network.named_buffers())
    with torch.no_grad(), _failures_of(arch, "when its parameters and buffers are restored"):
        rebuilt.load_state_dict(network.state_dict())
        for name, buffer in rebuilt.named_buffers():
            buffer.copy_(buffers[name])
        difference = float((rebuilt(pixels) - logits).abs().max())
    if not difference <= ROUNDING * float(logits.abs().max()):
        raise CnnbenchError(
            f"{arch} cannot be restored from a checkpoint: built again with the same parameters and buffers its logits "
            f"differ by {difference:.1e}; register every tensor that it draws as a parameter or as a buffer"
        )


def _check_logits(arch: str, logits: object, mode: str, spec: ImageSpec, *, images: int = IMAGES) -> None:
    expected = f"expected one tensor of logits ({images}, {spec.num_classes})"
    if not isinstance(logits, Tensor):
        raise CnnbenchError(f"{arch} returns a {type(logits).__name__} {mode}: {expected}")
    if logits.shape != (images, spec.num_classes):
        raise CnnbenchError(f"{arch} returns {tuple(logits.shape)} for a batch of {images} {mode}: {expected}")
    if logits.dtype != torch.float32:
        raise CnnbenchError(f"{arch} returns {str(logits.dtype).removeprefix('torch.')} {mode}: expected float32")
    if not logits.isfinite().all():
        raise CnnbenchError(f"{arch} returns logits that are not finite {mode} with pixels in [0, 1]")


def _softmax_warning(logits: Tensor, training_logits: Tensor) -> list[str]:
    advice = "are probabilities, a softmax before the loss: return raw logits, which train faster"
    if _are_probabilities(logits):
        return [f"its outputs {advice}"]
    return [f"its outputs in training mode {advice}"] if _are_probabilities(training_logits) else []


def _are_probabilities(logits: Tensor) -> bool:
    sums = logits.sum(dim=1)
    return logits.shape[1] > 1 and float(logits.min()) >= 0 and float((sums - 1).abs().max()) <= 1e-4


def _wrong_declarations(arch: str) -> list[str]:
    entry = architecture[arch]
    declared = {**entry.declared, **getattr(entry.load(), "declared", {})}
    stated = {key: declared[key] for key in ("params", "macs") if key in declared}
    if not stated:
        return []
    try:
        counted = cost(arch, COST_SPEC)
    except CnnbenchError:  # it does not take images of that size
        return []
    return [
        f"it declares {value:,} {key} for {COST_SPEC}; counted {getattr(counted, key):,}"
        for key, value in stated.items()
        if value != getattr(counted, key)
    ]


@contextmanager
def _failures_of(arch: str, mode: str) -> Iterator[None]:
    """Turn whatever a network raises into one line (exit 2)."""
    try:
        yield
    except (CnnbenchError, Terminated):
        raise
    except (Exception, SystemExit) as error:  # an exit would end the verb, and might look like success
        raise CnnbenchError(f"{arch} fails {mode}: {type(error).__name__}: {first_line(error)}") from None
