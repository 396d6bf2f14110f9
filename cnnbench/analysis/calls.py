"""Calls of torch's functions, told apart alike in every run of a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from cnnbench.analysis.layer import Call


@contextmanager
def running(network: nn.Module) -> Iterator[list[str]]:
    """Names of the running modules, outermost first."""
    path: list[str] = []
    with ExitStack() as stack:
        for name, module in network.named_modules():
            enter = module.register_forward_pre_hook(lambda module, inputs, name=name: path.append(name))
            leave = module.register_forward_hook(lambda module, inputs, output: path.pop() and None)
            stack.callback(enter.remove)
            stack.callback(leave.remove)
        yield path


class Calls(TorchFunctionMode):
    """Numbers the calls of each function in each module; `called` sees them."""

    def __init__(self, path: list[str]) -> None:
        super().__init__()
        self.path = path
        self.counts: Counter[tuple[str, str]] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        place = (self.path[-1] if self.path else "", name)
        call = (*place, self.counts[place])
        self.counts[place] += 1
        return self.called(call, func, args=args, kwargs=kwargs or {})

    def called(self, call: Call, func: Any, *, args: Any, kwargs: dict[str, Any]) -> Any:
        """Do what the function does, and return its result."""
        return func(*args, **kwargs)
