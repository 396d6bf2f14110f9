"""A network taken apart: its layers in the order of execution, with shapes, receptive fields and costs.

One image is sent through on the meta device while every tensor operation is watched, so a network needs no particular
form: modules, functions, branches and other libraries' classes are seen alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from cnnbench.types import ImageSpec

Sides = tuple[int, int]
"""Rows and columns."""

Field = Sides | Literal["image"] | None
"""Pixels seen by one output unit; "image" where a layer joins all positions, None behind attention (not followed)."""

POINTWISE = {
    "relu": "ReLU",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "gelu": "GELU",
    "silu": "SiLU",
    "hardtanh": "ReLU6",
    "hardswish": "Hardswish",
    "hardsigmoid": "Hardsigmoid",
    "leaky_relu": "LeakyReLU",
    "_softmax": "Softmax",
    "native_batch_norm": "BatchNorm",
    "_native_batch_norm_legit_no_training": "BatchNorm",
    "native_layer_norm": "LayerNorm",
    "native_group_norm": "GroupNorm",
}
"""Operations on each position by itself: named beside the layer whose output they change."""

POOLS = {"max_pool2d_with_indices": "max pool", "avg_pool2d": "average pool"}
PRODUCTS = {"addmm": "linear", "mm": "linear", "bmm": "matrix product", "baddbmm": "matrix product"}
JOINS = {"add": "add", "cat": "concatenate", "mul": "multiply", "maximum": "maximum", "stack": "stack"}
REDUCTIONS = {"mean": "global average pool", "amax": "global max pool", "_adaptive_avg_pool2d": "global average pool"}


@dataclass(frozen=True)
class Layer:
    """One step of a network: a convolution, a pooling, a matrix product, a sum or concatenation of branches.

    Shapes are without the batch. What works on each position alone (batch norm, ReLU) is named in `then` and its
    parameters are counted here.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    kernel: Sides | None = None
    stride: Sides | None = None
    padding: Sides | None = None
    groups: int = 1
    field: Field = None
    jump: Sides = (1, 1)
    """Pixels from one output unit's receptive field to the next one's."""
    branch: str = ""
    """Which way from a fork: a, b, ... in the order of execution; nested forks have several letters."""
    weights: int = 0
    params: int = 0
    macs: int = 0
    activations: int = 0
    depth: int = 0
    then: tuple[str, ...] = ()
    sources: tuple[int, ...] = ()
    """Places in the list of the layers that this one reads; -1 is the image."""

    @property
    def fully_connected(self) -> int | None:
        """Weights that a fully connected layer between the same two tensors would need."""
        return math.prod(self.input_shape) * math.prod(self.output_shape) if self.weights else None


