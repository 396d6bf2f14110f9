"""The scripts complete verbs, options and names, as the shells themselves say."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cnnbench.__main__ import main
from cnnbench.cli.front import verbs

CASES = {
    # what is typed, the last word being completed: words that are offered, and one that is not
    "f": (["fit"], "export"),
    "fit lenet": (["lenet5", "lenet5_relu"], "mlp"),
    "fit mnist5k_l": (["mnist5k_lenet5"], "mnist5k_mlp"),
    "fit --arch resnet2": (["resnet20"], "resnet32"),
    "fit lenet5 --ep": (["--epochs"], "--lr"),
    "fit lenet5 --trainer.max_ep": (["--trainer.max_epochs"], "--trainer.min_epochs"),
    "sweep --dataset mn": (["mnist", "mnist5k"], "shapes"),
    "test runs/": (["runs/mnist5k_lenet5/seed1"], "lenet5"),
    "export runs/mnist5k": (["runs/mnist5k_lenet5/seed1"], "lenet5"),
    "choose --by l": (["latency", "lower"], "macs"),
    "list d": (["datasets"], "tasks"),
    "download kmn": (["kmnist"], "mnist"),
    "completion fi": (["fish"], "bash"),
}


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_names_verbs_options_and_names(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    written = script(shell, capsys)
    dash = "" if shell == "fish" else "--"
    for word in (*verbs(), f"{dash}epochs", f"{dash}trainer.max_epochs", f"{dash}rescore", "lenet5", "mnist5k_lenet5"):
        assert word in written
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=written, text=True, check=True)


def offered(shell: str, typed: str) -> list[str]:
    """What a shell offers for the last word of a line."""
    words = ["cnnbench", *typed.split()]
    if shell == "fish":
        code = f'source script; complete -C "{" ".join(words)}"'
        done = subprocess.run(["fish", "--no-config", "-c", code], capture_output=True, text=True, check=True)
        return [line.split("\t")[0] for line in done.stdout.splitlines()]
    code = (
        f"source ./script; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _cnnbench; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_shell_offers_what_fits(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    Path("script").write_text(script(shell, capsys))
    Path("runs/mnist5k_lenet5/seed1").mkdir(parents=True)
    for typed, (expected, other) in CASES.items():
        seen = offered(shell, typed)
        assert set(expected) <= set(seen), typed
        assert other not in seen, typed
