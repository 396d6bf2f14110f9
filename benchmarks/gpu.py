"""Everything that needs NVIDIA GPUs, by one command; each part is guarded, so that one failure does not end the rest.

    python benchmarks/gpu.py [--minutes 10] [--out gpu] [--parts tests,fit,...] [--dry-run]

Writes OUT.json and OUT.md after every step, so that what was measured stays if the machine goes away: the tests marked
gpu; training in float32, bf16-mixed and compiled (images/s, memory, energy, waits per step); fastnet in turns
with the plain loop of benchmarks/loop.py; two or more GPUs against one; exports verified on CUDA, and their error with
TF32 on; latency by device events. A step that does not fit into the minutes is not begun, and the table says so.
"""

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median

from rounds import images_per_second

HERE = Path(__file__).parent
LEAST_SECONDS = 5
"""A step is not begun with less time than this left."""
NETWORKS = ("lenet5", "resnet20", "resnet18", "resnet50")
EXPORTED = (*NETWORKS, "fastnet", "inception_small")
MODES = {
    "float32": ["--trainer.precision", "32-true"],
    "bf16-mixed": ["--trainer.precision", "bf16-mixed"],
    "bf16-mixed, compiled": ["--trainer.precision", "bf16-mixed", "--model.compile", "true"],
}
EPOCHS, BATCH, ROUNDS = 4, 512, 3


@dataclass(frozen=True)
class Row:
    """One figure, or why there is none."""

    part: str
    what: str
    value: float | None
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Step:
    """A process, and what its output and files say; `rows` may raise whatever a surprise makes it raise."""

    what: str
    command: Sequence[str]
    rows: Callable[[str], list[Row]]
    most_seconds: float = 300


@dataclass
class Run:
    """A whole measurement: where it writes, when it ends, what it has found."""

    out: Path
    ends: float
    cifar10: Path | None = None
    """Root of torchvision's CIFAR-10."""
    dry_run: bool = False
    rows: list[Row] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Of runs and bundles."""
        return self.out.with_name(f"{self.out.name}-work")

    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()


def main() -> None:
    """Run every part, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="in all (default 10)")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="OUT.json and OUT.md (default gpu)")
    parser.add_argument("--parts", default=",".join(PARTS), help="default: all, in this order: " + ",".join(PARTS))
    parser.add_argument(
        "--cifar10", type=Path, help="root of torchvision's CIFAR-10: fastnet is trained to 94 %% on it"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    chosen = parser.parse_args()
    names = chosen.parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}: expected some of {', '.join(PARTS)}")
    run = Run(chosen.out, time.monotonic() + 60 * chosen.minutes, chosen.cifar10, chosen.dry_run)
    measure(run, names)
    if not run.dry_run:
        print(markdown(run.rows))


def measure(run: Run, names: Sequence[str]) -> None:
    """Add the rows of these parts to the run; what a step raises becomes a row."""
    for name in names:
        try:
            for step in PARTS[name](run):
                run.rows += attempted(run, name, step)
                save(run)
        except Exception as error:  # a part whose earlier steps left nothing to go by
            run.rows.append(Row(name, "the rest of the part", None, "", f"{type(error).__name__}: {error}"))
            save(run)


def attempted(run: Run, part: str, step: Step) -> list[Row]:
    """The rows of one step, or the one row that says why it has none."""
    if run.dry_run:
        print(f"{part}: {step.what}\n    {shlex.join(step.command)}")
        return []
    if run.left() < LEAST_SECONDS:
        return [Row(part, step.what, None, "", "not begun: no time left")]
    print(f"{part}: {step.what}; {run.left() / 60:.1f} minutes left", file=sys.stderr)
    start = time.monotonic()
    try:
        done = subprocess.run(
            step.command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=min(step.most_seconds, run.left()),
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])},
            check=False,
        )
        if done.returncode:
            lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
            return [Row(part, step.what, None, "", f"exit code {done.returncode}: {lines[-1][:300]}")]
        rows = step.rows(done.stdout)
    except subprocess.TimeoutExpired as error:
        return [Row(part, step.what, None, "", f"stopped after {error.timeout:.0f} s")]
    except Exception as error:  # an output that is not as expected costs its own step alone
        return [Row(part, step.what, None, "", f"{type(error).__name__}: {error}")]
    return [*rows, Row(part, f"{step.what}: whole process", time.monotonic() - start, "s")]


