"""`explain`: what a network is made of, and who is turned away."""

import json
from pathlib import Path
from typing import Any

import pytest

from cnnbench.__main__ import main
from cnnbench.analysis import receptive_field
from cnnbench.analysis.cost import cost
from cnnbench.architectures import architecture
from cnnbench.types import COST_SPEC

Capture = pytest.CaptureFixture[str]

DEEP = ("googlenet", "plain56", "resnet44", "resnet50", "resnet56", "resnet101", "resnet110", "resnet152")
"""To measure their receptive fields takes long, and has tests of its own."""


def explained(capsys: Capture, *arguments: str) -> Any:
    assert main(["explain", *arguments, "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return json.loads(printed.out)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("lenet5", "resnet20"))) for name in architecture],
)
def test_layers_add_up_to_the_cost(name: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in DEEP:
        monkeypatch.setattr(receptive_field, "measure_fields", lambda network, spec, layers: [None] * len(layers))
    document = explained(capsys, name, "--size", "32x32x3")
    counted, declared = cost(name, COST_SPEC), architecture[name].declared
    for key in ("params", "macs"):
        summed = sum(layer[key] for layer in document["layers"])
        assert summed == document["cost"][key] == getattr(counted, key) == declared[key]
    assert sum(layer["activations"] for layer in document["layers"]) == document["cost"]["activations"]
    assert sum(layer["macs_share"] for layer in document["layers"]) == pytest.approx(1)
    assert (document["arch"], document["size"], document["classes"]) == (name, [32, 32, 3], 10)


@pytest.mark.parametrize("name", ["mlp", "vgg16", "resnet20", "torchvision/resnet18"])
def test_the_ratio_is_a_fully_connected_layer_s_weights_to_the_layer_s_own(name: str, capsys: Capture) -> None:
    for layer in explained(capsys, name)["layers"]:
        if layer["weights"]:
            inputs, outputs = 1, 1
            for side in layer["input_shape"]:
                inputs *= side
            for side in layer["output_shape"]:
                outputs *= side
            assert layer["fully_connected_weights"] == inputs * outputs
            assert layer["ratio"] == pytest.approx(inputs * outputs / layer["weights"])
            assert layer["kind"] != "linear" or layer["ratio"] == 1
        else:
            assert layer["fully_connected_weights"] is layer["ratio"] is None


def test_lenet_on_digits_is_the_one_of_the_textbooks(capsys: Capture) -> None:
    document = explained(capsys, "lenet5", "--dataset", "mnist")
    assert document["size"] == [28, 28, 1]
    assert document["cost"]["params"] == 61_706
    assert document["cost"]["macs"] == 416_520
    assert document["cost"]["weight_bytes"] == 4 * 61_706
    layers = [layer for layer in document["layers"] if layer["kind"] != "zero padding"]  # LeNet pads 28 to 32
    first = layers[0]
    assert first["input_shape"] == [1, 32, 32]
    assert first["output_shape"] == [6, 28, 28]
    assert (first["weights"], first["params"]) == (150, 156)
    assert first["fully_connected_weights"] == 32 * 32 * 28 * 28 * 6
    assert first["ratio"] == pytest.approx(32 * 32 * 28 * 28 * 6 / 150)
    for key in ("receptive_field", "receptive_field_measured"):
        assert [layer[key] for layer in layers] == [[5, 5], [6, 6], [14, 14], [16, 16], "image", "image", "image"]
    assert [layer["params"] for layer in layers] == [156, 0, 2_416, 0, 48_120, 10_164, 850]


def test_the_table_says_the_same(capsys: Capture) -> None:
    assert main(["explain", "lenet5", "--dataset", "mnist"]) == 0
    shown = capsys.readouterr().out
    for words in ("28x28x1, 10 classes", "28x28x6", "4,816,896", "32,113", "5 / 1 / 0", "image", "61,706 parameters"):
        assert words in shown


def test_two_networks_stand_side_by_side(capsys: Capture) -> None:
    assert main(["explain", "--compare", "lenet5,mlp_lenet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    parameters = next(line for line in lines if line.startswith("parameters "))
    assert "62,006" in parameters
    assert "61,670" in parameters
    assert "0.995" in parameters
    last = next(line for line in lines if line.startswith("7 "))
    assert last.split().count("-") == 5, "the shorter network has no layer here"


def test_two_networks_are_two_documents(capsys: Capture) -> None:
    documents = explained(capsys, "--compare", "lenet5,mlp_lenet")
    assert documents == [explained(capsys, name) for name in ("lenet5", "mlp_lenet")]


def test_a_network_of_another_library_is_explained(capsys: Capture) -> None:
    document = explained(capsys, "torchvision/resnet18", "--size", "224", "--classes", "1000")
    assert (document["cost"]["params"], document["cost"]["macs"]) == (11_689_512, 1_814_073_344)


@pytest.mark.slow
def test_resnet50_at_224_pixels_has_the_published_figures(capsys: Capture) -> None:
    document = explained(capsys, "resnet50", "--size", "224x224x3", "--classes", "1000")
    assert document["cost"]["params"] == sum(layer["params"] for layer in document["layers"]) == 25_557_032
    assert document["cost"]["macs"] == sum(layer["macs"] for layer in document["layers"]) == 4_089_184_256
    assert document["layers"][0]["output_shape"] == [64, 112, 112]
    assert document["cost"]["depth"] == 50


@pytest.mark.parametrize(("name", "field"), [("alexnet", 195), ("vgg16", 212)])
def test_fields_are_those_of_the_literature(name: str, field: int, capsys: Capture) -> None:
    """Behind the last pooling: Araujo, Norris and Sim, Distill 2019."""
    windowed = [layer for layer in explained(capsys, name, "--size", "224")["layers"] if layer["kernel"]]
    assert windowed[-1]["receptive_field"] == windowed[-1]["receptive_field_measured"] == [field, field]


def test_a_dataset_s_size_needs_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("CNNBENCH_DATA", str(empty))
    document = explained(capsys, "linear", "--dataset", "cifar10")
    assert (document["size"], document["classes"]) == ([32, 32, 3], 10)
    assert explained(capsys, "linear", "--dataset", "cifar100", "--classes", "7")["classes"] == 7
    assert list(empty.iterdir()) == []


REFUSED = {
    "no architecture": ([], "explain needs one architecture"),
    "one and two": (["lenet5", "--compare", "lenet5,mlp"], "explain needs one architecture"),
    "one to compare": (["--compare", "lenet5"], "--compare lenet5: expected two architectures"),
    "three to compare": (["--compare", "lenet5,mlp,linear"], "--compare lenet5,mlp,linear: expected two architectures"),
    "dataset and size": (["lenet5", "--dataset", "mnist", "--size", "28x28x1"], "--dataset and --size"),
    "a dataset of any size": (["lenet5", "--dataset", "folder"], "no fixed size: give --size"),
    "unknown dataset": (["lenet5", "--dataset", "cifra10"], "did you mean cifar10"),
    "unknown name": (["lenet"], "did you mean lenet5"),
    "unknown in a comparison": (["--compare", "lenet5,mlp_lenot"], "did you mean mlp_lenet"),
    "too small": (["vgg11", "--size", "8x8x1"], "vgg11 cannot take 8x8x1"),
    "no classes": (["lenet5", "--classes", "0"], "num_classes is 0"),
    "empty size": (["lenet5", "--size", ""], "size ''"),
    "half a size": (["lenet5", "--size", "28x"], "size '28x'"),
    "classes that are no number": (["lenet5", "--classes", "many"], "classes"),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_explained_is_refused_and_a_page_there_is_kept(
    arguments: list[str], words: str, tmp_path: Path, capsys: Capture
) -> None:
    page = tmp_path / "page.html"
    page.write_text("the last one")
    assert main(["explain", *arguments, "--html", str(page)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("cnnbench: ")
    assert words in printed.err
    assert len(printed.err.splitlines()) == 1
    assert "Traceback" not in printed.err
    assert page.read_text() == "the last one"
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("place", ["file/page.html", "folder"])
def test_a_page_that_cannot_be_written_is_refused(place: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    assert main(["explain", "linear", "--html", place]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"cnnbench: cannot write {place}")
    assert len(printed.err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"], "nothing is left behind"


@pytest.mark.usefixtures("sketched")
def test_the_page_is_named_and_holds_each_network(tmp_path: Path, capsys: Capture) -> None:
    assert main(["explain", "--compare", "lenet5,linear", "--html", "deep/page.html"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "page: deep/page.html"
    text = (tmp_path / "deep" / "page.html").read_text()
    assert "lenet5 and linear, layer by layer" in text
    assert text.count('class="drawing"') == 6
    assert "62,006" in text


@pytest.mark.usefixtures("sketched")
def test_with_json_the_page_is_written_and_nothing_else_is_printed(tmp_path: Path, capsys: Capture) -> None:
    assert explained(capsys, "linear", "--html", "page.html")["arch"] == "linear"
    assert (tmp_path / "page.html").is_file()
