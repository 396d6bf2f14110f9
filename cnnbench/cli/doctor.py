"""`doctor`: what this machine has, what works, and what is wrong."""

from __future__ import annotations

import json as json_module
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from cnnbench import datasets, environment
from cnnbench.datasets.choice import data_root, load
from cnnbench.types import Exit


@dataclass(frozen=True)
class Finding:
    """One fact. `wrong` says what to do about it, and is empty where all is well."""

    topic: str
    fact: str
    wrong: str = ""


def doctor(json: bool = False) -> int:
    """Print versions, CPU, threads, GPUs, usable ONNX Runtime providers and data; exit 6 if something is broken.

    Args:
        json: Print the findings as one JSON document.
    """
    findings = [*_machine(), *_packages(), *_torch(), *_providers(), *_data()]
    if json:
        print(json_module.dumps([vars(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.topic:14} {finding.fact}")
        wrong = [finding for finding in findings if finding.wrong]
        print("".join(f"\nWRONG {finding.topic}: {finding.wrong}" for finding in wrong) or "\nNothing is wrong.")
    return Exit.ENVIRONMENT if any(finding.wrong for finding in findings) else Exit.OK


def _machine() -> list[Finding]:
    about = environment.describe()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30 if hasattr(os, "sysconf") else 0.0
    return [
        Finding("cnnbench", f"{about.cnnbench}, Python {about.python}"),
        Finding("machine", f"{about.platform}, {about.cpu}, {about.cpu_count} CPUs, {memory:.0f} GiB"),
    ]


def _packages() -> list[Finding]:
    found = [Finding("package", f"{name} {version}") for name, version in environment.versions().items()]
    both = {name.lower() for name in metadata.packages_distributions().get("onnxruntime", [])}
    if {"onnxruntime", "onnxruntime-gpu"} <= both:
        remedy = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
        fact = "onnxruntime and onnxruntime-gpu are both installed"
        found.append(Finding("onnxruntime", fact, f"they share a folder and the second breaks the first: {remedy}"))
    if (version := environment.versions().get("lightning", "")) in ("2.6.2", "2.6.3"):
        found.append(Finding("lightning", version, "this release was malware: remove it and rotate your credentials"))
    return found


def _torch() -> list[Finding]:
    import torch

    gpus = environment.gpus()
    return [
        Finding("threads", f"{torch.get_num_threads()} within an operator, {torch.get_num_interop_threads()} between"),
        Finding("GPU", ", ".join(gpus) if gpus else "none that torch can use: training and export run on the CPU"),
    ]


def _providers() -> list[Finding]:
    from cnnbench.runtime import providers

    found = []
    for name, reason in providers.usable().items():
        # a machine without a GPU is not broken; one whose GPU ONNX Runtime cannot use is
        broken = reason and (name == "cpu" or bool(environment.gpus()))
        found.append(Finding(f"provider {name}", reason or "works", reason if broken else ""))
    return found


def _data() -> list[Finding]:
    root = data_root()
    found = [Finding("data folder", f"{root}{'' if root.is_dir() else ' (not there yet)'}")]
    for name in datasets.dataset:
        if name != "folder":
            found.append(_dataset(name, root))
    return found


def _dataset(name: str, root: Path) -> Finding:
    from cnnbench.types import CnnbenchError

    try:
        data = load(name, datasets.Source(root))
    except CnnbenchError as error:
        absent = str(error).startswith(f"{name} not found")
        return Finding(f"data {name}", "not there" if absent else "cannot be used", "" if absent else str(error))
    counts: Any = f"{len(data.train):,} / {len(data.val):,} / {len(data.test):,}"
    return Finding(f"data {name}", f"{data.spec}, {counts} images, sha256 {data.sha256[:12]}")