def layers(network: nn.Module, spec: ImageSpec) -> list[Layer]:
    """The layers of a network that lives on the meta device, in the order in which it runs them."""
    network.eval()  # batch norm in training mode refuses a single value per channel
    pixels = torch.empty(1, spec.channels, spec.height, spec.width, device="meta")
    path: list[str] = []
    with ExitStack() as stack, torch.no_grad(), FlopCounterMode(display=False) as counter:
        for name, module in network.named_modules():
            enter = module.register_forward_pre_hook(lambda module, inputs, name=name: path.append(name))
            leave = module.register_forward_hook(lambda module, inputs, output: path.pop() and None)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        watch = Watch(network, pixels, path, lambda: counter.get_total_flops() // 2)
        with watch:
            network(pixels)
    return _with_branches(watch.layers)


@dataclass(frozen=True)
class State:
    """What is known of a tensor that depends on the image."""

    source: int
    field: Field = (1, 1)
    jump: Sides = (1, 1)
    depth: int = 0


@dataclass
class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation on what comes from the image.

    torch counts a multiply-add as two operations and only convolutions and matrix products; `macs` reads its counter,
    halved, which gives what papers print.
    """

    network: nn.Module
    pixels: Tensor
    path: list[str]
    """Names of the modules being run, outermost first."""
    macs: Callable[[], int]
    layers: list[Layer] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.states: dict[int, State] = {id(self.pixels): State(-1)}
        self.owned: dict[int, frozenset[str]] = {}  # a tensor made of parameters alone: which
        self.uncounted = {}
        for name, parameter in self.network.named_parameters():
            self.owned[id(parameter)] = frozenset([name])
            self.uncounted[name] = parameter.numel()
        self.alive: list[Any] = []  # an id means a tensor only as long as the tensor lives

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.macs()
        out = func(*args, **(kwargs or {}))
        macs = self.macs() - before
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.alive += outputs
        images = [tensor for tensor in inputs if id(tensor) in self.states]
        names = frozenset[str]().union(*(self.owned.get(id(tensor), frozenset()) for tensor in inputs))
        if images:
            state = self._noted(func._overloadpacket.__name__.rstrip("_"), args, images, outputs, names, macs)
            for tensor in outputs:
                self.states[id(tensor)] = state
        elif names:
            for tensor in outputs:
                self.owned[id(tensor)] = names
        return out

    def _noted(
        self, operation: str, args: Any, images: list[Tensor], outputs: list[Tensor], names: frozenset[str], macs: int
    ) -> State:
        """Add a layer, or say on the one before what was done to its output."""
        states = [self.states[id(tensor)] for tensor in images]
        state = _joined(states)
        layer = Layer(
            "", "", tuple(images[0].shape[1:]), tuple(outputs[0].shape[1:]), field=state.field, jump=state.jump
        )
        if operation == "convolution":
            weight, stride, padding, dilation, transposed, groups = args[1], *(args[i] for i in (3, 4, 5, 6, 8))
            kernel = _pair(weight.shape[2:])
            layer = _windowed(layer, "convolution", kernel, _pair(stride), _pair(padding), _pair(dilation))
            if transposed:  # spreads pixels, so its stride divides: not followed
                layer = replace(layer, kind="transposed convolution", field=None)
            layer = replace(layer, groups=groups, weights=weight.numel())
        elif operation in POOLS:
            kernel, stride, padding, dilation = (*args[1:], *[None] * 4)[:4]
            if operation == "avg_pool2d":
                dilation = 1
            layer = _windowed(
                layer,
                POOLS[operation],
                _pair(kernel),
                _pair(stride or kernel),
                _pair(padding or 0),
                _pair(dilation or 1),
            )
        elif operation in PRODUCTS:
            layer = _product(layer, operation, images, names)
        elif operation in REDUCTIONS and len(layer.input_shape) == 3:
            if layer.output_shape[1:] == layer.input_shape[1:]:  # adaptive pooling to the size there is
                return state
            if layer.output_shape[1:] in ((), (1, 1)):
                layer = replace(layer, kind=REDUCTIONS[operation], field="image")
            else:  # its windows differ in size and may overlap
                layer = replace(layer, kind="adaptive average pool", field=None)
        elif operation in JOINS and len({id(tensor) for tensor in images}) > 1:
            layer = replace(layer, kind=JOINS[operation])
        elif operation == "slice" and len(args) > 4 and args[4] > 1:
            step = (args[4], 1) if args[1] == 2 else (1, args[4])
            layer = _windowed(layer, "subsampling", (1, 1), step, (0, 0), (1, 1))
            follows = state.source == len(self.layers) - 1 >= 0 and self.layers[-1].kind == "subsampling"
            if follows and args[1] == 3 and (self.layers[-1].stride or step)[1] == 1:
                rows = self.layers.pop()  # first the rows, then the columns: one layer to a reader
                layer = replace(layer, input_shape=rows.input_shape, stride=(rows.stride or step)[:1] + step[1:])
                states = [replace(state, source=rows.sources[0])]
        elif operation == "constant_pad_nd" and layer.input_shape != layer.output_shape:
            layer = replace(layer, kind="zero padding")
        elif "attention" in operation:
            layer = replace(layer, kind="attention", field=None)
        elif state.source < 0 and names:
            layer = replace(layer, kind=POINTWISE.get(operation, operation))
        else:
            if state.source >= 0:
                self._then(state.source, POINTWISE.get(operation), names)
            return state
        return self._added(layer, names, macs, states)

    def _added(self, layer: Layer, names: frozenset[str], macs: int, states: list[State]) -> State:
        depth = max(state.depth for state in states) + (1 if layer.weights else 0)
        sources = tuple(dict.fromkeys(state.source for state in states))
        layer = replace(
            layer,
            name=self.path[-1] if self.path else "",
            params=self._claimed(names),
            macs=macs,
            activations=math.prod(layer.output_shape) if macs else 0,
            depth=depth,
            sources=sources,
        )
        self.layers.append(layer)
        return State(len(self.layers) - 1, layer.field, layer.jump, depth)

    def _then(self, place: int, word: str | None, names: frozenset[str]) -> None:
        layer = self.layers[place]
        words = (*layer.then, word) if word and layer.then[-1:] != (word,) else layer.then
        self.layers[place] = replace(layer, then=words, params=layer.params + self._claimed(names))

    def _claimed(self, names: frozenset[str]) -> int:
        """Elements of those parameters that no layer has counted yet."""
        return sum(self.uncounted.pop(name, 0) for name in names)


def _pair(value: Any) -> Sides:
    """Rows and columns of an operator's argument: a number, or a list of one or two."""
    values = list(value) if isinstance(value, list | tuple | torch.Size) else [value]
    return (int(values[0]), int(values[-1]))


def _joined(states: list[State]) -> State:
    """Of several tensors: the largest field (theory: a branch takes the largest over its paths)."""
    fields = [state.field for state in states]
    found: Field
    if None in fields:
        found = None
    elif "image" in fields:
        found = "image"
    else:
        sides = [seen for seen in fields if isinstance(seen, tuple)]
        found = (max(rows for rows, _ in sides), max(columns for _, columns in sides))
    jump = (max(state.jump[0] for state in states), max(state.jump[1] for state in states))
    return State(states[0].source, found, jump, max(state.depth for state in states))


def _windowed(layer: Layer, kind: str, kernel: Sides, stride: Sides, padding: Sides, dilation: Sides) -> Layer:
    """r += (k_eff - 1) * j, then j *= s, for rows and for columns (Araujo, Norris, Sim: Distill 2019)."""
    seen = layer.field
    if isinstance(seen, tuple):
        reach = [dilation[i] * (kernel[i] - 1) * layer.jump[i] for i in (0, 1)]
        seen = (seen[0] + reach[0], seen[1] + reach[1])
    jump = (layer.jump[0] * stride[0], layer.jump[1] * stride[1])
    return replace(layer, kind=kind, kernel=kernel, stride=stride, padding=padding, field=seen, jump=jump)


def _product(layer: Layer, operation: str, images: list[Tensor], names: frozenset[str]) -> Layer:
    """A matrix product: with weights it is a linear layer, between two activations it is attention's."""
    if not names:
        return replace(layer, kind=PRODUCTS[operation], field=None)
    rows, inputs = images[0].shape[-2:]
    layer = replace(layer, kind="linear", weights=inputs * layer.output_shape[-1])
    if rows > 1:  # the same layer at every position, as a 1x1 convolution
        return replace(layer, input_shape=(rows, inputs), output_shape=(rows, layer.output_shape[-1]))
    return replace(layer, field=layer.field and "image")


def _with_branches(layers: list[Layer]) -> list[Layer]:
    """Name the ways from each fork; where they meet again, the name is that of the fork."""
    readers: dict[int, list[int]] = {}
    for place, layer in enumerate(layers):
        for source in layer.sources:
            readers.setdefault(source, []).append(place)
    paths: dict[int, str] = {-1: ""}
    named = []
    for place, layer in enumerate(layers):
        if len(layer.sources) > 1:
            path = _common([paths[source] for source in layer.sources])
        else:
            source = layer.sources[0]
            ways = [reader for reader in readers[source] if len(layers[reader].sources) == 1]
            forks = len(readers[source]) > 1
            path = paths[source] + ("abcdefghijklmnopqrstuvwxyz"[ways.index(place) % 26] if forks else "")
        paths[place] = path
        named.append(replace(layer, branch=path))
    return named


def _common(paths: list[str]) -> str:
    """The longest beginning that all have."""
    length = 0
    while all(len(path) > length and path[length] == paths[0][length] for path in paths):
        length += 1
    return paths[0][:length]
