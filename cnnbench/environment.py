"""What a result depends on besides the code: versions, machine, threads, commit. Recorded with every result."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from cnnbench.records.schema import Commit, Environment

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy")


def describe() -> Environment:
    """Versions, machine and commit."""
    torch = sys.modules.get("torch")  # its threads are only known, and only matter, once it is loaded
    return Environment(
        cnnbench=metadata.version("cnnbench"),
        python=platform.python_version(),
        packages=versions(),
        platform=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(),
        cpu_count=os.cpu_count(),
        threads=torch.get_num_threads() if torch else None,
        gpus=tuple(gpus()) if torch else None,
        git=commit(),
    )


def versions() -> dict[str, str]:
    """Installed versions of the packages that a result depends on."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def cpu_name() -> str:
    """The processor's marketing name on Linux, elsewhere its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def gpus() -> list[str]:
    """Names of the CUDA devices that torch can use."""
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def commit() -> Commit | None:
    """Commit of cnnbench's checkout and whether its tree was dirty; None for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return Commit(head, bool(_git(root, "status", "--porcelain")))
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return result.stdout.strip()
