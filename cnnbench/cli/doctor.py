"""`doctor`: what this machine has, what works, and what is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec
from typing import Literal

from cnnbench.api import diagnose
from cnnbench.cli.hints import say_next
from cnnbench.types import Exit, one_line


def doctor(*, format: Literal["text", "json"] = "text") -> int:
    """Print versions, CPU, threads, GPUs, usable ONNX Runtime providers and data; exit 6 if something is broken.

    Args:
        format: How to print the findings.

    Examples:
        cnnbench doctor
    """
    findings = diagnose()
    if format == "json":
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(one_line(f"{finding.topic:14} {finding.fact}"))
        wrong = [finding for finding in findings if finding.wrong]
        told = [one_line(f"WRONG {finding.topic}: {finding.wrong}") for finding in wrong]
        print("", *told or ["Nothing is wrong."], sep="\n")
    if find_spec("torch") and not any(finding.wrong for finding in findings):
        say_next("fit", "lenet5", format=format)
    return Exit.ENVIRONMENT if any(finding.wrong for finding in findings) else Exit.OK
