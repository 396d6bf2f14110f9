"""ONNX Runtime 1.31 writes an identifier and a database into the user's cache when imported, unless told not to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnnbench.runtime import predict


@pytest.mark.parametrize("first", ["import cnnbench", f"import runpy; runpy.run_path({predict.__file__!r})"])
def test_nothing_is_written_into_the_user_s_cache(first: str, tmp_path: Path) -> None:
    told = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in told} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", f"{first}\nimport onnxruntime"], env=environment, check=True)
    assert not [*tmp_path.rglob("*")]