# --- the parts: each yields its steps, and may look at what earlier steps left ----------------------------------------


def tests(run: Run) -> Iterator[Step]:
    """The tests that need a GPU. Skipped ones are no proof, and are counted by name."""

    def counted(printed: str) -> list[Row]:
        found = {word: int(count) for count, word in re.findall(r"(\d+) (passed|skipped|failed)", printed)}
        return [Row("tests", f"pytest -m gpu, {word}", found.get(word, 0), "tests") for word in ("passed", "skipped")]

    yield Step(
        "pytest -m gpu", python("-m", "pytest", "-m", "gpu", "-n", "0", "-q", str(HERE.parent / "tests")), counted
    )


def fit(run: Run) -> Iterator[Step]:
    """Training in every mode: the runs of float32 are exported later."""
    for arch in EXPORTED:
        for mode, flags in MODES.items():
            if mode == "float32" or arch in NETWORKS:
                yield trained(run, arch, mode, flags)
    for arch in NETWORKS[:2]:
        yield Step(f"{arch}: synchronisations", child("synchronisations", arch), synchronisations)


def trained(run: Run, arch: str, mode: str, flags: Sequence[str], part: str = "fit") -> Step:
    """One `fit` on generated images."""
    folder = run.folder / mode.replace(", ", "-") / f"shapes_{arch}"

    def rates(_: str) -> list[Row]:
        record = json.loads((folder / "seed1/result.json").read_text())
        spent = record["fit"]["resources"]
        note = f"batch {BATCH}, 32x32x3, epochs but the first"
        return [
            Row(part, f"{arch}, {mode}", images_per_second(record), "images/s", note),
            Row(part, f"{arch}, {mode}: memory", scaled(spent["memory_bytes"], 2**20), "MiB", spent["memory_kind"]),
            Row(part, f"{arch}, {mode}: energy", spent["energy_joules"], "J", spent["energy_kind"]),
        ]

    return Step(f"{arch}, {mode}", cnnbench("fit", *training(arch), *flags, "--runs-dir", str(folder.parent)), rates)


def training(arch: str) -> list[str]:
    """Flags of a short `fit` on generated images, on one GPU."""
    flags = {"arch": arch, "dataset": "shapes", "data.batch_size": BATCH, "trainer.max_epochs": EPOCHS}
    flags |= {"trainer.accelerator": "gpu", "trainer.devices": 1, "model.lr": 0.05}
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def synchronisations(printed: str) -> list[Row]:
    """Of a step, from two runs of different length."""
    found = json.loads(printed.splitlines()[-1])
    return [Row("fit", f"{found['arch']}: {name}", value, "per step") for name, value in found["per_step"].items()]


