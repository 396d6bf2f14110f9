"""What the process that reads a stranger's file cannot do, tried for real, as root and as an ordinary user."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import forbidden
import pytest
import sandboxed

from cnnbench.__main__ import main
from cnnbench.runtime import confine, sandbox, seccomp
from cnnbench.types import CnnbenchError, Exit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are those of Linux")
FOLDERS = [str(Path(__file__).parents[2]), str(Path(forbidden.__file__).parent)]
THREADS = "start more threads than the limit"
BY_ALL = {"read a variable of the caller"}
ONLY_OF_ROOT = {"raise its priority, as root may"}

Try = Callable[..., dict[str, str]]


@pytest.fixture(autouse=True)
def _paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(FOLDERS))
    monkeypatch.setenv(forbidden.VARIABLE, "secret")


@pytest.fixture(params=["root", "an ordinary user"])
def uid(request: pytest.FixtureRequest) -> int:
    if os.geteuid() == 0:
        return 0 if request.param == "root" else forbidden.NOBODY
    if request.param == "root":
        pytest.skip("these tests do not run as root")
    return os.geteuid()


@pytest.fixture
def attempt(uid: int, monkeypatch: pytest.MonkeyPatch) -> Try:
    """`attempt(*layers)`: what comes of every probe, under some layers alone."""

    def attempt(*layers: str) -> dict[str, str]:
        monkeypatch.setattr(sandbox, "_spawn", forbidden.spawner(uid, layers))
        with forbidden.targets(uid) as to:
            return sandbox.call(forbidden.try_all, to, about="the probe")

    return attempt


@pytest.fixture(scope="module")
def lacks() -> tuple[str, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(FOLDERS))
        patch.setattr(sandbox, "_spawn", forbidden.spawner(os.geteuid()))
        return sandbox.lacking()


@pytest.fixture
def whole(lacks: tuple[str, ...]) -> None:
    """Only where this kernel has all that is asked of it."""
    if lacks:
        pytest.skip(f"this kernel lacks {', '.join(lacks)}")


ALL = tuple(layer.__name__ for layer in confine.LAYERS)


@pytest.mark.usefixtures("whole")
def test_everything_forbidden_is_refused(uid: int, attempt: Try) -> None:
    done = {name for name, outcome in attempt(*ALL).items() if outcome == "done"}
    assert done == ({THREADS} if uid == 0 else set())  # the kernel never holds root to a number of processes


@pytest.mark.slow
def test_unconfined_all_of_it_is_possible(uid: int, attempt: Try) -> None:
    """Else the test above would show nothing."""
    refused = {name for name, outcome in attempt().items() if outcome != "done"}
    yama = Path("/proc/sys/kernel/yama/ptrace_scope")
    traced = uid == 0 or not yama.exists() or yama.read_text().strip() == "0"
    expected = BY_ALL | (set() if uid == 0 else ONLY_OF_ROOT) | (set() if traced else {"trace another process"})
    assert refused == expected


@pytest.mark.slow
@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(
    ("layer", "refuses"),
    [
        (
            "limits",
            {"write a file over the limit", "open more files than the limit", "take more memory than the limit"},
        ),
        ("namespaces", {"connect by TCP", "send by UDP", "connect to an abstract socket", "signal another process"}),
        (
            "landlock",
            {name for name in forbidden.PROBES if name.startswith(("read a file", "read /etc", "list", "create"))},
        ),
        ("landlock", {"overwrite a file of the user", "truncate a file of the user", "rename a file of the user"}),
        ("landlock", {"start a command", "connect by TCP", "signal another process"}),
        ("system_calls", {"connect by TCP", "send by UDP", "connect to a Unix socket", "start a command"}),
        ("system_calls", {"change the mode of a file of the user", "change the times of a file of the user"}),
        ("system_calls", {"start more processes than the limit", "trace another process"}),
    ],
)
def test_each_layer_refuses_its_part_alone(layer: str, refuses: set[str], attempt: Try) -> None:
    outcomes = attempt(layer)
    assert refuses <= {name for name, outcome in outcomes.items() if outcome != "done"}
    assert "done" in outcomes.values()


@pytest.mark.slow
@pytest.mark.usefixtures("whole")
def test_who_computes_too_long_is_stopped(uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "CPU_SECONDS", 1)
    monkeypatch.setattr(sandbox, "_spawn", forbidden.spawner(uid))
    with pytest.raises(CnnbenchError, match=r"^the file was stopped: it took more than 1 s of CPU$") as caught:
        sandbox.call(forbidden.burn, None, about="the file")
    assert caught.value.code == Exit.DATA


@pytest.mark.usefixtures("real_sandbox")
def test_what_is_given_may_be_read_and_written(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "model").write_text("weights")
    (tmp_path / "out").mkdir()
    where = sandboxed.Copy(str(tmp_path / "given" / "model"), str(tmp_path / "out" / "copy"))
    sandbox.call(sandboxed.copy, where, about="it", reads=[tmp_path / "given"], writes=[tmp_path / "out"])
    assert (tmp_path / "out" / "copy").read_text() == "weights"
    back = sandboxed.Copy(where.target, str(tmp_path / "given" / "other"))
    with pytest.raises(CnnbenchError, match=f"may not use {re.escape(back.target)}: it is held to the files") as caught:
        sandbox.call(sandboxed.copy, back, about="it", reads=[tmp_path / "given"], writes=[tmp_path / "out"])
    assert caught.value.code == Exit.DATA


@pytest.mark.skipif(os.geteuid() != 0, reason="of root alone")
@pytest.mark.usefixtures("real_sandbox")
def test_what_root_may_read_by_its_rights_alone_is_refused_in_a_line(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    (folder / "model").write_text("weights")
    os.chown(folder, forbidden.NOBODY, -1)
    with pytest.raises(
        CnnbenchError, match=r"/theirs/model: it is held .* has no rights of root \(docs/security\.md\)$"
    ):
        sandbox.call(sandboxed.copy, sandboxed.Copy(f"{folder}/model", "copy"), about="it", reads=[folder / "model"])


@pytest.mark.usefixtures("real_sandbox", "whole")
def test_nothing_is_left_of_a_process_that_was_stopped() -> None:
    target = "sandboxed:sleep"

    def running() -> list[str]:
        return [file.parent.name for file in Path("/proc").glob("[0-9]*/cmdline") if target in _text(file)]

    with pytest.raises(CnnbenchError, match="was stopped"):
        sandbox.call(sandboxed.sleep, None, about="it", seconds=0.5)
    until = time.monotonic() + 10
    while running() and time.monotonic() < until:
        time.sleep(0.01)
    assert running() == []


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # it has ended
        return ""


NO_LANDLOCK = "confine.libc = lambda f, *a, real=confine.libc: -1 if f == 'syscall' and a[0] == 444 else real(f, *a)"
OLD_LANDLOCK = """
def old(function, *arguments, real=confine.libc):
    return 3 if arguments == (444, None, 0, 1) else real(function, *arguments)
