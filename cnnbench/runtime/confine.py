"""What a process may do from now on: read what it is given, write its own folder, compute. On Linux.

Landlock (docs.kernel.org/userspace-api/landlock.html), namespaces, seccomp and resource limits, by their system calls.
docs/security.md says what each is for, and what they are not.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from cnnbench.runtime.seccomp import libc, refuse_calls

FILE_BYTES, FILES, PROCESSES = 4 * 2**30, 512, 1024  # the largest file, open files, and processes and threads
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime")
KERNEL = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system", "/dev/null", "/dev/urandom")
DEVICES = ("/proc", "/sys", "/usr/share")  # the driver of a GPU reads these, too, and writes in /dev

DIE_WITH_PARENT, NO_NEW_PRIVILEGES = 1, 38  # of prctl
NAMESPACES = {"user": 0x10000000, "network": 0x40000000, "IPC": 0x08000000, "process": 0x20000000}  # of unshare
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # Landlock's system calls, the same on every machine
READ, IOCTL = 1 << 2 | 1 << 3, 1 << 15  # files and folders; devices
WRITE = 1 << 1 | 1 << 14 | 1 << 5 | 1 << 8 | 1 << 4 | 1 << 7  # write and truncate; remove and create files, folders
OF_A_FILE = 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
RULES = ((3, "truncation", "6.2"), (4, "TCP", "6.7"), (5, "devices", "6.10"), (6, "signals", "6.12"))
"""Version of Landlock's interface, what came with it, and in which Linux."""


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """What a process may do.

    Args:
        reads: Files and folders that it may read, besides the system's libraries.
        writes: Folders that it may read and write.
        memory: Bytes of address space, 0 for no limit.
        cpu_seconds: CPU time of all its threads together.
        devices: Whether it may use the devices in /dev, as the driver of a GPU does.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    memory: int = 0
    cpu_seconds: int = 86_400
    devices: bool = False


def limits(wanted: Confinement) -> Iterator[str]:
    """Resource limits, each the lower of ours and the one that holds already."""
    values = {"AS": wanted.memory or None, "CPU": wanted.cpu_seconds, "FSIZE": FILE_BYTES, "NOFILE": FILES, "CORE": 0}
    for name, value in values.items():
        if value is not None and not _limit(name, value):
            yield f"the limit RLIMIT_{name}"


def namespaces(_: Confinement) -> Iterator[str]:
    """Nothing is seen of the machine's users, network, shared memory and processes; this one goes on as its child."""
    given = {name: libc("unshare", flag) == 0 for name, flag in NAMESPACES.items()}
    yield from (f"a new {name} namespace" for name, made in given.items() if not made)
    if not given["user"] or not _limit("NPROC", PROCESSES):  # outside of one it would count all that this user runs
        yield "the limit RLIMIT_NPROC"
    libc("prctl", DIE_WITH_PARENT, signal.SIGKILL)
    if not given["process"]:
        return
    if not (first := os.fork()):  # process 1: when it ends, the kernel ends the others
        libc("prctl", DIE_WITH_PARENT, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while True:
            signal.pause()
    if worker := os.fork():
        _end_as(worker, first)
    libc("prctl", DIE_WITH_PARENT, signal.SIGKILL)


def landlock(wanted: Confinement) -> Iterator[str]:
    """No file but those allowed, no program, no TCP, and no signal to a process outside."""
    if (version := libc("syscall", CREATE_RULESET, None, 0, 1)) < 1:
        yield "Landlock"
        return
    yield from (f"Landlock's rules of {what} (Linux {linux})" for least, what, linux in RULES if version < least)
    handled = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    attributes = struct.pack("QQQ", handled, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = libc("syscall", CREATE_RULESET, attributes, len(attributes), 0)
    rights = dict.fromkeys([*LIBRARIES, *KERNEL, *wanted.reads], READ)
    if wanted.devices:
        rights |= {**dict.fromkeys(DEVICES, READ), "/dev": READ | WRITE | IOCTL}
    for path, right in {**rights, **dict.fromkeys(wanted.writes, READ | WRITE)}.items():
        with suppress(OSError):  # this machine does not have it
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            right &= handled if Path(path).is_dir() else handled & OF_A_FILE
            libc("syscall", ADD_RULE, ruleset, 1, struct.pack("=Qi", right, place), 0)
            os.close(place)
    if libc("syscall", RESTRICT_SELF, ruleset, 0):
        yield "Landlock"
    os.close(ruleset)


def capabilities(_: Confinement) -> Iterator[str]:
    """No right of root."""
    if libc("capset", struct.pack("II", 0x20080522, 0), bytes(24)):
        yield "dropping capabilities"


def system_calls(_: Confinement) -> Iterator[str]:
    """No socket, program or further process; see `seccomp`."""
    if not refuse_calls():
        yield "seccomp"


LAYERS: tuple[Callable[[Confinement], Iterator[str]], ...] = (limits, namespaces, landlock, capabilities, system_calls)


def apply(wanted: Confinement) -> tuple[str, ...]:
    """Confine this process for good; what this kernel does not give, in words. Threads that run already stay free."""
    if sys.platform != "linux":
        return (*limits(wanted), "namespaces", "Landlock", "seccomp")
    libc("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return tuple(lacking for layer in LAYERS for lacking in layer(wanted))


def _limit(name: str, value: int) -> bool:
    try:
        import resource

        kind, above = getattr(resource, f"RLIMIT_{name}"), 5 if name == "CPU" else 0  # SIGXCPU first, SIGKILL after
        _, hard = resource.getrlimit(kind)
        hard = value + above if hard == resource.RLIM_INFINITY else min(value + above, hard)
        resource.setrlimit(kind, (min(value, hard), hard))
    except (ImportError, AttributeError, ValueError, OSError):
        return False
    return True


def _end_as(worker: int, first: int) -> None:
    """Wait for the worker, and end as it did."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    if code < 0:
        libc("signal", -code, 0)
        os.kill(os.getpid(), -code)
    os._exit(code)
