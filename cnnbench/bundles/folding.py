"""What is folded before a file is made: batch norm, parallel branches, what depends on parameters alone; in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from cnnbench.bundles.float64 import WIDER, InFloat64, widened

ATEN = torch.ops.aten
CONVOLUTIONS = {
    **dict.fromkeys((ATEN.conv1d.default, ATEN.conv2d.default, ATEN.conv3d.default), False),
    **dict.fromkeys((ATEN.conv1d.padding, ATEN.conv2d.padding, ATEN.conv3d.padding), False),
    **dict.fromkeys((ATEN.conv_transpose1d.default, ATEN.conv_transpose2d.input, ATEN.conv_transpose3d.input), True),
}
"""Operators whose weights can take up the batch norm behind them, and whether these lie transposed."""
REARRANGING = {
    *("permute", "transpose", "t", "numpy_T", "view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze"),
    *("expand", "contiguous", "clone", "detach", "alias", "lift_fresh", "lift_fresh_copy"),
}
"""Operators that compute nothing and keep every bit: the exporter may apply them to parameters."""
IDLE = {"dropout", "dropout_", "feature_dropout", "clone", "alias", "detach", "contiguous", "to", "_to_copy"}
"""Operators that leave their input as it is: dropout in evaluation mode, and casts to the type it has."""
PREFIX = "folded_"
"""Prefix of the buffers that `_fold` adds."""


class _Constants:
    """The nodes of a graph that depend on parameters alone, each with its value in float64."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.values: dict[fx.Node, Any] = {}
        self.computed: set[fx.Node] = set()
        """Those that are not a parameter's own bits, put in another order."""
        self.read: dict[tuple[fx.Node, fx.Node], Any] = {}
        """What a node that depends on the input finds in one of these: later it may be written in place."""
        changed: set[fx.Node] = set()
        for node in module.graph.nodes:
            now = self._changed_by(node)
            changed |= now
            if now and not self._depends_on_these_alone(node):  # what depends on the input is written into them
                self._forget(now)
            self._evaluate(node)
        self._forget(changed)  # batch norm is not folded into what has several values

    def _evaluate(self, node: fx.Node) -> None:
        if node.op == "get_attr":
            value = _attribute(self.module, str(node.target))
            if isinstance(value, Tensor):
                self.values[node] = widened(value.detach())
        elif not self._depends_on_these_alone(node):
            self.read |= {
                (source, node): self.values[source] for source in node.all_input_nodes if source in self.values
            }
        else:
            args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), self.values.__getitem__)
            with InFloat64():  # type: ignore[no-untyped-call]
                self.values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
            if (
                operator_name(node) not in REARRANGING
                or not node.all_input_nodes
                or self.computed & {*node.all_input_nodes}
            ):
                self.computed.add(node)

    def _depends_on_these_alone(self, node: fx.Node) -> bool:
        if node.op != "call_function" or "val" not in node.meta or _is_random(node):
            return False
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return False
        return all(source in self.values for source in node.all_input_nodes)

    def _changed_by(self, node: fx.Node) -> set[fx.Node]:
        """What shares the memory that `node` writes in place; copies of it are kept for those that have read it."""
        changed: set[fx.Node] = set()
        for target in _written(node):
            changed |= {other for other, value in self.values.items() if _share(value, self.values.get(target))}
        before = {id(self.values[other]): self.values[other].clone() for other in changed}
        self.read = {key: before.get(id(value), value) for key, value in self.read.items()} if before else self.read
        self.computed |= changed
        return changed

    def _forget(self, nodes: set[fx.Node]) -> None:
        for node in nodes:
            self.values.pop(node, None)

    def register(self, value: Tensor, *, before: fx.Node) -> fx.Node:
        """A new buffer, and the node that reads it."""
        name = f"{PREFIX}{sum(key.startswith(PREFIX) for key, _ in self.module.named_buffers())}"
        self.module.register_buffer(name, value.contiguous())
        with self.module.graph.inserting_before(before):
            node = self.module.graph.get_attr(name)
        node.meta["val"] = value
        self.values[node] = value
        return node


