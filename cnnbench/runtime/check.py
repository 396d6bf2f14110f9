"""Whether ONNX Runtime runs here, for `doctor`, also where it cannot even be imported; and how it is confined."""

from __future__ import annotations

from cnnbench import environment
from cnnbench.runtime import sandbox
from cnnbench.types import CnnbenchError, Finding, first_line


def check_providers() -> list[Finding]:
    """Whether each provider works. CUDA has to where its wheel is installed and torch sees a GPU."""
    try:
        from cnnbench.runtime import providers

        reasons = providers.usable()
    except (ImportError, AttributeError) as error:  # a wheel that is half removed imports as an empty module
        reason = f"onnxruntime cannot be used: {first_line(error)}"
        return [Finding("provider cpu", reason, reason)]
    findings = []
    for name, reason in reasons.items():
        required = name == "cpu" or ("onnxruntime-gpu" in environment.versions() and bool(environment.gpus()))
        findings.append(Finding(f"provider {name}", reason or "works", reason if required else ""))
    return findings


def check_confinement() -> list[Finding]:
    """How far this machine confines the process that reads a bundle; a lack of it is not an installation fault."""
    try:
        return [Finding("confinement", sandbox.confinement())]
    except CnnbenchError as error:
        return [Finding("confinement", "does not work", str(error))]
