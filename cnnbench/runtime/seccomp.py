"""System calls that a process gives up, by a seccomp filter (docs.kernel.org/userspace-api/seccomp_filter.html)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

MACHINES = {"x86_64": (0xC000003E, 56), "aarch64": (0xC00000B7, 220)}
"""The number by which the kernel knows a machine's calls, and its number of clone."""

CALLS = {
    "x86_64": {
        **{"socket": 41, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322},
        **{"ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312},
        # Landlock has no rules for the mode, the owner, the times and the attributes of a file
        **{"chmod": 90, "fchmod": 91, "fchmodat": 268, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260},
        **{"utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280, "setxattr": 188, "lsetxattr": 189},
        **{"fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199},
        **{"unshare": 272, "setns": 308, "add_key": 248, "request_key": 249, "keyctl": 250},
        **{"perf_event_open": 298, "bpf": 321, "userfaultfd": 323},
    },
    "aarch64": {
        **{"socket": 198, "execve": 221, "execveat": 281},
        **{"ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272},
        **{"fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55, "utimensat": 88},
        **{"setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16},
        **{"unshare": 97, "setns": 268, "add_key": 217, "request_key": 218, "keyctl": 219},
        **{"perf_event_open": 241, "bpf": 280, "userfaultfd": 282},
    },
}
"""What is refused: sockets, programs, processes, debugging, what changes a file unseen, namespaces, keys, and rarely
used parts of the kernel."""
CALLS_OF_BOTH = {"io_uring_setup": 425, "pidfd_getfd": 438, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466}
CLONE3, CLONE_THREAD = 435, 0x10000

LOAD, EQUAL, AT_LEAST, HAS_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of the classic BPF machine
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
SET_SECCOMP, BY_FILTER = 22, 2  # of prctl
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in what the filter reads
X32 = 0x40000000
"""Calls of a second interface of x86-64, with numbers of its own."""


def instructions(machine: str) -> list[tuple[int, int, int, int]]:
    """The filter for a machine of `MACHINES`: operation, lines to skip where it holds, where not, operand."""
    architecture, clone = MACHINES[machine]
    refuse = (RETURN, 0, 0, ERROR | errno.EPERM)
    code = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    code += [(AT_LEAST, 0, 1, X32), refuse]
    for call in (*CALLS[machine].values(), *CALLS_OF_BOTH.values()):
        code += [(EQUAL, 0, 1, call), refuse]
    # its flags lie in memory, where a filter cannot look: libraries take clone where there is no clone3
    code += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ERROR | errno.ENOSYS)]
    code += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, FIRST_ARGUMENT), (HAS_BIT, 1, 0, CLONE_THREAD), refuse]
    return [*code, (RETURN, 0, 0, ALLOW)]


def refuse_calls() -> bool:
    """Install the filter for this thread and what it starts, for good; whether the kernel took it."""
    machine = os.uname().machine
    if machine not in MACHINES or sys.maxsize < 2**32:
        return False
    code = [struct.pack("HBBI", *line) for line in instructions(machine)]
    lines = ctypes.create_string_buffer(b"".join(code))
    return libc("prctl", SET_SECCOMP, BY_FILTER, struct.pack("HQ", len(code), ctypes.addressof(lines)), 0, 0) == 0


def libc(function: str, *arguments: int | bytes | None) -> int:
    """What a function of the C library returns; `syscall` calls the kernel by number. -1 is a refusal."""
    words = (ctypes.c_long(value) if isinstance(value, int) else value for value in arguments)
    return int(getattr(ctypes.CDLL(None), function)(*words))
