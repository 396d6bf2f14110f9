"""Cheap waiting and memory that is kept: seen in child processes, because they are set once for a whole process."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from isolated import TORCH, python_without

from cnnbench.training import process

MIB = 2**20

MEMORY = """
import ctypes, resource, sys
from pathlib import Path
from cnnbench.training import process

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]

def use_and_free(bytes_each, count):
    blocks = [libc.malloc(bytes_each) for _ in range(count)]
    for block in blocks:
        libc.memset(block, 1, bytes_each)
    for block in blocks:
        libc.free(block)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this system's malloc has no such settings")


def child(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process in whose environment nothing is set but what is given."""
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "OMP_", "GOMP_", "GLIBC_"))
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**ours, **environment}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Notes that memory was asked to be kept, and leaves this process as it is."""
    asked: list[bool] = []
    monkeypatch.setattr(process, "keep_freed_memory", lambda: asked.append(True))
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.setenv(name, "")  # so that what `prepare` sets is undone, too
        monkeypatch.delenv(name)
    return asked


def test_both_are_set_where_the_user_has_set_nothing(kept: list[bool]) -> None:
    process.prepare()
    assert os.environ["GOMP_SPINCOUNT"] == process.SPINS
    assert kept == [True]


@pytest.mark.parametrize(
    ("name", "value", "spins"),
    [("GOMP_SPINCOUNT", "7", "7"), ("OMP_WAIT_POLICY", "active", None), ("OMP_WAIT_POLICY", "passive", None)],
)
def test_how_the_user_lets_threads_wait_stands(
    kept: list[bool], monkeypatch: pytest.MonkeyPatch, name: str, value: str, spins: str | None
) -> None:
    monkeypatch.setenv(name, value)
    process.prepare()
    assert os.environ.get("GOMP_SPINCOUNT") == spins
    assert os.environ[name] == value
    assert kept == [True]


def test_the_user_s_settings_of_malloc_stand(kept: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    process.prepare()
    assert kept == []


def test_a_system_without_such_settings_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_c_function", lambda name: None)
    assert process.keep_freed_memory() is False
    process.release_freed_memory()


def test_a_verb_that_computes_with_torch_prepares_before_it_loads_anything() -> None:
    done = python_without(
        TORCH,
        """
from cnnbench.__main__ import main
from cnnbench.training import process

def prepare():
    raise SystemExit(42)

process.prepare = prepare
for verb in ("fit", "validate", "test", "predict"):
    try:
        code = main([verb, "--model.arch", "lenet5"])
    except SystemExit as ended:
        code = ended.code
    print(verb, code)
""",
    )
    assert done.stdout.splitlines() == ["fit 42", "validate 42", "test 42", "predict 42"], done.stderr


def test_preparing_loads_no_torch() -> None:
    done = python_without(TORCH, "import cnnbench.__main__; from cnnbench.training import process; process.prepare()")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="torch has GNU OpenMP on Linux alone")
def test_torch_s_threads_wait_as_they_were_told() -> None:
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
    library = next(
        (path for path in sorted(mapped) if Path(path).is_relative_to(Path(torch.__file__).parents[1])), None
    )
    if library is None:
        pytest.skip("this build of torch has another OpenMP")
    code = f"import ctypes; from cnnbench.training import process; process.prepare(); ctypes.CDLL({library!r})"
    shown = child(code, OMP_DISPLAY_ENV="verbose").stderr  # by the OpenMP library itself, when it is loaded
    assert f"GOMP_SPINCOUNT = '{process.SPINS}'" in shown


@glibc
def test_memory_that_was_freed_is_taken_again_without_a_page_fault() -> None:
    def faults(setting: str) -> int:
        """After the first round, which must touch its pages in any case: 100 MiB at once, three times."""
        rounds = f"use_and_free(20 * {MIB}, 5); before = faults(); [use_and_free(20 * {MIB}, 5) for _ in range(3)]"
        return int(child(f"{MEMORY}\n{setting}\n{rounds}\nprint(faults() - before)").stdout)

    by_default, ours = faults(""), faults("assert process.keep_freed_memory()")
    assert ours < by_default / 20
    pages = 3 * 100 * MIB // os.sysconf("SC_PAGE_SIZE")
    assert ours < pages / 100


@glibc
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell resident memory")
def test_what_was_kept_is_given_back_when_asked() -> None:
    code = f"""{MEMORY}
assert process.keep_freed_memory()
print(resident_bytes())
use_and_free(10 * {MIB}, 10)
print(resident_bytes())
process.release_freed_memory()
print(resident_bytes())
"""
    before, freed, released = map(int, child(code).stdout.split())
    assert freed - before > 95 * MIB
    assert released - before < 10 * MIB
