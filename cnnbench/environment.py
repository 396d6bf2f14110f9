"""What a result depends on besides the code: versions, machine, threads, commit. Recorded with every result."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib import metadata
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from cnnbench.extras import AbsentError
from cnnbench.records.schema import Commit, Environment
from cnnbench.types import Finding

SUFFIXES = ("-gpu", "", "-openvino", "-directml", "-qnn", "-rocm", "-training", "-migraphx", "-windowsml")
ONNXRUNTIME = (*(f"onnxruntime{suffix}" for suffix in SUFFIXES), "ort-nightly")
"""Distributions of the module `onnxruntime`, each with all of it: two in one folder overwrite each other."""

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "onnx", *ONNXRUNTIME, "openvino", "numpy")

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
    """Names of the CUDA devices that torch can use; none where it is not installed."""
    if find_spec("torch") is None:
        return []
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def ran_out_of_memory(text: str) -> bool:
    """Whether an error's text, or what a process left on stderr, says that memory was refused."""
    signs = ("failed to map segment", "cannot allocate memory", "bad_alloc", "memory allocation", "memoryerror")
    return any(sign in text.lower() for sign in signs)


def address_space() -> int | None:
    """Bytes of address space that this process may take; None where there is no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


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
    """The processor, the memory, and the threads and GPUs that torch uses, where it is installed."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30 if hasattr(os, "sysconf") else 0.0
    system = f"{platform.system()} {platform.machine()}"
    machine = Finding("machine", f"{system}, {cpu_name()}, {os.cpu_count()} CPUs, {memory:.0f} GiB")
    if find_spec("torch") is None:
        return [machine, Finding("torch", str(AbsentError("training", "torch")))]
    import torch

    threads = f"{torch.get_num_threads()} within an operator, {torch.get_num_interop_threads()} between operators"
    devices = ", ".join(gpus()) or "none that torch can use: training and export run on the CPU"
    return [machine, Finding("threads", threads), Finding("GPU", devices)]


def check_packages() -> list[Finding]:
    """Installed versions, and releases or combinations of them that do not work."""
    installed = versions()
    findings = [Finding("cnnbench", f"{metadata.version('cnnbench')}, Python {platform.python_version()}")]
    findings += [Finding("package", f"{name} {version}") for name, version in installed.items()]
    findings += check_onnxruntime(sys.path)
    if (version := installed.get("lightning", "")) in MALWARE:
        remedy = "this release was malware: remove it and rotate your credentials"
        findings.append(Finding("lightning", version, remedy))
    return findings


def check_onnxruntime(path: Sequence[str]) -> list[Finding]:
    """What is wrong with the installed ONNX Runtime: several wheels in one folder, one half removed, or none.

    A folder without a whole wheel in it, and a wheel without its files, are what removing one of two wheels leaves.

    Args:
        path: Folders to search, such as `sys.path`.
    """
    wheels: dict[Path, dict[str, metadata.Distribution]] = defaultdict(dict)
    for wheel in metadata.distributions(path=list(path)):
        name = (wheel.metadata["Name"] or "").lower().replace("_", "-")
        if name in ONNXRUNTIME:
            wheels[Path(str(wheel.locate_file("onnxruntime"))).resolve()][name] = wheel
    spec = PathFinder.find_spec("onnxruntime", list(path))
    module = Path(next(iter(spec.submodule_search_locations or []), "")).resolve() if spec else None
    wrong = [found for folder in wheels.values() for found in _wrong_wheels(folder)]
    if module and module not in wheels:
        remedy = f"delete {module}, which no package owns, then {_reinstall()}"
        wrong.append(Finding("onnxruntime", f"{module} belongs to no installed package", remedy))
    if not module and not wheels:
        wrong.append(Finding("onnxruntime", "not installed", f"pip install '{_required_wheel()}'"))
    return wrong


def _wrong_wheels(wheels: dict[str, metadata.Distribution]) -> list[Finding]:
    """What is wrong with the wheels of one folder."""
    fact = " and ".join(f"{name} {wheels[name].version}" for name in sorted(wheels))
    remedy = f"pip uninstall -y {' '.join(sorted(wheels))}, then {_reinstall()}"
    if len(wheels) > 1:
        return [Finding("onnxruntime", f"{fact} are installed together", f"they overwrite each other: {remedy}")]
    (wheel,) = wheels.values()
    files = [file for file in wheel.files or () if file.parts[0] == "onnxruntime" and file.suffix != ".pyc"]
    if gone := [file for file in files if not Path(str(wheel.locate_file(file))).is_file()]:
        lost = f"{len(gone)} of its {len(files)} files are gone, such as {gone[0]}"
        return [Finding("onnxruntime", f"{fact}: {lost}", f"{fact} is half removed: {remedy}")]
    return []


def _reinstall() -> str:
    return f"pip install --force-reinstall --no-deps '{_required_wheel()}'"


def _required_wheel(name: str = "onnxruntime") -> str:
    """A distribution of ONNX Runtime in the versions that cnnbench requires."""
    requirements = map(Requirement, metadata.requires("cnnbench") or [])
    return next((f"{name}{each.specifier}" for each in requirements if each.name in ONNXRUNTIME), name)


def cuda_wheel() -> str:
    """The commands that put the wheel for NVIDIA GPUs in the place of the one for CPUs, which cnnbench requires."""
    return f"pip uninstall -y onnxruntime && pip install '{_required_wheel('onnxruntime-gpu')}'"
