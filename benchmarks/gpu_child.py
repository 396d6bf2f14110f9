"""Figures that have to be taken inside the process that holds the GPU; benchmarks/gpu.py runs this.

    python benchmarks/gpu_child.py synchronisations resnet20
    python benchmarks/gpu_child.py tf32 exports/shapes_resnet20

Prints one line of JSON. `synchronisations`: calls per training step that make the host wait for the device, from two
runs of different length under torch's profiler, so that what a run does once cancels. `tf32`: the largest error of the
float32 file on CUDA, in parts of the image's largest logit, with TF32 off and on, on the bundle's golden images.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")
SHORT, LONG = 10, 40
"""Steps of the two runs."""


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["synchronisations", "tf32"])
    parser.add_argument("of", help="an architecture, or a bundle")
    parser.add_argument("--accelerator", default="gpu", help="cpu tries the script itself where there is no GPU")
    chosen = parser.parse_args()
    if chosen.what == "synchronisations":
        runs = {steps: waits(names_of_calls(chosen.of, steps, chosen.accelerator)) for steps in (SHORT, LONG)}
        print(json.dumps({"arch": chosen.of, "per_step": per_step(runs)}))
    else:
        provider = "cuda" if chosen.accelerator == "gpu" else "cpu"
        print(json.dumps(errors(Path(chosen.of), provider)))


def names_of_calls(arch: str, steps: int, accelerator: str) -> list[str]:
    """Names of all operators and of all calls of the CUDA runtime during a `fit` of so many steps."""
    import torch
    from torch.profiler import ProfilerActivity

    from cnnbench.__main__ import main as command

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--arch", arch, "--dataset", "shapes", "--data.batch_size", "128", "--trainer.max_epochs", "1"]
        flags += ["--trainer.limit_train_batches", str(steps), "--trainer.limit_val_batches", "1"]
        flags += ["--trainer.accelerator", accelerator, "--trainer.devices", "1", "--runs-dir", folder]
        with torch.profiler.profile(activities=activities) as profiler, contextlib.redirect_stdout(sys.stderr):
            code = command(["fit", *flags])
        if code:
            sys.exit(code)
        events = profiler.events() or []
    return [event.name for event in events]


def waits(names: Iterable[str]) -> Counter[str]:
    """How often each call that waits was made."""
    return Counter(name for name in names if name in WAITS)


def per_step(runs: dict[int, Counter[str]]) -> dict[str, float]:
    """Calls per step: the difference of the two runs over the steps that one has more."""
    return {name: (runs[LONG][name] - runs[SHORT][name]) / (LONG - SHORT) for name in WAITS}


def errors(bundle: Path, provider: str) -> dict[str, str | float]:
    """Largest relative error of the file on `provider` against the CPU, with TF32 off and on."""
    import numpy as np

    from cnnbench.runtime import providers

    with np.load(bundle / "golden.npz") as golden:
        pixels = golden["pixels"]

    def logits(name: str) -> np.ndarray:
        (found,) = providers.open_session(bundle / "model.onnx", name).run(["logits"], {"pixels": pixels})
        return np.asarray(found, np.float64)

    exact = logits("cpu")
    largest = np.abs(exact).max(axis=1, keepdims=True)
    found: dict[str, str | float] = {"arch": json.loads((bundle / "manifest.json").read_text())["arch"]}
    name, options = providers.PROVIDERS[provider]
    for state, value in (("off", "0"), ("on", "1")):
        changed = {**options, "use_tf32": value} if "use_tf32" in options else options
        providers.PROVIDERS[provider] = (name, changed)
        found[state] = float((np.abs(logits(provider) - exact) / largest).max())
    return found


if __name__ == "__main__":
    main()
