"""Installed packages that do harm: each is a line and an exit code, and no other name is affected."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from faulty import Ended, elsewhere

pytestmark = pytest.mark.slow

NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.linear = nn.Linear(spec.channels * spec.height * spec.width, spec.num_classes)
    def forward(self, pixels):
        return self.linear(pixels.flatten(1))
def make(spec):
    return Net(spec)
"""
DATA = """
import numpy as np
from cnnbench.datasets import Decoded
from cnnbench.types import ImageSpec, Split
def split(count):
    drawn = np.random.RandomState(count)
    return Split(drawn.randint(0, 256, (count, 8, 8, 1)).astype(np.uint8), np.arange(count) % 2)
def make(source):
    return Decoded(ImageSpec(8, 8, 1, 2), ("a", "b"), split(200), split(100))
"""
LEAVE = "import os\nos._exit(0)\n"
TERM = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)\n"
TALK = "import os, sys\nfor _ in range(4096): print('x' * 1024)\n"
FIT = ["--trainer.max_epochs", "1", "--task", "t", "--overwrite"]


@dataclass(frozen=True)
class Package:
    """One that is installed: its source, a verb that uses its name, and what the verb says of it."""

    source: str
    words: tuple[str, ...]
    code: int
    says: str
    group: str = "architectures"
    registered: str = ""
    """Its entry point; by default the package's own name."""


def fit(name: str) -> tuple[str, ...]:
    return ("fit", "--model.arch", name, "--data.train_images", "64", *FIT)


def fit_on(name: str) -> tuple[str, ...]:
    return ("fit", "--model.arch", "linear", "--data.dataset", name, *FIT)


def after(line: str, source: str = NET) -> str:
    """The source with another line at the beginning of its builder."""
    head, word, tail = source.rpartition("    return ")
    return f"{head}    {line}\n{word}{tail}"


RETURN = "return self.linear(pixels.flatten(1))"


def in_forward(line: str) -> str:
    """The network with another line at the beginning of its forward pass."""
    return NET.replace(RETURN, f"{line}\n        {RETURN}")


def returning(result: str) -> str:
    """The network with something else made of what it returns."""
    return NET.replace(RETURN, "return " + result.format("self.linear(pixels.flatten(1))"))


ENDS = "ends the process (os._exit(0))"
PACKAGES = {
    "leaves_imported": Package(LEAVE + NET, fit("leaves_imported"), 6, ENDS),
    "leaves_built": Package(after("import os; os._exit(0)"), fit("leaves_built"), 6, ENDS),
    "leaves_run": Package(in_forward("import os; os._exit(0)"), fit("leaves_run"), 6, ENDS),
    "leaves_trained": Package(in_forward("import os; self.training and os._exit(0)"), fit("leaves_trained"), 6, ENDS),
    "exits": Package("import sys\nsys.exit(0)\n", fit("exits"), 6, "cannot be loaded: SystemExit: 0"),
    "raises": Package("raise RuntimeError('no licence')\n", fit("raises"), 6, "cannot be loaded: RuntimeError: no"),
    "raises_lines": Package(
        "raise RuntimeError('no\\n\\x1b[2Jlicence')\n", fit("raises_lines"), 6, "cannot be loaded:"
    ),
    "interrupts": Package("raise KeyboardInterrupt\n", fit("interrupts"), 130, "interrupted"),
    "told_imported": Package(TERM + NET, fit("told_imported"), 143, ""),
    "told_built": Package(after(TERM.strip()), fit("told_built"), 143, ""),
    "told_run": Package(in_forward(TERM.strip()), fit("told_run"), 143, ""),
    "data_told_imported": Package(TERM + DATA, fit_on("data_told_imported"), 143, "", "datasets"),
    "data_told": Package(after(TERM.strip(), DATA), fit_on("data_told"), 143, "", "datasets"),
    "talks": Package(TALK + after("print('y' * 2**20)"), ("explain", "talks", "--format", "json"), 0, ""),
    "not_numbers": Package(returning("{} * float('nan')"), fit("not_numbers"), 2, "not finite"),
    "no_gradient": Package(returning("{}.detach()"), fit("no_gradient"), 2, "gradient"),
    "replaces": Package(LEAVE + NET, ("explain", "lenet5", "--format", "json"), 0, "", registered="lenet5"),
    "data_leaves_imported": Package(LEAVE + DATA, fit_on("data_leaves_imported"), 6, ENDS, "datasets"),
    "data_leaves": Package(after("import os; os._exit(0)", DATA), fit_on("data_leaves"), 6, ENDS, "datasets"),
    "data_raises": Package(after("1 / 0", DATA), fit_on("data_raises"), 3, "ZeroDivisionError", "datasets"),
    "data_talks": Package(TALK + after("print('y' * 2**20)", DATA), fit_on("data_talks"), 0, "", "datasets"),
    "data_not_numbers": Package(
        DATA.replace(".astype(np.uint8)", " * np.nan"), fit_on("data_not_numbers"), 3, "uint8", "datasets"
    ),
    "data_replaces": Package(LEAVE + DATA, ("list", "datasets"), 0, "", "datasets", registered="mnist5k"),
    "data_changes": Package(
        DATA.replace("RandomState(count)", "RandomState()"), fit_on("data_changes"), 3, "data_changes", "datasets"
    ),
}


