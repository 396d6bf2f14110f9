"""The last line of a verb: what one does next."""

from __future__ import annotations

import shlex
import sys


def say_next(*words: object, format: str = "text") -> None:
    """Print the command that comes next on stderr, where the result is printed for people.

    Args:
        words: The command without `cnnbench`; each word is quoted where a shell needs it.
        format: How the result was printed; after csv, json and the like nothing is said.
    """
    if format in ("text", "table"):
        command = shlex.join(["cnnbench", *map(str, words)])
        print(f"next: {command}", file=sys.stderr)
