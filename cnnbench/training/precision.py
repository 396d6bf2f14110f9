"""Device and precision of training where the user leaves them open: CUDA, and bfloat16, where the hardware has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal[
    "auto", "32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16", "64-true", "64", "bf16-true", "16-true"
]
"""Lightning's names, and `auto`, which Lightning does not know."""

UNITS = ("amx_bf16", "avx512_bf16")
"""What a processor's instructions for bfloat16 are called; without one, bfloat16 is slower than float32."""


@dataclass(frozen=True)
class ResolvedPrecision:
    """A precision by Lightning's name, and why it was chosen."""

    name: str
    reason: str


def resolve_accelerator(accelerator: str) -> str:
    """What Lightning is asked for: `auto` is a CUDA device or the CPU.

    Lightning's own `auto` would also take Apple's GPU, on which nothing of ours was run.

    Args:
        accelerator: The value of --trainer.accelerator.
    """
    import torch  # not before `process.prepare`

    return "cpu" if accelerator == "auto" and not torch.cuda.is_available() else accelerator


def resolve_precision(precision: str, accelerator: str) -> ResolvedPrecision:
    """The precision to train in on this machine.

    `auto` is mixed precision (weights, their gradients and the sums of batch norm stay float32) with bfloat16 where the
    device multiplies it in hardware, else float32.

    Args:
        precision: The value of --trainer.precision.
        accelerator: The value of --trainer.accelerator.
    """
    if precision != "auto":
        return ResolvedPrecision(precision, "asked for")
    unit = bfloat16_unit(accelerator)
    if unit is None:
        return ResolvedPrecision("32-true", "auto: no bfloat16 in hardware")
    return ResolvedPrecision("bf16-mixed", f"auto: bfloat16 in hardware ({unit})")


def bfloat16_unit(accelerator: str) -> str | None:
    """What multiplies bfloat16 on the device that an accelerator stands for; None where nothing does."""
    import torch  # not before `process.prepare`

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "CUDA" if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if accelerator not in ("auto", "cpu") or (accelerator == "auto" and torch.backends.mps.is_available()):
        return None
    capabilities = torch.cpu.get_capabilities()
    return next((unit for unit in UNITS if capabilities.get(unit)), None)
