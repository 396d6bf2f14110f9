"""benchmarks/gpu.py where there is no GPU: its processes are played, with outputs as the real ones have them."""

import importlib.util
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BOUND = 1.5e-4


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "gpu", None)  # removed again after the test
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = load("gpu")
    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=Player(), TimeoutExpired=subprocess.TimeoutExpired))
    return module


class Player:
    """Answers every command of the benchmark; `broken` names words of commands that fail, `gpus` how many there are."""

    def __init__(self, *broken: str, gpus: int = 1) -> None:
        self.broken, self.gpus, self.commands = broken, gpus, list[list[str]]()

    def __call__(self, command: list[str], **options: Any) -> Any:
        self.commands.append(command)
        line = " ".join(command)
        if command[0] == "nvidia-smi":
            cards = [f"GPU {number}: NVIDIA H200" for number in range(self.gpus)]
            return SimpleNamespace(returncode=0, stdout="\n".join(cards), stderr="")
        if "hangs" in self.broken and "resnet18" in line:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        if any(part == word or part.endswith(f"/{word}") for part in command for word in self.broken):
            return SimpleNamespace(returncode=6, stdout="", stderr="error: CUDA is gone\n")
        return SimpleNamespace(returncode=0, stdout=self.answer(command, line), stderr="")

    def answer(self, command: list[str], line: str) -> str:
        if "pytest" in command:
            return "..s\n2 passed, 1 skipped in 3.10s\n"
        if "/loop.py " in line:
            return "20000.0\n"
        if "synchronisations" in command:
            return "noise\n" + json.dumps({"arch": command[-1], "per_step": {"cudaStreamSynchronize": 0.5}})
        if "tf32" in command:
            return json.dumps({"arch": "lenet5", "off": 1e-6, "on": 4e-4})
        if "fit" in command:
            self.train(command)
        elif "export" in command:
            out = Path(command[command.index("--out") + 1]) / Path(command[command.index("export") + 1]).parent.name
            out.mkdir(parents=True)
            passes = [{"provider": name, "max_rel_error": 2e-6, "flips": 0, "active": name} for name in ("cpu", "cuda")]
            manifest = {"variants": [{"passes": passes}], "reference": {"error_bound": BOUND}}
            (out / "manifest.json").write_text(json.dumps(manifest))
        elif "bench" in command:
            extra = {"arch": "lenet5", "batch": 64, "device_seconds": 2e-4, "device_seconds_reason": ""}
            case = {"extra_info": extra, "params": {"runtime": "torch"}, "stats": {"median": 3e-4}}
            Path(command[command.index("--out") + 1]).write_text(json.dumps({"benchmarks": [case]}))
        return json.dumps({"test": {"images": 2000, "accuracy": 0.95}, "fit": {"curve": [{"train_seconds": 70.0}]}})

    def train(self, command: list[str]) -> None:
        arch = command[command.index("--arch") + 1]
        folder = Path(command[command.index("--runs-dir") + 1]) / f"shapes_{arch}" / "seed1"
        folder.mkdir(parents=True, exist_ok=True)
        curve = [{"images": 9000, "train_seconds": 5.0}, {"images": 36000, "train_seconds": 6.0}]
        spent = {
            "memory_bytes": 2**30,
            "memory_kind": "allocated by torch",
            "energy_joules": None,
            "energy_kind": "none",
        }
        (folder / "result.json").write_text(json.dumps({"fit": {"curve": curve, "resources": spent}}))


def measured(gpu: ModuleType, player: Player, folder: Path, *, minutes: float = 10, parts: str = "") -> list[Any]:
    gpu.subprocess.run = player
    run = gpu.Run(folder / "gpu", time.monotonic() + 60 * minutes, folder)
    gpu.measure(run, parts.split(",") if parts else list(gpu.PARTS))
    return list(run.rows)


def test_every_part_has_its_figures(gpu: ModuleType, tmp_path: Path) -> None:
    rows = measured(gpu, Player(gpus=2), tmp_path)
    found = {(row.part, row.what): row for row in rows}
    assert found["tests", "pytest -m gpu, passed"].value == 2
    assert found["fit", "resnet50, bf16-mixed, compiled"].value == 27_000
    assert found["fit", "lenet5, float32: memory"].value == 1024
    assert found["fit", "lenet5, float32: energy"].value is None
    assert found["fit", "resnet20: cudaStreamSynchronize"].value == 0.5
    assert found["export", "lenet5 on cuda, TF32 off: error of the largest logit"].value == 2e-6
    assert found["export", "lenet5 on cuda, TF32 on"].value == 4e-4
    assert found["latency", "lenet5, torch, batch 64, median"].note == "0.2000 ms by device events"
    assert found["fastnet", "fit over loop"].value == pytest.approx(1.35)
    assert found["fastnet", "CIFAR-10, test accuracy after 24 epochs"].note == "94 % reached"
    assert found["ddp", "test images on 2 GPUs"].note == "every test image once"
    assert found["ddp", "2 GPUs over one"].value == 1.0
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["what"] for row in kept["rows"]] == [row.what for row in rows]
    assert kept["machine"]["gpus"].startswith("GPU 0: NVIDIA H200")
    assert len((tmp_path / "gpu.md").read_text().splitlines()) == len(rows) + 4


@pytest.mark.parametrize("word", ["pytest", "fit", "test", "export", "bench", "loop.py", "gpu_child.py", "hangs"])
def test_what_fails_is_a_row_and_the_rest_goes_on(gpu: ModuleType, tmp_path: Path, word: str) -> None:
    rows = measured(gpu, Player(word), tmp_path)
    failed = [row for row in rows if row.value is None and ("exit code 6" in row.note or "stopped after" in row.note)]
    assert failed
    whole = [row for row in rows if row.what.endswith("whole process")]
    assert len({row.part for row in whole}) >= 2
    assert "CUDA is gone" in failed[0].note or word == "hangs"


def test_on_one_gpu_ddp_says_so(gpu: ModuleType, tmp_path: Path) -> None:
    (row,) = measured(gpu, Player(), tmp_path, parts="ddp")
    assert (row.value, row.note) == (None, "this machine has 1")


def test_without_time_nothing_is_begun(gpu: ModuleType, tmp_path: Path) -> None:
    player = Player()
    rows = measured(gpu, player, tmp_path, minutes=0.05)
    assert {row.note for row in rows if row.part == "fit"} == {"not begun: no time left"}
    assert all(command[0] == "nvidia-smi" for command in player.commands)


def test_a_dry_run_prints_commands_and_runs_none(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    player = gpu.subprocess.run = Player()
    monkeypatch.setattr("sys.argv", ["gpu.py", "--dry-run", "--out", str(tmp_path / "gpu")])
    gpu.main()
    printed = capsys.readouterr().out
    assert all(f"\n{part}: " in f"\n{printed}" for part in gpu.PARTS)
    assert all(command[0] == "nvidia-smi" for command in player.commands)
    assert not list(tmp_path.iterdir())


def test_an_unknown_part_is_refused(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu.py", "--parts", "fit,speed"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2


def test_what_a_run_does_once_is_in_no_step() -> None:
    child = load("gpu_child")
    name = "cudaStreamSynchronize"
    runs = {steps: child.waits([name] * (7 + 2 * steps) + ["aten::add"]) for steps in (child.SHORT, child.LONG)}
    assert runs[child.SHORT] == Counter({name: 27})
    assert child.per_step(runs)[name] == 2