def install(folder: Path, name: str, package: Package) -> None:
    """What pip leaves of it."""
    (folder / f"{name}.py").write_text(package.source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    registered = package.registered or name
    (info / "entry_points.txt").write_text(f"[cnnbench.{package.group}]\n{registered} = {name}:make\n")


def path_of(folder: Path) -> str:
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="module")
def all_ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Each package's verb, one after another in one process: torch is imported once."""
    folder = tmp_path_factory.mktemp("site")
    for name, package in PACKAGES.items():
        install(folder, name, package)
    verbs = [package.words for package in PACKAGES.values()]
    ended = elsewhere(*verbs, environ={"PYTHONPATH": path_of(folder)}, folder=tmp_path_factory.mktemp("work"))
    return dict(zip(PACKAGES, ended, strict=True))


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_does_harm_is_a_line_and_an_exit_code(name: str, all_ended: dict[str, Ended]) -> None:
    package, ended = PACKAGES[name], all_ended[name]
    assert ended.code == package.code, ended.err[-2000:]
    assert "Traceback" not in ended.err
    if package.says:
        assert package.says in ended.line
        print(f"| {name} | {ended.line} | {ended.code} |")


@pytest.mark.parametrize("name", ["replaces", "data_replaces"])
def test_a_name_of_ours_stays_ours(name: str, all_ended: dict[str, Ended]) -> None:
    lines = [line for ended in all_ended.values() for line in ended.err.splitlines()]
    assert [line for line in lines if f"of the package {name} is left out: the name is that of cnnbench." in line]


def test_what_a_package_prints_is_no_result(all_ended: dict[str, Ended]) -> None:
    assert json.loads(all_ended["talks"].out)
    assert "xxx" not in all_ended["data_talks"].out
    assert len(all_ended["talks"].err) > 2**22


def test_a_package_that_hangs_is_named_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    install(tmp_path, "hangs", Package("import time\ntime.sleep(600)\n", (), 130, ""))
    environ = {**os.environ, "PYTHONPATH": path_of(tmp_path)}
    command = [sys.executable, "-m", "cnnbench", *fit("hangs")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if "hangs of the package hangs has been running for 10 s" in line:
                time.sleep(0.1)
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130, said
    assert said[-1] == "cnnbench: interrupted\n"


def test_a_sweep_that_times_a_network_that_leaves_ends_before_its_first_run(tmp_path: Path) -> None:
    install(tmp_path, "leaves", Package(in_forward("import os; self.training and os._exit(0)"), (), 6, ""))
    words = ["sweep", "leaves", "--seeds", "1", "--epochs", "1"]
    (ended,) = elsewhere(words, environ={"PYTHONPATH": path_of(tmp_path)})
    assert ended.code == 6, ended.err
    assert ENDS in ended.line
    assert not list(Path("runs").rglob("seed1"))