def fold(module: fx.GraphModule) -> int:
    """Fold batch norms, add up parallel convolutions, evaluate what depends on parameters alone; in place, in float64.

    Returns how many batch norms were folded.
    """
    _spell_out(module)
    constants = _Constants(module)
    folded = 0
    for node in list(module.graph.nodes):
        layer = _layer_before(node) if node.target is ATEN.batch_norm.default else None
        if layer is not None and (weights := _folded_weights(node, layer, values=constants.values)):
            weight, bias = (constants.register(value, before=layer) for value in weights)
            layer.args = (layer.args[0], weight, bias, *layer.args[3:])
            node.replace_all_uses_with(layer)
            module.graph.erase_node(node)
            folded += 1
    for node in list(module.graph.nodes):
        if node.target in ADDITIONS:
            folded += _merge_branches(_without_zeros(node), constants)
    for node in [node for node in module.graph.nodes if node in constants.computed]:
        _replace_by_constants(node, constants)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return folded


def _spell_out(module: fx.GraphModule) -> None:
    """Leave out assertions, and write what operators take by default or convert: an epsilon, bounds as floats."""
    for node in list(module.graph.nodes):
        if node.target is ATEN._assert_tensor_metadata.default:  # a use of its input that computes nothing
            module.graph.erase_node(node)
        elif node.target is ATEN.rms_norm.default and (len(node.args) < 4 or node.args[3] is None):
            node.args = (*node.args[:3], *[None] * (3 - len(node.args)), torch.finfo(torch.float32).eps)
        elif node.target is ATEN.scaled_dot_product_attention.default and node.kwargs.get("scale") is None:
            size = node.args[0].meta["val"].shape[-1]
            if isinstance(size, int):  # a number like any other, and rounded like them
                node.kwargs = {**node.kwargs, "scale": size**-0.5}
        elif node.target in CLAMPS and node.meta["val"].is_floating_point():  # the exporter takes no pair of both kinds
            image, *bounds = node.args
            node.args = (image, *(float(bound) if isinstance(bound, int) else bound for bound in bounds))


CLAMPS = (ATEN.clamp.default, ATEN.clamp_.default)


def _replace_by_constants(node: fx.Node, constants: _Constants) -> None:
    """Let each node that depends on the input read what it finds in `node`, rounded once."""
    new: dict[int, fx.Node] = {}
    for user in list(node.users):
        value = constants.read.get((node, user))
        if not isinstance(value, Tensor) or value.dtype not in WIDER.values():
            continue
        if id(value) not in new:
            new[id(value)] = constants.register(value, before=node)
        user.replace_input_with(node, new[id(value)])


def _written(node: fx.Node) -> list[fx.Node]:
    """The inputs that an operator writes in place."""
    schema = getattr(node.target, "_schema", None)
    arguments = zip(schema.arguments, node.args, strict=False) if schema else []
    return [value for argument, value in arguments if argument.is_write and isinstance(value, fx.Node)]


def _share(one: Any, other: Any) -> bool:
    """Whether both are tensors over the same memory."""
    tensors = isinstance(one, Tensor) and isinstance(other, Tensor)
    return tensors and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _layer_before(node: fx.Node) -> fx.Node | None:
    """What the batch norm `node` normalises, past what leaves it as it is; None where something else reads it, too."""
    layer = node.args[0]
    while isinstance(layer, fx.Node) and len(layer.users) == 1:
        if not _is_idle(layer):
            return layer
        layer = layer.args[0]
    return None


