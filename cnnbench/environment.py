"""What a result depends on besides the code: versions, machine, threads, commit. Recorded with every result."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from cnnbench.records.schema import Commit, Environment
from cnnbench.types import Finding

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy")

MALWARE = ("2.6.2", "2.6.3")
"""Releases of lightning."""


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


def check_machine() -> list[Finding]:
    """The processor, the memory, and the threads and GPUs that torch uses."""
    import torch

    about, devices = describe(), gpus()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30 if hasattr(os, "sysconf") else 0.0
    threads = f"{torch.get_num_threads()} within an operator, {torch.get_num_interop_threads()} between operators"
    return [
        Finding("machine", f"{about.platform}, {about.cpu}, {about.cpu_count} CPUs, {memory:.0f} GiB"),
        Finding("threads", threads),
        Finding("GPU", ", ".join(devices) or "none that torch can use: training and export run on the CPU"),
    ]


def check_packages() -> list[Finding]:
    """Installed versions, and releases or combinations of them that do not work."""
    installed = versions()
    findings = [Finding("cnnbench", f"{metadata.version('cnnbench')}, Python {platform.python_version()}")]
    findings += [Finding("package", f"{name} {version}") for name, version in installed.items()]
    wheels = {name.lower() for name in metadata.packages_distributions().get("onnxruntime", [])}
    if {"onnxruntime", "onnxruntime-gpu"} <= wheels:
        fact = "onnxruntime and onnxruntime-gpu are both installed"
        remedy = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
        findings.append(Finding("onnxruntime", fact, f"they share a folder and overwrite each other: {remedy}"))
    if (version := installed.get("lightning", "")) in MALWARE:
        remedy = "this release was malware: remove it and rotate your credentials"
        findings.append(Finding("lightning", version, remedy))
    return findings
