"""A Python process in which some packages cannot be imported, for what must work without them."""

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
TORCH = ("torch", "torchvision", "lightning", "torchmetrics")


def python_without(blocked: tuple[str, ...], code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKER.format(blocked=blocked) + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def cnnbench_without(blocked: tuple[str, ...], *arguments: object) -> subprocess.CompletedProcess[str]:
    return python_without(blocked, "from cnnbench.__main__ import main; sys.exit(main())", *arguments)
