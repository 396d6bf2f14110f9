"""A network evaluated in float64, with the constants that it has in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

WIDER = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}


class InFloat64(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it every operator computes in float64, also where a network asks for float32 by name.

    A constant that a forward pass makes in float32 is rounded as it is there and widened afterwards, so that its value
    stays that of the network.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not tensors:
            return tree_map(widened, func(*args, **kwargs))
        args, kwargs = tree_map(wider, (args, kwargs))
        with _default_dtype(torch.float64):  # of a quotient of integers, or of one and a number
            return tree_map(widened, func(*args, **kwargs))


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def wider(leaf: Any) -> Any:
    """A floating-point dtype as float64, a complex one as complex128; anything else as it is."""
    return WIDER.get(leaf, leaf) if isinstance(leaf, torch.dtype) else leaf


def widened(leaf: Any) -> Any:
    """A tensor of floating point in float64, a complex one in complex128; anything else as it is."""
    return leaf.to(WIDER[leaf.dtype]) if isinstance(leaf, Tensor) and leaf.dtype in WIDER else leaf


def narrowed(tensor: Tensor) -> Tensor:
    """A tensor of floating point rounded to float32, a complex one to complex64; anything else as it is."""
    if tensor.is_complex():
        return tensor.to(torch.complex64)
    return tensor.float() if tensor.is_floating_point() else tensor


def in_float64(module: nn.Module, inputs: Tensor) -> np.ndarray:
    """Logits `(N, num_classes)` float64 of `module`, whose parameters are float64."""
    with torch.no_grad(), _limits_of_float32(), InFloat64():  # type: ignore[no-untyped-call]
        logits = module(widened(inputs))
    result: np.ndarray = (logits[0] if isinstance(logits, tuple) else logits).numpy()
    return result


class _OwnEpsilon(TorchFunctionMode):
    """An RMS norm without an epsilon takes that of float32, as the trained network does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") == "rms_norm" and (args[3:] or (kwargs.get("eps"),)) == (None,):
            args, kwargs = args[:3], {**kwargs, "eps": torch.finfo(torch.float32).eps}
        return func(*args, **kwargs)


@contextmanager
def _limits_of_float32() -> Iterator[None]:
    """What a network asks of its dtype's limits is answered for float32, in which it was trained."""
    limits = torch.finfo

    def finfo(dtype: torch.dtype | None = None) -> torch.finfo:
        return limits(torch.float32 if dtype in (None, torch.float64) else dtype)

    with mock.patch.object(torch, "finfo", finfo), _OwnEpsilon():
        yield
