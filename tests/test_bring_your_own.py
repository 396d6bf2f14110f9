"""The example package of docs/bring-your-own.md, from an empty folder to a verified bundle."""

import json
import os
import re
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "docs" / "bring-your-own.md"
FILE = re.compile(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", re.M | re.S)


def files() -> dict[str, str]:
    """The files of the example package."""
    return dict(FILE.findall(GUIDE.read_text()))


def test_the_guide_has_every_file_of_its_package() -> None:
    assert sorted(files()) == ["pyproject.toml", "tiny_nets/__init__.py", "tiny_nets/data.py", "tiny_nets/networks.py"]
    for name, text in files().items():
        if name.endswith(".py"):
            compile(text, name, "exec")


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A fresh environment that sees the installed packages of this one, and has the example package installed."""
    folder = tmp_path / "example"
    for name, text in files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    Path(site, "of_the_tests.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n{Path(__file__).parents[1]}\n"
    )
    install = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", str(folder)]
    done = subprocess.run([python, *install], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.slow
def test_the_package_is_installed_listed_trained_exported_and_verified(python: Path, tmp_path: Path) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV", "PYTHONPATH"))}
    environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")

    def cnnbench(*words: str) -> str:
        done = subprocess.run(
            [python, "-m", "cnnbench", *words], capture_output=True, text=True, check=False, env=environ, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    (listed,) = [row for row in json.loads(cnnbench("list", "--format", "json")) if row["arch"] == "tiny_conv"]
    assert listed["summary"] == "Two convolutions and the mean over positions. (from tiny-nets)"
    (counted,) = [
        row for row in json.loads(cnnbench("list", "--size", "32", "--format", "json")) if row["arch"] == "tiny_conv"
    ]
    assert (listed["params"], listed["macs"]) == (counted["params"], counted["macs"])
    assert "12x12x1" in cnnbench("list", "datasets")
    assert "tiny_conv for images of 12x12x1, 2 classes" in cnnbench("explain", "tiny_conv", "--dataset", "stripes")
    sweep = ["sweep", "stripes_tiny_conv", "--seeds", "2", "--override", "trainer.max_epochs=8", "--format", "json"]
    outcomes = json.loads(cnnbench(*sweep))
    assert all(outcome["accuracy"] > 0.9 for outcome in outcomes)
    record = json.loads(Path("runs/stripes_tiny_conv/seed1/result.json").read_text())
    assert record["checks"] == {"warnings": [], "skipped": False}
    cnnbench("export", "runs/stripes_tiny_conv")
    assert "is verified" in cnnbench("verify", "exports/stripes_tiny_conv", "--rescore")
    assert [outcome["state"] for outcome in json.loads(cnnbench(*sweep))] == ["was done"] * 2
    version = python.parent.parent / "lib"
    (module,) = version.glob("python*/site-packages/tiny_nets/networks.py")
    module.write_text(module.read_text().replace("nn.ReLU()", "nn.Tanh()", 1))
    for words, code, message in (
        (sweep, 2, "holds a run of another configuration, data or code"),
        (["export", "runs/stripes_tiny_conv"], 3, "the source of tiny_conv has changed since this run was trained"),
    ):
        changed = subprocess.run(
            [python, "-m", "cnnbench", *words], capture_output=True, text=True, check=False, env=environ, timeout=300
        )
        assert changed.returncode == code
        assert message in changed.stderr
    assert [outcome["state"] for outcome in json.loads(cnnbench(*sweep, "--overwrite"))] == ["done"] * 2
    cnnbench("export", "runs/stripes_tiny_conv", "--out", "again")
