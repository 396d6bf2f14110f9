"""bfloat16 where the hardware multiplies it, else float32; and the record says which and why."""

from pathlib import Path

import pytest
import torch

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.records.schema import RunRecord
from cnnbench.training.precision import UNITS, bfloat16_unit, resolve_precision

NO_UNIT = "auto: no bfloat16 in hardware"


class Machine:
    """A machine as torch shows it: with the units of `capabilities`, and with a GPU or without one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.capabilities: dict[str, bool | str] = {"avx512_f": True, "architecture": "x86_64"}
        self.gpu = self.gpu_bfloat16 = self.gpu_emulates = self.mps = False
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: self.capabilities)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: self.gpu)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", self.supported)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: self.mps)

    def supported(self, including_emulation: bool = True) -> bool:
        return self.gpu_bfloat16 or (including_emulation and self.gpu_emulates)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.mark.parametrize("accelerator", ["auto", "cpu"])
@pytest.mark.parametrize("unit", ["amx_bf16", "avx512_bf16"])
def test_a_processor_that_multiplies_bfloat16_is_used(machine: Machine, unit: str, accelerator: str) -> None:
    machine.capabilities |= dict.fromkeys(UNITS, False) | {unit: True}
    chosen = resolve_precision("auto", accelerator)
    assert (chosen.name, chosen.reason) == ("bf16-mixed", f"auto: bfloat16 in hardware ({unit})")


@pytest.mark.parametrize("capabilities", [{}, {"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}])
def test_another_processor_computes_in_float32(machine: Machine, capabilities: dict[str, bool | str]) -> None:
    machine.capabilities = capabilities
    chosen = resolve_precision("auto", "auto")
    assert (chosen.name, chosen.reason) == ("32-true", NO_UNIT)


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_a_gpu_computes_in_bfloat16_where_its_hardware_does(machine: Machine, accelerator: str) -> None:
    machine.gpu = machine.gpu_bfloat16 = True
    assert resolve_precision("auto", accelerator).name == "bf16-mixed"
    assert bfloat16_unit(accelerator) == "CUDA"


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float32_whatever_the_processor_has(
    machine: Machine, accelerator: str
) -> None:
    machine.gpu = machine.gpu_emulates = True
    machine.capabilities["amx_bf16"] = True
    assert resolve_precision("auto", accelerator).name == "32-true"


def test_on_the_processor_of_a_machine_with_a_gpu_the_processor_counts(machine: Machine) -> None:
    machine.gpu = machine.gpu_bfloat16 = True
    assert bfloat16_unit("cpu") is None
    machine.capabilities["avx512_bf16"] = True
    assert bfloat16_unit("cpu") == "avx512_bf16"


def test_on_apple_s_gpu_float32_is_kept(machine: Machine) -> None:
    machine.mps = True
    machine.capabilities["avx512_bf16"] = True
    assert resolve_precision("auto", "auto").name == resolve_precision("auto", "mps").name == "32-true"


@pytest.mark.parametrize("asked", ["32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true"])
def test_what_is_asked_for_stays(machine: Machine, asked: str) -> None:
    for unit in (True, False):
        machine.capabilities["amx_bf16"] = unit
        chosen = resolve_precision(asked, "cpu")  # type: ignore[arg-type]
        assert (chosen.name, chosen.reason) == (asked, "asked for")


def fitted(*arguments: str) -> RunRecord:
    short = ["--model.arch", "linear", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    assert main(["fit", *short, "--trainer.accelerator", "cpu", *arguments]) == 0
    return records.read(Path("runs/mnist5k_linear/seed1/result.json"), RunRecord)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="this system does not list its processor's units")
def test_the_record_says_what_auto_became_on_this_machine_and_why() -> None:
    record = fitted()
    flags = Path("/proc/cpuinfo").read_text().split()
    unit = next((unit for unit in ("amx_bf16", "avx512_bf16") if unit in flags), None)
    assert record.config.trainer["precision"] == "auto"
    assert record.environment.precision == ("bf16-mixed" if unit else "32-true")
    assert record.environment.precision_reason == (f"auto: bfloat16 in hardware ({unit})" if unit else NO_UNIT)


def test_the_record_says_what_was_asked_for() -> None:
    record = fitted("--trainer.precision", "32-true")
    assert record.config.trainer["precision"] == record.environment.precision == "32-true"
    assert record.environment.precision_reason == "asked for"


def test_an_unknown_precision_is_refused_in_one_line_that_names_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", "--model.arch", "linear", "--trainer.precision", "bf17"]) == 2
    seen = capsys.readouterr()
    (line,) = seen.err.strip().splitlines()
    assert seen.out == ""
    for word in ("trainer.precision", "bf17", "auto", "bf16-mixed", "32-true"):
        assert word in line
    assert not Path("runs").exists()
