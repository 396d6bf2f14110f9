"""`list`: every registered name, without waiting for torch."""

import csv
import io
import json

import pytest
from isolated import TORCH, cnnbench_without

from cnnbench import tasks
from cnnbench.__main__ import main
from cnnbench.architectures import architecture
from cnnbench.datasets import dataset

REGISTERED = {
    "architectures": ("arch", architecture),
    "datasets": ("dataset", dataset),
    "tasks": ("task", tasks.names()),
}


@pytest.mark.parametrize("what", REGISTERED)
def test_every_name_is_listed_in_every_format(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    key, names = REGISTERED[what]
    expected = list(names)
    assert expected
    assert main(["list", what, "--format", "json"]) == 0
    assert [row[key] for row in json.loads(capsys.readouterr().out)] == expected
    assert main(["list", what, "--format", "csv"]) == 0
    assert [row[key] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == expected
    assert main(["list", what, "--format", "markdown"]) == 0
    assert [line.split(" | ")[0][2:] for line in capsys.readouterr().out.splitlines()[2:]] == expected
    assert main(["list", what]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in expected)


def test_architectures_come_with_the_cost_they_declare_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--format", "json"]) == 0
    for row in json.loads(capsys.readouterr().out):
        declared = architecture[row["arch"]].declared
        assert (row["params"], row["macs"]) == (declared["params"], declared["macs"])
        assert row["summary"]


@pytest.mark.parametrize("what", REGISTERED)
def test_listing_needs_no_torch(what: str) -> None:
    done = cnnbench_without((*TORCH, "onnx", "onnxruntime", "matplotlib"), "list", what, "--format", "csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 1


def test_an_unknown_kind_is_refused_with_those_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "models"]) == 2
    assert "architectures" in capsys.readouterr().err
