"""`doctor`: what is there, what works, and what is wrong."""

import gzip
import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from cnnbench import datasets, environment
from cnnbench.__main__ import main
from cnnbench.datasets import check, mnist5k
from cnnbench.datasets.choice import data_root
from cnnbench.runtime import providers
from cnnbench.types import Finding


@pytest.fixture(autouse=True)
def _no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing was downloaded."""
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "data"))


@pytest.mark.slow
def test_here_nothing_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("Nothing is wrong.\n")
    assert "provider cpu" in printed


@pytest.mark.slow
def test_json_holds_every_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--format", "json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    facts = {finding["topic"]: finding["fact"] for finding in findings}
    assert {f"data {name}" for name in datasets.dataset if name != "folder"} <= set(facts)
    assert (facts["provider cpu"], facts["data mnist"]) == ("works", "not on this machine")
    assert "4,000 / 500 / 500" in facts["data mnist5k"]
    assert f"torch {metadata.version('torch')}" in {finding["fact"] for finding in findings}
    assert not any(finding["wrong"] for finding in findings)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the datasets out where they are not the point."""
    monkeypatch.setattr(check, "check_datasets", list)


@pytest.mark.usefixtures("quick")
def test_wheels_of_onnxruntime_that_clash_are_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clash = Finding("onnxruntime", "two are installed together", "they overwrite each other")
    monkeypatch.setattr(environment, "check_onnxruntime", lambda path: [clash])
    assert main(["doctor"]) == 6
    assert "WRONG onnxruntime: they overwrite each other\n" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [ImportError("no _pybind_state"), AttributeError("no attribute")])
def test_an_onnxruntime_that_cannot_be_imported_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def usable() -> dict[str, str]:
        raise error

    monkeypatch.setattr(providers, "usable", usable)
    assert main(["doctor"]) == 6
    assert f"WRONG provider cpu: onnxruntime cannot be used: {error}\n" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_a_lightning_release_that_was_malware_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "versions", lambda: {"lightning": "2.6.3"})
    assert main(["doctor"]) == 6
    assert "WRONG lightning: " in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("gpus", "reasons", "code"),
    [
        ([], {"cpu": "", "cuda": "no GPU"}, 0),
        (["H1"], {"cpu": "", "cuda": "no library"}, 6),
        pytest.param([], {"cpu": "broken", "cuda": ""}, 6, marks=pytest.mark.slow),
    ],
    ids=["no GPU is not wrong", "a GPU that cannot be used is", "a CPU that cannot be used is"],
)
def test_a_provider_is_wrong_only_where_it_should_work(
    gpus: list[str], reasons: dict[str, str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "gpus", lambda: gpus)
    monkeypatch.setattr(environment, "versions", lambda: {"onnxruntime-gpu": "1.31.1"})
    monkeypatch.setattr(providers, "usable", lambda: reasons)
    assert main(["doctor"]) == code


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at mnist5k alone."""
    monkeypatch.setattr(check, "check_datasets", lambda: [check.check_dataset("mnist5k", data_root())])


@pytest.mark.usefixtures("only")
@pytest.mark.parametrize("damage", ["altered", "truncated"])
def test_altered_or_truncated_data_are_wrong(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = gzip.decompress(mnist5k._csv().read_bytes())
    if damage == "altered":
        data = gzip.compress(content.replace(b",255", b",254", 1), compresslevel=1)
    else:
        data = gzip.compress(content, compresslevel=1)[:-1000]
    (tmp_path / "digits.csv.gz").write_bytes(data)
    monkeypatch.setattr(mnist5k, "_csv", lambda: tmp_path / "digits.csv.gz")
    assert main(["doctor"]) == 6
    assert "WRONG data mnist5k: " in capsys.readouterr().out


def test_an_altered_download_is_wrong(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, count in (("train", 20), ("t10k", 10)):
        images = np.array([0x803, count, 28, 28], ">i4").tobytes() + bytes(count * 28 * 28)
        labels = np.array([0x801, count], ">i4").tobytes() + bytes(i % 10 for i in range(count))
        (raw / f"{split}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(labels)
    assert "altered" in check.check_dataset("mnist", data_root()).wrong
