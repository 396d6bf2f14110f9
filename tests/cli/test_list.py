"""`list`: every registered name, without waiting for torch."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from isolated import TORCH, cnnbench_without

from cnnbench import tasks
from cnnbench.__main__ import main
from cnnbench.architectures import architecture
from cnnbench.datasets import dataset
from cnnbench.registry import Registry

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
    if what == "architectures":
        declared = {name: architecture[name].declared for name in expected}
        expected.sort(key=lambda name: (declared[name]["macs"], declared[name]["params"]))
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


Row = dict[str, Any]


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Row]:
    """Rows by name."""
    assert main(["list", *arguments, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    return {row.get("arch") or row["dataset"]: row for row in rows}


PUBLISHED = {
    "alexnet": (61_100_840, 0.71),
    "vgg11": (132_863_336, 7.61),
    "vgg16": (138_357_544, 15.47),
    "vgg16_bn": (138_365_992, 15.47),
    "vgg19": (143_667_240, 19.63),
    "resnet18": (11_689_512, 1.81),
    "resnet34": (21_797_672, 3.66),
    "resnet50": (25_557_032, 4.09),
    "resnet101": (44_549_160, 7.80),
    "resnet152": (60_192_808, 11.51),
    "torchvision/googlenet": (6_624_904, 1.50),
    "torchvision/inception_v3": (23_834_568, 5.71),
}
"""Parameters and thousand million multiply-adds of torchvision's model cards; without the heads for training only."""


@pytest.mark.slow
def test_at_224_pixels_the_list_has_the_published_figures(capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys, "--size", "224", "--classes", "1000")
    assert set(rows) == {*architecture, "torchvision/googlenet", "torchvision/inception_v3"}
    for name, (params, giga) in PUBLISHED.items():
        assert rows[name]["params"] == params
        assert rows[name]["macs"] / 1e9 == pytest.approx(giga, rel=0.01)
        assert rows[name]["classes"] == 1000
        assert rows[name]["weight_bytes"] == 4 * params
        assert rows[name]["activation_bytes"] == 4 * rows[name]["activations"]
    assert rows["torchvision/inception_v3"]["params_with_auxiliary_heads"] == 27_161_264
    sides = {name: 299 if name == "torchvision/inception_v3" else 224 for name in rows}
    assert {name: row["size"] for name, row in rows.items()} == {name: f"{s}x{s}x3" for name, s in sides.items()}
    assert rows["googlenet"]["depth"] == 22


def test_a_size_that_a_network_cannot_take_leaves_its_row_empty_and_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "lenet5", "vgg11")
    rows = listed(capsys, "--size", "8x8x1")
    assert rows["vgg11"]["summary"].startswith("vgg11 cannot take 8x8x1 images")
    assert rows["vgg11"]["params"] is rows["vgg11"]["macs"] is rows["vgg11"]["depth"] is None
    assert (rows["lenet5"]["params"], rows["lenet5"]["depth"]) == (61_706, 5)
    for format in ("table", "csv", "markdown"):
        assert main(["list", "--size", "8x8x1", "--format", format]) == 0
        assert "lenet5" in capsys.readouterr().out


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setitem(vars(architecture), "entries", {name: architecture[name] for name in names})


def test_classes_alone_are_counted_at_the_usual_size(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "linear")
    row = listed(capsys, "--classes", "100")["linear"]
    assert (row["size"], row["classes"], row["params"]) == ("32x32x3", 100, 3 * 32 * 32 * 100 + 100)


def test_the_usual_size_and_classes_are_told_without_being_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert {(row["size"], row["classes"]) for row in listed(capsys).values()} == {("32x32x3", 10)}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("datasets", "--size", "3"), "list datasets has no cost to count"),
        (("tasks", "--classes", "3"), "list tasks has no cost to count"),
        (("--classes", "0"), "num_classes is 0: an image spec needs at least 1"),
        (("--size", "0"), "height is 0: an image spec needs at least 1"),
        (("--size", "3x"), "size '3x': expected HEIGHTxWIDTHxCHANNELS"),
    ],
)
def test_a_size_that_says_nothing_is_refused_in_one_line(
    arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"cnnbench: {expected}")
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("what", "registry", "stated", "said"),
    [
        ("architectures", architecture, "params='460', macs=3", "declares params='460': expected a whole number from"),
        ("datasets", dataset, "size='abc', classes='ten'", "declares size='abc': expected HEIGHTxWIDTHxCHANNELS"),
    ],
)
def test_a_wrong_declaration_stands_in_its_own_row_alone(
    what: str,
    registry: Registry,
    stated: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "theirs_of_a_list.py").write_text(f"@cnnbench.register_{registry.kind}({stated})\ndef make(_): ...\n")
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.package}]\ntheirs = theirs_of_a_list:make\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.entries  # so that they come back
    monkeypatch.delitem(vars(registry), "entries")  # they are read anew
    row = listed(capsys, what)["theirs"]
    assert row["summary"].startswith(said)
    assert row["params" if what == "architectures" else "classes"] is None
    assert main(["list", what]) == 0
    assert said in capsys.readouterr().out


def test_datasets_are_listed_with_size_and_classes(capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys, "datasets")
    assert {name: (row["size"], row["classes"]) for name, row in rows.items()} == {
        "cifar10": ("32x32x3", 10),
        "cifar100": ("32x32x3", 100),
        "emnist": ("28x28x1", 47),
        "fashion_mnist": ("28x28x1", 10),
        "folder": (None, None),
        "kmnist": ("28x28x1", 10),
        "mnist": ("28x28x1", 10),
        "mnist5k": ("28x28x1", 10),
        "shapes": ("32x32x3", 10),
        "stl10": ("96x96x3", 10),
        "svhn": ("32x32x3", 10),
    }