def fastnet(run: Run) -> Iterator[Step]:
    """Against the plain loop in turns, and to 94 % on CIFAR-10 where its images are there."""
    pairs: dict[str, list[float]] = {"fit": [], "loop": []}
    steps = 10_000 * 9 // 10 // BATCH
    loop = {"arch": "fastnet", "data": {"dataset": "shapes"}, "batch": BATCH, "epochs": EPOCHS, "steps": steps}
    loop |= {"precision": "bf16-mixed", "device": "cuda"}

    def noted(side: str) -> Callable[[str], list[Row]]:
        def rows(printed: str) -> list[Row]:
            if side == "fit":
                pairs[side].append(trained(run, "fastnet", "turns", []).rows(printed)[0].value or 0)
            else:
                pairs[side].append(float(printed.splitlines()[-1]))
            ratios = [ours / theirs for ours, theirs in zip(pairs["fit"], pairs["loop"], strict=False)]
            spread = f"{min(ratios):.3g} to {max(ratios):.3g} of {len(ratios)}" if ratios else ""
            figure = Row("fastnet", f"{side}, round {len(pairs[side])}", pairs[side][-1], "images/s")
            whole = len(pairs["fit"]) == len(pairs["loop"]) == ROUNDS
            return [figure, Row("fastnet", "fit over loop", median(ratios), "times", spread)] if whole else [figure]

        return rows

    for number in range(ROUNDS):
        again = ["--overwrite"] if number else []
        folder = str(run.folder / "turns")
        flags = [*training("fastnet"), *MODES["bf16-mixed"], *again, "--runs-dir", folder]
        yield Step(f"fit, round {number + 1}", cnnbench("fit", *flags), noted("fit"))
        yield Step(f"loop, round {number + 1}", python(str(HERE / "loop.py"), json.dumps(loop)), noted("loop"))
    if run.cifar10 is None:
        run.rows.append(Row("fastnet", "CIFAR-10 to 94 %", None, "", "not asked for: --cifar10 names its folder"))
        return
    folder = run.folder / "cifar10"
    flags = ["--arch", "fastnet", "--dataset", "cifar10", "--data.root", str(run.cifar10), "--trainer.max_epochs", "24"]
    flags += ["--trainer.accelerator", "gpu", "--trainer.devices", "1", "--runs-dir", str(folder)]

    def accuracy(printed: str) -> list[Row]:
        record = json.loads(printed)
        seconds = record["fit"]["curve"][-1]["train_seconds"]
        note = "94 % reached" if record["test"]["accuracy"] >= 0.94 else "94 % not reached"
        return [
            Row("fastnet", "CIFAR-10, test accuracy after 24 epochs", 100 * record["test"]["accuracy"], "%", note),
            Row("fastnet", "CIFAR-10, training", seconds, "s"),
        ]

    yield Step("CIFAR-10, training", cnnbench("fit", *flags), lambda _: [], most_seconds=600)
    yield Step("CIFAR-10, test", cnnbench("test", str(folder / "cifar10_fastnet/seed1"), "--format", "json"), accuracy)


def ddp(run: Run) -> Iterator[Step]:
    """All GPUs under DDP: every test image is counted once."""
    count = gpu_count()
    if count < 2 and not run.dry_run:
        run.rows.append(Row("ddp", "two or more GPUs", None, "", f"this machine has {count}"))
        return
    several = ["--trainer.devices", str(max(count, 2)), "--trainer.strategy", "ddp"]
    together = trained(run, "resnet18", "ddp", [*MODES["bf16-mixed"], *several], "ddp")

    def compared(printed: str) -> list[Row]:
        rows = together.rows(printed)
        one = [row.value for row in run.rows if row.what == "resnet18, bf16-mixed" and row.value]
        ratio = [Row("ddp", f"{count} GPUs over one", (rows[0].value or 0) / one[0], "times")] if one else []
        return [*rows, *ratio]

    yield Step(f"resnet18 on {count} GPUs", together.command, compared)

    def counts(printed: str) -> list[Row]:
        tested = json.loads(printed)["test"]
        exact = "every test image once" if tested["images"] == 2_000 else "expected 2,000"
        return [Row("ddp", f"test images on {count} GPUs", tested["images"], "images", exact)]

    flags = [*training("resnet18"), *MODES["bf16-mixed"], *several]
    test = cnnbench("test", *flags, "--runs-dir", str(run.folder / "ddp"), "--format", "json")
    yield Step(f"test on {count} GPUs", test, counts)


def export(run: Run) -> Iterator[Step]:
    """Files verified on CUDA with TF32 off, as always, and what TF32 would have made of them."""
    for arch in EXPORTED:
        folder = run.folder / "float32" / f"shapes_{arch}"
        test = cnnbench("test", str(folder / "seed1"))
        yield Step(f"{arch}: test", test, lambda _: [])
        out = run.folder / "exports"
        command = ["export", str(folder / "seed1"), "--provider", "cpu,cuda", "--out", str(out)]

        def verdict(_: str, arch: str = arch, out: Path = out) -> list[Row]:
            manifest = json.loads((out / f"shapes_{arch}" / "manifest.json").read_text())
            passes = [each for each in manifest["variants"][0]["passes"] if each["provider"] == "cuda"]
            error = max(each["max_rel_error"] for each in passes)
            bound = manifest["reference"]["error_bound"]
            flips = sum(each["flips"] for each in passes)
            note = f"bound {bound:.1e}, {flips} flips, {passes[0]['active']}"
            return [Row("export", f"{arch} on cuda, TF32 off: error of the largest logit", error, "relative", note)]

        yield Step(f"{arch}: export on cuda", cnnbench(*command), verdict)
        yield Step(f"{arch}: TF32", child("tf32", str(out / f"shapes_{arch}")), tf32)


