"""Which extra of the installation brings a package: who needs one that is not installed is told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from cnnbench.types import CnnbenchError, Exit

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": (
        *("torch", "torchvision", "lightning", "torchmetrics", "tensorboard", "mlxtend", "pynvml"),
        *("onnxscript", "onnxconverter_common", "safetensors"),
    ),
    "report": ("matplotlib", "adjustText", "altair", "pyarrow"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "timm": ("timm",),
    "ray": ("ray",),
    "slurm": ("submitit",),
    "openvino": ("openvino",),
    "audit": ("imagehash",),
}
"""Modules by the extra of pyproject.toml; what two extras bring stands in the one that is the smaller."""
EXTRA_OF = {module: extra for extra, modules in EXTRAS.items() for module in modules}


class AbsentError(CnnbenchError):
    """A package that an extra brings is not installed.

    Args:
        who: What needs it.
        module: The package's module.
    """

    def __init__(self, who: str, module: str) -> None:
        super().__init__(f"{who} needs {module}: pip install 'cnnbench[{EXTRA_OF[module]}]'", Exit.ENVIRONMENT)


def absent(who: str, error: BaseException) -> AbsentError | None:
    """The error to show for one that a missing package of an extra raised; None for any other.

    A module that its package lacks, and a package of no extra, say that something is installed wrongly.
    """
    module = error.name if isinstance(error, ModuleNotFoundError) else None
    return AbsentError(who, module) if module in EXTRA_OF else None


@contextmanager
def told(who: str) -> Iterator[None]:
    """Raises AbsentError for a missing package of an extra (exit 6)."""
    try:
        yield
    except ModuleNotFoundError as error:
        if known := absent(who, error):
            raise known from None
        raise


def require(who: str, module: str) -> None:
    """Raises AbsentError where the package of a module is not installed (exit 6), without importing it."""
    if find_spec(module) is None:
        raise AbsentError(who, module)