def _folded_weights(node: fx.Node, layer: fx.Node, *, values: Mapping[fx.Node, Any]) -> tuple[Tensor, Tensor] | None:
    """Weight and bias, in float64, of `layer` with the batch norm `node` behind it folded in; None where it cannot.

    With y = W x + b, batch norm gives (y - mean) / sqrt(variance + eps) * gamma + beta: Jacob et al. 2018, Quantization
    and training of neural networks, arXiv:1712.05877, section 3.2.
    """
    _, gamma, beta, mean, variance, training, _, eps, *_ = node.args
    if training or mean is None or layer.target not in (*CONVOLUTIONS, ATEN.linear.default):
        return None
    _, weight, bias, *more = (*layer.args, None)[: max(len(layer.args), 3)]
    parts: list[Any] = [weight, bias, gamma, beta, mean, variance]
    if any(part is not None and part not in values for part in parts):
        return None
    weight, bias, gamma, beta, mean, variance = (None if part is None else values[part] for part in parts)
    fused: tuple[Tensor, Tensor]
    if layer.target in CONVOLUTIONS:
        transposed = CONVOLUTIONS[layer.target]
        groups: Any = more[3] if transposed and len(more) > 3 else 1
        if groups != 1:  # turned so that output channels are the first axis, as of any other convolution
            turned = _grouped(weight, groups)
            fused = fuse_conv_bn_weights(turned, bias, mean, variance, eps, gamma, beta)  # type: ignore[arg-type]
            return _grouped(fused[0], groups).detach(), fused[1].detach()
        fused = fuse_conv_bn_weights(weight, bias, mean, variance, eps, gamma, beta, transposed)  # type: ignore[arg-type]
    elif layer.target is ATEN.linear.default and layer.meta["val"].ndim == 2:
        fused = fuse_linear_bn_weights(weight, bias, mean, variance, eps, gamma, beta)  # type: ignore[arg-type]
    else:
        return None
    return fused[0].detach(), fused[1].detach()


def _grouped(weight: Any, groups: int) -> Tensor:
    """Weights `(inputs, outputs / groups, ...)` of a grouped transposed convolution to `(outputs, ...)`, and back."""
    parts: list[Tensor] = [part.transpose(0, 1) for part in weight.chunk(groups)]
    return torch.cat(parts)


@dataclass(frozen=True)
class _Branch:
    """A convolution of a sum, or a batch norm read as one of a single pixel; weights in float64."""

    node: fx.Node
    images: fx.Node
    weight: Tensor
    bias: Tensor
    stride: tuple[int, ...]
    groups: int


def _without_zeros(node: fx.Node) -> fx.Node:
    """The sum `node` without summands that are a branch and 0: Python's `sum`, and `out = 0; out += x`.

    Other sums with 0 are copies, into which `node` may write, or make numbers of truth values.
    """
    for source in node.all_input_nodes:
        if source.target in ADDITIONS and len(source.users) == 1 and source.args[1] == 0 and not source.kwargs:
            summand = source.args[0]
            if isinstance(summand, fx.Node) and summand.target in BRANCHES and len(summand.users) == 1:
                source.replace_all_uses_with(summand)
                source.graph.erase_node(source)
    return node