def tf32(printed: str) -> list[Row]:
    """The error with TF32 off and on, measured alike."""
    found = json.loads(printed.splitlines()[-1])
    note = "of the largest logit, against the CPU, on the bundle's own golden images"
    return [
        Row("export", f"{found['arch']} on cuda, TF32 {state}", found[state], "relative", note)
        for state in ("off", "on")
    ]


def latency(run: Run) -> Iterator[Step]:
    """By the host's clock and by the device's events, which torch alone has."""
    out = run.folder / "latency.json"
    command = ["bench", str(run.folder / "exports"), "--provider", "cuda", "--batch", "1,64,512", "--seconds", "1"]

    def rows(_: str) -> list[Row]:
        found = []
        for case in json.loads(out.read_text())["benchmarks"]:
            extra = case["extra_info"]
            note = f"{1e3 * extra['device_seconds']:.4f} ms by device events" if extra["device_seconds"] else ""
            found.append(
                Row(
                    "latency",
                    f"{extra['arch']}, {case['params']['runtime']}, batch {extra['batch']}, median",
                    1e3 * case["stats"]["median"],
                    "ms",
                    note or extra["device_seconds_reason"],
                )
            )
        return found

    for backend in ("torch", "onnxruntime"):
        flags = [*command, "--backend", backend, "--out", str(out)]
        yield Step(f"latency by {backend}", cnnbench(*flags), rows)


PARTS = {part.__name__: part for part in (tests, fit, export, latency, fastnet, ddp)}


# --- processes and the table ------------------------------------------------------------------------------------------


def python(*arguments: str) -> list[str]:
    """A Python process."""
    return [sys.executable, *arguments]


def cnnbench(*arguments: str) -> list[str]:
    """The command line in a process."""
    return python("-m", "cnnbench", *arguments)


def child(*arguments: str) -> list[str]:
    """What has to be measured inside a process that holds the device."""
    return python(str(HERE / "gpu_child.py"), *arguments)


def gpu_count() -> int:
    """GPUs that nvidia-smi lists; 0 where it is absent."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def scaled(value: float | None, unit: float) -> float | None:
    """None stays None."""
    return None if value is None else value / unit


def machine() -> dict[str, str]:
    """GPUs, driver and versions; needs neither torch nor a GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        gpus = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        gpus = ""
    versions = {}
    for name in ("torch", "torchvision", "lightning", "onnxruntime-gpu", "onnxruntime", "cnnbench"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    cores = f"{os.cpu_count()} CPU cores"
    return {
        "gpus": "; ".join(gpus.splitlines()) or "none",
        "cores": cores,
        "python": platform.python_version(),
        **versions,
    }


def save(run: Run) -> None:
    """Write both files beside their places, then move them there."""
    if run.dry_run:
        return
    text = {
        ".json": json.dumps({"machine": machine(), "rows": [asdict(row) for row in run.rows]}, indent=1),
        ".md": markdown(run.rows),
    }
    for suffix, content in text.items():
        place = run.out.with_name(run.out.name + suffix)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_name(place.name + ".part").write_text(content + "\n", encoding="utf-8")
        place.with_name(place.name + ".part").replace(place)


def markdown(rows: Sequence[Row]) -> str:
    """The table, and the machine as a caption."""
    lines = ["| part | what | value | unit | note |", "| --- | --- | ---: | --- | --- |"]
    for row in rows:
        value = "-" if row.value is None else f"{row.value:,.4g}"
        lines.append(f"| {row.part} | {row.what} | {value} | {row.unit} | {row.note.replace('|', '/')} |")
    return "\n".join([*lines, "", "; ".join(f"{name}: {value}" for name, value in machine().items())])


if __name__ == "__main__":
    main()
