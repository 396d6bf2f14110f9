"""A Python process in which some packages cannot be imported, or are not there, for what must work without them."""

import subprocess
import sys

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise RuntimeError("imported " + name)  # not ImportError, which the importer may be ready for
sys.meta_path.insert(0, Blocker())
"""
HIDER = """
import sys
from importlib.machinery import PathFinder
class Hider(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {hidden!r} else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hider
"""
TORCH = ("torch", "torchvision", "lightning", "torchmetrics")


def python_without(blocked: tuple[str, ...], code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return _python(BLOCKER.format(blocked=blocked) + code, *arguments)


def python_lacking(hidden: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """As if these packages were not installed; processes that it starts have them."""
    return _python(HIDER.format(hidden=hidden) + code)


def _python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def cnnbench_without(blocked: tuple[str, ...], *arguments: object) -> subprocess.CompletedProcess[str]:
    return python_without(blocked, "from cnnbench.__main__ import main; sys.exit(main())", *arguments)