def _merge_branches(node: fx.Node, constants: _Constants) -> int:
    """Replace the sum `node` of two convolutions of the same images by one, where they have the same centre.

    The networks that are trained with parallel branches: Ding et al. 2021, RepVGG, arXiv:2101.03697, section 3.3.
    Returns how many batch norms went into it.
    """
    sources = [source for source in node.args if isinstance(source, fx.Node)]
    if len(sources) != 2 or node.kwargs or sources[0] is sources[1]:
        return 0
    convolutions = [_as_convolution(source, constants.values) for source in sources]
    groups = next((branch.groups for branch in convolutions if branch), 1)
    branches = [
        branch or _as_identity(source, constants.values, groups)
        for branch, source in zip(convolutions, sources, strict=True)
    ]
    if not any(convolutions) or not branches[0] or not branches[1]:
        return 0
    small, large = sorted(  # a batch norm has no weights to write into
        (branches[0], branches[1]),
        key=lambda branch: (branch.weight.numel(), branch.node.target is ATEN.conv2d.default),
    )
    alike = [(b.images, b.stride, b.groups, *b.weight.shape[:2]) for b in (small, large)]
    grows = [b - a for a, b in zip(small.weight.shape[2:], large.weight.shape[2:], strict=True)]
    if alike[0] != alike[1] or min(grows) < 0 or large.node.target is not ATEN.conv2d.default:
        return 0
    around = [side for grow in reversed(grows) for side in (grow // 2, grow // 2)]
    weight = large.weight + nn.functional.pad(small.weight, around)
    added = [constants.register(value, before=large.node) for value in (weight, large.bias + small.bias)]
    large.node.args = (large.images, *added, *large.node.args[3:])
    node.replace_all_uses_with(large.node)
    node.graph.erase_node(node)
    node.graph.erase_node(small.node)
    return int(small.node.target is ATEN.batch_norm.default)


def _as_convolution(node: fx.Node, values: Mapping[fx.Node, Any]) -> _Branch | None:
    """A two-dimensional convolution whose output pixels lie at the centre of its kernel, and are used once."""
    if node.target is not ATEN.conv2d.default or len(node.users) != 1:
        return None
    arguments: list[Any] = [*node.args, *DEFAULTS[len(node.args) :]]
    images, weight, bias, stride, padding, dilation, groups = arguments
    if weight not in values or (bias is not None and bias not in values) or {*dilation} != {1}:
        return None
    kernel = values[weight]
    if any(side % 2 == 0 or side // 2 != pad for side, pad in zip(kernel.shape[2:], padding, strict=True)):
        return None
    offset = kernel.new_zeros(len(kernel)) if bias is None else values[bias]
    return _Branch(node, images, kernel, offset, tuple(stride), groups)


DEFAULTS = (None, None, None, (1, 1), (0, 0), (1, 1), 1)
"""Defaults of the arguments of a convolution."""
ADDITIONS = (ATEN.add.Tensor, ATEN.add_.Tensor)
BRANCHES = (ATEN.conv2d.default, ATEN.batch_norm.default)
"""What `_merge_branches` adds up."""


def _as_identity(node: fx.Node, values: Mapping[fx.Node, Any], groups: int) -> _Branch | None:
    """A batch norm of images, as the convolution of one pixel that scales each channel."""
    if node.target is not ATEN.batch_norm.default or len(node.users) != 1 or node.meta["val"].ndim != 4:
        return None
    arguments: list[Any] = [*node.args]
    images, gamma, beta, mean, variance, training, _, eps, *_ = arguments
    parts = [gamma, beta, mean, variance]
    if training or any(part not in values for part in parts):
        return None
    gamma, beta, mean, variance = (values[part] for part in parts)
    scale = gamma / torch.sqrt(variance + eps)
    channels = len(scale)
    weight = scale.new_zeros(channels, channels // groups, 1, 1)
    weight[torch.arange(channels), torch.arange(channels) % (channels // groups), 0, 0] = scale
    return _Branch(node, images, weight, beta - mean * scale, (1, 1), groups)


def _attribute(module: nn.Module, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value


def operator_name(node: fx.Node) -> str:
    """The operator's name without its library and overload."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2] if schema else getattr(node.target, "__name__", "")


def _is_idle(node: fx.Node) -> bool:
    """Whether a node returns its first input, value by value."""
    if node.op != "call_function" or operator_name(node) not in IDLE or not isinstance(node.args[0], fx.Node):
        return False
    if "dropout" in operator_name(node) and node.args[2]:  # in training mode
        return False
    value, source = node.meta.get("val"), node.args[0].meta.get("val")
    same = isinstance(value, Tensor) and isinstance(source, Tensor) and value.dtype == source.dtype
    users = (*node.users, *node.args[0].users)  # what one of them writes in place, a copy does not hold
    return same and not any("!" in str(getattr(user.target, "_schema", "")) for user in users)


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
