"""Which attributes of a file the evaluation in float64 does not compute: onnx's reference ignores some."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache

import onnx
from onnx import helper
from onnx.reference.op_run import OpFunction, OpRun

from cnnbench.bundles import contract
from cnnbench.types import CnnbenchError, Exit


def refuse_ignored(kernels: Iterable[OpRun]) -> None:
    """See that each operator is evaluated with all that it is given.

    Args:
        kernels: The operators of an evaluator, those within their graphs included.

    Raises:
        CnnbenchError: An attribute that the kernel never reads has another value than its default (exit 4).
    """
    for kernel in kernels:
        if isinstance(kernel, OpFunction):  # made of other operators, which are among `kernels`
            continue
        node = kernel.onnx_node
        for attribute in node.attribute:
            if attribute.name in ignored(node.op_type, type(kernel)) and not _is_default(node.op_type, attribute):
                raise CnnbenchError(
                    f"the ONNX file cannot be evaluated in float64: its {node.op_type} {node.name} has "
                    f"{attribute.name} {helper.get_attribute_value(attribute)!r}; expected none, since the evaluation "
                    "does not compute it",
                    Exit.VERDICT,
                )


@cache
def ignored(operator: str, kernel: type[OpRun]) -> frozenset[str]:
    """The attributes of an operator of the ONNX standard that the code of its kernel never names."""
    schema = onnx.defs.get_schema(operator, max_inclusive_version=contract.OPSET, domain="")
    own = kernel.__mro__[: kernel.__mro__.index(OpRun)]
    named = {name for part in own for name in _named(part)} | {*getattr(kernel, "read_elsewhere", ())}
    return frozenset(schema.attributes) - named


def _named(kernel: type) -> Iterator[str]:
    """Local names, names of its own attributes, and texts that the code of a class reads."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kernel)))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _is_default(operator: str, attribute: onnx.AttributeProto) -> bool:
    schema = onnx.defs.get_schema(operator, max_inclusive_version=contract.OPSET, domain="")
    default = schema.attributes[attribute.name].default_value
    if default.type == onnx.AttributeProto.UNDEFINED or attribute.ref_attr_name:
        return False
    return bool(helper.get_attribute_value(attribute) == helper.get_attribute_value(default))
