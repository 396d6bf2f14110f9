"""The reference network: the trained one as torch.export traces it, simplified in float64. A file must equal it.

torch's exporter would fold batch norm into convolutions in float32, and evaluate what depends on parameters alone in
float32: each folded weight is then off by up to 2.2 ulp, and nobody can say which change of a weight is rounding. Here
both are done in float64 and rounded once, before the exporter sees the network; what it writes can be compared bit by
bit.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from cnnbench.bundles.float64 import narrowed, widened, wider
from cnnbench.bundles.folding import fold, operator_name

LARGEST_BATCH = 65_536  # torch.export wants a bound; memory is the real one
ATEN = torch.ops.aten
DECOMPOSED = (ATEN.affine_grid_generator.default,)
"""Operators that the exporter takes apart into constants and sums: taken apart before it, their constants are ours."""


@dataclass(frozen=True)
class ReferenceNetwork:
    """The trained network with batch norm folded and what depends on parameters alone evaluated, as one graph.

    `exact` holds the results in float64; `rounded` holds each rounded once to float32, which is what a file must hold.
    """

    exact: fx.GraphModule
    rounded: fx.GraphModule
    program: torch.export.ExportedProgram
    """`rounded`, exported anew: what the ONNX exporter converts."""
    traced: torch.export.ExportedProgram
    """The trained network before anything was folded."""
    folded: int
    """Batch norms that were folded."""

    def tensors(self) -> dict[str, np.ndarray]:
        """Every float32 tensor of `rounded` by name; a complex one with its real and imaginary parts on a last axis."""
        constants = {name: value for name, value in self.program.constants.items() if isinstance(value, Tensor)}
        tensors = {**constants, **dict(self.rounded.named_buffers()), **dict(self.rounded.named_parameters())}
        real = {name: torch.view_as_real(t) if t.is_complex() else t for name, t in tensors.items()}
        return {name: t.detach().cpu().numpy() for name, t in real.items() if t.dtype == torch.float32}

    def numbers(self) -> tuple[list[float], set[int]]:
        """The floats that operators are given, each once, and the integers: arguments, and products of sizes."""
        floats: dict[float, None] = {}
        integers: set[int] = set()
        for node in (node for part in _parts(self.program.graph_module) for node in part.graph.nodes):
            value = node.meta.get("val")
            sizes = [size for size in value.shape if isinstance(size, int)] if isinstance(value, Tensor) else []
            products = (math.prod(some) for count in range(1, 5) for some in itertools.combinations(sizes, count))
            schema = getattr(node.target, "_schema", None)
            defaults = [argument.default_value for argument in schema.arguments] if schema else []
            for number in (*tree_leaves((node.args, dict(node.kwargs))), *defaults, *products):
                if type(number) is float:
                    floats[number] = None
                elif type(number) is int:
                    integers.add(number)
        return list(floats), integers

    @property
    def control_flow(self) -> bool:
        """Whether the network itself has branches or loops."""
        return any(isinstance(node.target, torch._ops.HigherOrderOperator) for node in self.traced.graph.nodes)


def reference_network(module: nn.Module, example: Tensor) -> ReferenceNetwork:
    """Trace `module` for any batch size, fold it in float64, and round once.

    Args:
        module: In evaluation mode, from one input to logits or to a tuple that begins with them.
        example: An input `(2, ...)`.

    Raises:
        Exception: Whatever torch.export or the network raises where it cannot be traced.
    """
    with torch.no_grad():
        traced = trace(module, example)
        graph = traced
        if any(node.target in DECOMPOSED for node in traced.graph.nodes):
            graph = traced.run_decompositions(torch._decomp.get_decompositions(DECOMPOSED))
        exact = graph.module(check_guards=False)
        as_traced = _code(exact)
        _widen_decomposed(exact)
        folded = fold(exact)
        rounded = _with(narrowed, exact)
        _round_literals(rounded)
        program = graph if _code(rounded) == as_traced else trace(rounded, example)
        return ReferenceNetwork(_with(widened, exact), rounded, program, traced, folded)


def trace(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """`module` as a graph for any number of images.

    A branch on the batch size would be frozen at more than one image: the file is compared at one image, too.
    """
    batch = torch.export.Dim("batch", min=2, max=LARGEST_BATCH)
    return torch.export.export(module, (example,), dynamic_shapes=({0: batch},))


def _round_literals(module: fx.GraphModule) -> None:
    """Round the numbers that operators are given to float32, as the file holds them; in place.

    Not those from which sizes follow: a scale of 1.3 rounded is below it.
    """
    for part in _parts(module):
        for node in part.graph.nodes:
            if node.op == "call_function" and not any(word in operator_name(node) for word in SIZING):
                node.args, node.kwargs = tree_map(_rounded, (node.args, dict(node.kwargs)))
        part.recompile()


def _parts(module: nn.Module) -> Iterator[fx.GraphModule]:
    """A graph, and those within it: branches, and regions of autocast."""
    return (part for part in module.modules() if isinstance(part, fx.GraphModule))


def _code(module: nn.Module) -> list[str]:
    return [part.code for part in _parts(module)]


SIZING = ("upsample", "arange", "linspace", "logspace", "range")
"""In the names of operators whose numbers say how large their result is."""


def _rounded(leaf: Any) -> Any:
    return float(np.float32(leaf)) if type(leaf) is float else leaf


def _widen_decomposed(module: fx.GraphModule) -> None:
    """Make what a decomposed operator computes from sizes alone in float64, as the operator itself does."""
    decomposed = {*map(str, DECOMPOSED)}
    for node in module.graph.nodes:
        made = str(node.meta.get("original_aten")) in decomposed and not node.all_input_nodes
        if made and "dtype" in node.kwargs:
            node.kwargs = {**node.kwargs, "dtype": wider(node.kwargs["dtype"])}
    module.recompile()


def _with(convert: Callable[[Tensor], Tensor], module: fx.GraphModule) -> fx.GraphModule:
    """A copy with every parameter and buffer converted. `Module.to(float64)` would drop imaginary parts."""
    copied: fx.GraphModule = copy.deepcopy(module)._apply(convert)  # type: ignore[no-untyped-call]
    return copied


def operator_places(program: torch.export.ExportedProgram, operator: str) -> Iterator[str]:
    """The modules in which a network calls an operator of ATen, such as `adaptive_max_pool2d`, by their paths."""
    for node in program.graph.nodes:
        if node.op == "call_function" and operator.startswith(
            operator_name(node)
        ):  # a functional form has a longer name
            yield from _place(node)


def original_operator(program: torch.export.ExportedProgram, operator: str) -> str:
    """The operator of a network that torch takes apart into `operator`, such as erfinv of erf_inv; itself if none."""
    own = [node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    for node in program.run_decompositions(torch._decomp.get_decompositions(own)).graph.nodes:
        original = getattr(node.meta.get("original_aten"), "_schema", None)
        if operator_name(node) == operator and original:
            return str(original.name.partition("::")[2])
    return operator


def other_types(program: torch.export.ExportedProgram) -> dict[str, str]:
    """Floating-point types but float32 in which a network computes from its input, each with a module that does."""
    found: dict[str, str] = {}
    varying: set[fx.Node] = set()
    for node in program.graph.nodes:
        if node.name in program.graph_signature.user_inputs or varying & {*node.all_input_nodes}:
            varying.add(node)
            dtype = getattr(node.meta.get("val"), "dtype", None)
            if dtype in (torch.float16, torch.bfloat16, torch.float64):
                found.setdefault(str(dtype).removeprefix("torch."), next(_place(node), "its forward pass"))
    return found


def _place(node: fx.Node) -> Iterator[str]:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if stack:
        path, kind = stack[-1]
        yield f"{path} ({getattr(kind, '__name__', str(kind).rpartition('.')[2])})"
