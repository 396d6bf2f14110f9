"""The layers of a network in the order of execution, with shapes, receptive fields and costs.

One image runs through the network on the meta device while every tensor operation is observed, so a network needs no
particular form: modules, functions, branches and other libraries' classes are handled alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from string import ascii_lowercase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode  # the only import path that torch documents for it

from cnnbench.analysis.calls import Calls, running
from cnnbench.analysis.following import Step, follow
from cnnbench.analysis.layer import Call as CallOfTorch
from cnnbench.analysis.layer import Layer, Origin, tensors_in
from cnnbench.analysis.macs import FLOPS_PER_MAC, counter
from cnnbench.analysis.operators import POINTWISE, Call, both_steps, is_column_step, is_row_step, layer_of
from cnnbench.analysis.positions import Positions
from cnnbench.architectures import build
from cnnbench.architectures.handling import copy_network
from cnnbench.architectures.inference import MERGED, merge_branches
from cnnbench.types import CnnbenchError, ImageSpec, first_line


@dataclass(frozen=True)
class Traced:
    """A network and what it consists of."""

    network: nn.Module
    layers: list[Layer]
    """In the order of execution."""
    form: str = ""
    """Empty for the network as it was built; else `architectures.inference.MERGED`."""


def trace_architecture(arch: str, spec: ImageSpec) -> Traced:
    """The network `arch` on the meta device, and its layers; in its inference form where that has other layers.

    Raises:
        CnnbenchError: Unknown architecture, or a size it cannot take (exit 2).
    """
    with torch.device("meta"):  # it catches every call, and so slows what it is not needed for: tracing
        network = build(arch, spec)
    try:
        return _in_inference_form(network, trace(network, spec), spec)
    except (RuntimeError, NotImplementedError):  # a network of others that reads the values of tensors
        with torch.random.fork_rng(devices=[]):
            on_cpu = build(arch, spec)
        return _in_inference_form(on_cpu, trace(on_cpu, spec), spec)


def trace_copy(network: nn.Module, spec: ImageSpec) -> Traced:
    """A copy of a network, and its layers, in its inference form where that has others; the network is left as it is.

    Raises:
        CnnbenchError: It cannot take such an image (exit 2).
    """
    copy = copy_network(network)
    try:
        copy = copy.to("meta")
        return _in_inference_form(copy, trace(copy, spec), spec)
    except (RuntimeError, NotImplementedError):  # it may read the values of tensors
        pass
    try:
        copy = copy_network(network).cpu()
        return _in_inference_form(copy, trace(copy, spec), spec)
    except Exception as error:  # whatever a module raises for a shape that it cannot take
        raise CnnbenchError(f"{type(network).__name__} fails on an image of {spec.size}: {first_line(error)}") from None


def _in_inference_form(network: nn.Module, layers: list[Layer], spec: ImageSpec) -> Traced:
    """The network with its parallel branches merged, where that changes what it computes."""
    merged = merge_branches(network)
    if merged is not None:
        merged_layers = trace(merged, spec)
        if sum(layer.macs for layer in merged_layers) != sum(layer.macs for layer in layers):
            return Traced(merged, merged_layers, MERGED)
    return Traced(network, layers)


def trace(network: nn.Module, spec: ImageSpec) -> list[Layer]:
    """The layers of a network, in the order in which it runs them.

    On the meta device no arithmetic is done; a network that reads the values of tensors is traced on the CPU.
    """
    network.eval()  # batch norm in training mode refuses a single value per channel
    tracer = _run(network, spec)
    if tracer.products_on_constants:
        growing = _growing(tracer.products, _run(network, spec, images=2).products)
        tracer = _run(network, spec, per_image=growing)
    return _with_branches(tracer.layers)


def _run(network: nn.Module, spec: ImageSpec, *, images: int = 1, per_image: frozenset[int] = frozenset()) -> Tracer:
    """Run a batch through the network, observed by a tracer."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("meta"))
    pixels = torch.empty(images, spec.channels, spec.height, spec.width, device=device)
    if device.type != "meta":
        pixels.fill_(0.5)
    with ExitStack() as stack, torch.no_grad():
        for parameter in network.parameters():  # else torch's counter asks a view of one for its gradient function
            if parameter.requires_grad:
                stack.callback(parameter.requires_grad_, True)
                parameter.requires_grad_(False)
        path = stack.enter_context(running(network))
        # attention and recurrent layers as the products that they consist of, on the CPU as on the meta device
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(setattr, torch.backends.mkldnn, "enabled", torch.backends.mkldnn.enabled)
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
        flops = stack.enter_context(counter())
        tracer = Tracer(network, pixels, path, lambda: flops.get_total_flops() // FLOPS_PER_MAC, per_image)
        with Origins(path, tracer), tracer:
            network(pixels)
    return tracer


def _growing(one: Sequence[int], two: Sequence[int]) -> frozenset[int]:
    """Places of the products that take more for two images than for one."""
    if len(one) != len(two):
        return frozenset()
    return frozenset(place for place, (a, b) in enumerate(zip(one, two, strict=True)) if b > a)


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor that depends on the image."""

    source: int
    """Index of the layer that put it out; -1 is the image."""
    positions: Positions | None
    """What its positions read; None where that is not followed."""
    depth: int = 0


@dataclass(frozen=True)
class Work:
    """Multiply-adds, and elements that they put out."""

    macs: int = 0
    activations: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.macs + other.macs, self.activations + other.activations)


@dataclass
class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records each operation on what depends on the image.

    torch counts a multiply-add as two operations and only convolutions and matrix products; `macs` reads its counter,
    halved, which gives what papers print.
    """

    network: nn.Module
    pixels: Tensor
    path: list[str]
    """Names of the running modules, outermost first."""
    macs: Callable[[], int]
    per_image: frozenset[int]
    """Places in `products` of those that every image needs, although they read no image: a first recurrent step. Others
    that read no image are work on parameters alone, done once, and not counted."""
    layers: list[Layer] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.infos: dict[int, TensorInfo] = {id(self.pixels): TensorInfo(-1, Positions.of_image(self.pixels.shape))}
        self.derived_from: dict[int, frozenset[str]] = {}  # tensors computed from parameters alone: from which
        self.uncounted: dict[str, int] = {}  # elements of the parameters that no layer has counted yet
        for name, parameter in self.network.named_parameters():
            self.derived_from[id(parameter)] = frozenset([name])
            self.uncounted[name] = parameter.numel()
        self.products: list[int] = []  # multiply-adds of every operation that has any
        self.products_on_constants = False
        self.waiting: dict[int, Work] = {}  # done on a tensor that no layer has read yet
        self.alive: list[Tensor] = []  # an id names a tensor only while the tensor exists

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        macs_before = self.macs()
        result = func(*args, **(kwargs or {}))
        macs = self.macs() - macs_before
        outputs, inputs = list(tensors_in(result)), list(tensors_in((args, kwargs)))
        self.alive += outputs
        images = [tensor for tensor in inputs if id(tensor) in self.infos]
        work = self._work(macs, outputs, inputs, counts=bool(images))
        names = frozenset[str]().union(*(self.derived_from.get(id(tensor), frozenset()) for tensor in inputs))
        if images and outputs:  # a number that is read from a tensor is not a tensor
            step = Step(func, args, kwargs or {}, outputs, self.positions)
            call = Call(
                operator=func.overloadpacket.__name__.rstrip("_"),
                args=args,
                inputs=images,
                outputs=outputs,
                parameters=names,
                macs=work.macs,
                activations=work.activations,
                reads_image=self.infos[id(images[0])].source < 0,
            )
            positions = follow(step, [self.infos[id(tensor)].positions for tensor in images])
            info = self._record(call, positions[0])
            self.infos |= {
                id(output): replace(info, positions=reads) for output, reads in zip(outputs, positions, strict=True)
            }
        elif outputs and work.macs:
            self.waiting[id(outputs[0])] = work
        if names and not images:
            self.derived_from |= dict.fromkeys(map(id, outputs), names)
        return result

    def _work(self, macs: int, outputs: list[Tensor], inputs: list[Tensor], *, counts: bool) -> Work:
        """What an operation takes for each image, with what waits on its inputs."""
        work = Work()
        if macs:
            self.products_on_constants |= not counts
            if counts or len(self.products) in self.per_image:
                work = Work(macs, sum(output.numel() for output in outputs))
            self.products.append(macs)
        for tensor in inputs:
            work = work + self.waiting.pop(id(tensor), Work())
        return work

    def positions(self, tensor: Tensor) -> Positions | None:
        """What is known of a tensor that depends on the image; None of others."""
        info = self.infos.get(id(tensor))
        return info.positions if info else None

    def _record(self, call: Call, positions: Positions | None) -> TensorInfo:
        """Add a layer, or name the operation on the layer whose output it changes."""
        infos = [self.infos[id(tensor)] for tensor in call.inputs]
        merged = TensorInfo(infos[0].source, positions, max(info.depth for info in infos))
        draft = Layer(
            name="",
            kind="",
            input_shape=tuple(call.inputs[0].shape[1:]),
            output_shape=tuple(call.outputs[0].shape[1:]),
            field=positions.field if positions else None,
            jump=positions.jump if positions else (0, 0),
        )
        layer = layer_of(call, draft)
        if layer is None:
            self._fuse(merged.source, call)
            return merged
        sources = tuple(dict.fromkeys(info.source for info in infos))
        if sources == (len(self.layers) - 1,) and self._completes_subsampling(layer):
            rows = self.layers.pop()
            layer, sources = both_steps(rows, layer), rows.sources
        return self._add(replace(layer, sources=sources), call, merged)

    def _completes_subsampling(self, layer: Layer) -> bool:
        return bool(self.layers) and is_row_step(self.layers[-1]) and is_column_step(layer)

    def _add(self, layer: Layer, call: Call, merged: TensorInfo) -> TensorInfo:
        layer = replace(
            layer,
            name=self.path[-1] if self.path else "",
            params=self._claim(call.parameters),
            macs=call.macs,
            activations=call.activations,
            depth=merged.depth + (1 if layer.weights else 0),
        )
        self.layers.append(layer)
        return TensorInfo(len(self.layers) - 1, merged.positions, layer.depth)

    def _fuse(self, source: int, call: Call) -> None:
        """Name an operation on the layer whose output it changes, and count its parameters there."""
        if source < 0:
            return
        layer, word = self.layers[source], POINTWISE.get(call.operator)
        repeated = layer.fused_ops[-1:] == (word,)
        words = (*layer.fused_ops, word) if word and not repeated else layer.fused_ops
        self.layers[source] = replace(
            layer,
            fused_ops=words,
            params=layer.params + self._claim(call.parameters),
            macs=layer.macs + call.macs,
            activations=layer.activations + call.activations,
        )

    def _claim(self, names: frozenset[str]) -> int:
        """Elements of those parameters that no layer has counted yet."""
        return sum(self.uncounted.pop(name, 0) for name in names)


class Origins(Calls):
    """Notes on each layer the call that it is the result of."""

    def __init__(self, path: list[str], tracer: Tracer) -> None:
        super().__init__(path)
        self.tracer = tracer

    def called(self, call: CallOfTorch, func: Any, *, args: Any, kwargs: dict[str, Any]) -> Any:
        layers = self.tracer.layers
        before = len(layers)
        result = func(*args, **kwargs)
        if len(layers) > before and (tensor := next(tensors_in(result), None)) is not None:
            layers[-1] = replace(layers[-1], origin=_origin(call, self.tracer.positions(tensor)))
        return result


def _origin(call: CallOfTorch, positions: Positions | None) -> Origin:
    if positions is None:
        return Origin(call, None)
    rows, columns = positions.axes
    sides = (positions.dimension(0), positions.dimension(1))
    periods = (rows.period if rows else 1, columns.period if columns else 1)
    apart = (rows is None or sides[0] is not None) and (columns is None or sides[1] is not None)
    return Origin(call, sides if apart else (), periods)


def _with_branches(layers: list[Layer]) -> list[Layer]:
    """Name the branches after each fork; where they meet again, the name is that of the fork."""
    readers: dict[int, list[int]] = {}
    for index, layer in enumerate(layers):
        for source in layer.sources:
            readers.setdefault(source, []).append(index)
    names: dict[int, str] = {-1: ""}
    for index, layer in enumerate(layers):
        if len(layer.sources) > 1:
            names[index] = _common_prefix([names[source] for source in layer.sources])
            continue
        (source,) = layer.sources
        names[index] = names[source]
        if len(readers[source]) > 1:
            branches = [reader for reader in readers[source] if len(layers[reader].sources) == 1]
            names[index] += ascii_lowercase[branches.index(index) % len(ascii_lowercase)]
    return [replace(layer, branch=names[index]) for index, layer in enumerate(layers)]


def _common_prefix(names: list[str]) -> str:
    length = 0
    while all(len(name) > length and name[length] == names[0][length] for name in names):
        length += 1
    return names[0][:length]