confine.libc = old
"""
NO_NAMESPACES = "confine.libc = lambda f, *a, real=confine.libc: -1 if f == 'unshare' else real(f, *a)"
NO_SECCOMP = "seccomp.MACHINES.clear()"
FAKES = {
    "no Landlock": (NO_LANDLOCK, ["Landlock"]),
    "a Landlock of Linux 6.2": (
        OLD_LANDLOCK,
        [f"Landlock's rules of {what}" for what in ("TCP (Linux 6.7)", "devices (Linux 6.10)", "signals (Linux 6.12)")],
    ),
    "no namespaces": (
        NO_NAMESPACES,
        [*(f"a new {name} namespace" for name in confine.NAMESPACES), "the limit RLIMIT_NPROC"],
    ),
    "no seccomp for this machine": (NO_SECCOMP, ["seccomp"]),
}


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(
    ("fake", "named"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] if place else [])
        for place, (name, case) in enumerate(FAKES.items())
    ],
)
def test_what_the_kernel_lacks_is_named(fake: str, named: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_spawn", forbidden.spawner(os.geteuid(), more=fake))
    assert list(sandbox.lacking()) == named


@pytest.mark.slow
@pytest.mark.usefixtures("whole")
def test_verify_and_doctor_say_what_the_kernel_lacks(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sandbox, "_spawn", forbidden.spawner(os.geteuid(), more=NO_LANDLOCK))
    said = "by what this machine gives, which lacks Landlock; docs/security.md says what each is for"
    assert main(["verify", str(bundle), "--quick"]) == 0
    assert f"\nconfined   {said}\n" in capsys.readouterr().out
    assert main(["doctor"]) == 0
    assert f"\nconfinement    {said}\n" in capsys.readouterr().out


HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}


@pytest.mark.parametrize("machine", HEADERS)
def test_calls_have_the_numbers_of_the_kernels_headers(machine: str) -> None:
    header = Path(HEADERS[machine])
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    numbers = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", header.read_text())}
    ours = {**seccomp.CALLS[machine], **seccomp.CALLS_OF_BOTH, "clone": seccomp.MACHINES[machine][1]}
    ours["clone3"] = seccomp.CLONE3
    known = {name: number for name, number in ours.items() if name in numbers}  # a header may be older than a call
    assert known == {name: numbers[name] for name in known}
    assert len(known) > 20


def verdict(machine: str, number: int, *, flags: int = 0, architecture: int | None = None) -> int:
    """What the filter answers to a call, by the rules of classic BPF."""
    known, _ = seccomp.MACHINES[machine]
    words = {seccomp.NUMBER: number, seccomp.ARCHITECTURE: architecture or known, seccomp.FIRST_ARGUMENT: flags}
    code, line, loaded = seccomp.instructions(machine), 0, 0
    while True:
        operation, where_true, where_false, operand = code[line]
        line += 1
        if operation == seccomp.RETURN:
            return operand
        if operation == seccomp.LOAD:
            loaded = words[operand]
            continue
        tests = {seccomp.EQUAL: loaded == operand, seccomp.AT_LEAST: loaded >= operand}
        line += where_true if tests.get(operation, bool(loaded & operand)) else where_false


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_the_filter_refuses_its_calls_and_no_other(machine: str) -> None:
    refused = {*seccomp.CALLS[machine].values(), *seccomp.CALLS_OF_BOTH.values(), seccomp.MACHINES[machine][1]}
    answers = {number: verdict(machine, number) for number in range(500)}
    assert {number for number, answer in answers.items() if answer == seccomp.ERROR | 1} == refused  # EPERM
    assert answers[seccomp.CLONE3] == seccomp.ERROR | 38  # ENOSYS
    assert sum(answer == seccomp.ALLOW for answer in answers.values()) == 500 - len(refused) - 1
    assert verdict(machine, seccomp.MACHINES[machine][1], flags=0x3D0F00) == seccomp.ALLOW  # pthread_create's
    assert verdict(machine, seccomp.MACHINES[machine][1], flags=0x10000000) == seccomp.ERROR | 1  # CLONE_NEWUSER
    assert verdict(machine, 0, architecture=0x40000003) == seccomp.KILL  # of i386
    assert verdict(machine, 0x40000000) == seccomp.ERROR | 1


def under(kibibytes: int, *arguments: object, limit: str = "v") -> subprocess.CompletedProcess[str]:
    """The command line under `ulimit -v`, or another limit."""
    command = f'ulimit -{limit} {kibibytes}; exec "$0" -m cnnbench "$@"'
    words = ["bash", "-c", command, sys.executable, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_verify_and_export_work_under_ulimit_v(run: Path, bundle: Path, tmp_path: Path) -> None:
    done = under(12_000_000, "verify", bundle)
    assert done.returncode == 0, done.stderr
    done = under(12_000_000, "export", run, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / bundle.name / "model.onnx").exists()


@pytest.mark.slow
def test_too_little_memory_for_the_libraries_is_said_in_one_line(run: Path, tmp_path: Path) -> None:
    done = under(2_000_000, "export", run, "--out", tmp_path)
    said = "cnnbench: 1.91 GiB of address space are too little to load the libraries: raise `ulimit -v`\n"
    assert (done.returncode, done.stderr) == (Exit.ENVIRONMENT, said)


@pytest.mark.slow
def test_where_no_byte_can_be_written_it_is_said_in_one_line(bundle: Path) -> None:
    done = under(0, "verify", bundle, "--quick", limit="f")
    said = "cnnbench: there is no temporary folder that can be written: set TMPDIR to one\n"
    assert (done.returncode, done.stdout, done.stderr) == (Exit.ENVIRONMENT, "", said)


@pytest.mark.usefixtures("real_sandbox")
def test_a_child_whose_libraries_need_more_than_our_limit_is_refused() -> None:
    said = r"^the process that reads it needs more than 0\.0586 GiB of address space$"
    with pytest.raises(CnnbenchError, match=said) as caught:
        sandbox.call(sandboxed.folder_of, "numpy", about="it", memory=60 * 2**20)
    assert caught.value.code == Exit.DATA


def in_python(kibibytes: int, code: str) -> subprocess.CompletedProcess[str]:
    """Python under `ulimit -v`."""
    words = ["bash", "-c", f'ulimit -v {kibibytes}; exec "$0" -c "$1"', sys.executable]
    code = f"import sandboxed; from cnnbench.runtime import sandbox\n{code}"
    return subprocess.run([*words, code], capture_output=True, text=True, timeout=60, check=False)


def test_the_limit_on_memory_is_the_lower_of_ours_and_the_hard_one() -> None:
    done = in_python(4_000_000, "print(sandbox.call(sandboxed.surroundings, None, about='it')['limit'])")
    assert (done.stdout, done.stderr) == (f"{4_000_000 * 1024}\n", "")


@pytest.mark.slow
def test_a_child_whose_libraries_need_more_than_the_hard_limit_is_told_apart() -> None:
    code = "from cnnbench.types import CnnbenchError\n"
    code += "try: sandbox.call(sandboxed.folder_of, 'numpy', about='it')\n"
    code += "except CnnbenchError as error: print(error, error.code.value)"
    done = in_python(60_000, code)
    said = "the process that reads it needs more than 0.0572 GiB of address space (`ulimit -v`) 6\n"
    assert (done.stdout, done.stderr) == (said, "")
