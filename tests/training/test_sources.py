"""The sources that training reads: which edits make a run another one, and its weights those of another network."""

import functools
import importlib.util
import logging
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import cnnbench
from cnnbench.__main__ import main
from cnnbench.architectures import architecture
from cnnbench.datasets import dataset
from cnnbench.training import sources as sources_module
from cnnbench.training.sources import BY_DEFINITION, built_from, check_unchanged, sources
from cnnbench.types import CnnbenchError, Exit, ImageSpec


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, whose files are the ones that are hashed."""
    real = Path(cnnbench.__file__).parent
    files = shutil.ignore_patterns("__pycache__", "*.pyc")
    copied = Path(shutil.copytree(real, tmp_path / "cnnbench", ignore=files))
    assert architecture.entries
    assert dataset.entries  # read from the package itself, before its files are replaced by the copy
    find_spec = importlib.util.find_spec

    def found(name: str) -> object:
        spec = find_spec(name)
        if spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(real):
            return spec
        return SimpleNamespace(origin=str(copied / Path(spec.origin).relative_to(real)))

    monkeypatch.setattr(importlib.util, "find_spec", found)
    return copied


def edit(file: Path, before: str = "", after: str = "\n# edited\n") -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1) if before else text + after)


RUNS = [("resnet20", "mnist5k"), ("lenet5", "mnist5k"), ("resnet20", "shapes")]


@functools.cache
def of_a_copy() -> list[dict[str, str]]:
    """The sources of the runs in a copy that nobody has edited, the same in each."""
    return [sources(*run) for run in RUNS]


def moved(package: Path, file: str, *change: str) -> set[str]:
    """Which of some runs an edit makes others."""
    before = of_a_copy()
    edit(package / file, *change)
    after = [sources(*run) for run in RUNS]
    return {" ".join(run) for run, old, new in zip(RUNS, before, after, strict=True) if old != new}


ALL = {"resnet20 mnist5k", "lenet5 mnist5k", "resnet20 shapes"}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("architectures/resnet.py", {"resnet20 mnist5k", "resnet20 shapes"}),
        ("architectures/lenet.py", {"lenet5 mnist5k"}),
        ("datasets/mnist5k.py", {"resnet20 mnist5k", "lenet5 mnist5k"}),
        ("datasets/shapes.py", {"resnet20 shapes"}),
        ("training/augment.py", ALL),
        ("training/classifier.py", ALL),
        ("training/data.py", ALL),
        ("datasets/__init__.py", ALL),
        ("architectures/__init__.py", ALL),
        ("training/checkpoints.py", ALL),
        ("training/precision.py", ALL),
        ("training/folder.py", set()),
        ("registry.py", set()),
        ("records/io.py", set()),
        ("cli/compare.py", set()),
        ("cli/table.py", set()),
        ("sweeps/run.py", set()),
        ("bundles/graph.py", set()),
        ("training/run.py", set()),
        ("training/recorder.py", set()),
        ("__init__.py", set()),
        ("__main__.py", set()),
    ],
)
def test_an_edit_touches_the_runs_that_read_the_file(package: Path, file: str, expected: set[str]) -> None:
    assert moved(package, file) == expected


@pytest.mark.parametrize(
    ("file", "before", "after", "expected"),
    [
        ("types.py", "SMALL_SIDE = 64", "SMALL_SIDE = 65", ALL),
        ("types.py", "        return max(self.height, self.width) <= SMALL_SIDE", "        return True", ALL),
        ("types.py", "class Augment:", "class Augment:\n    extra: int = 0", ALL),
        ("types.py", "class Cost:", "class Cost:\n    extra: int = 0", set()),
        ("records/schema.py", "    batch_size: int = 128", "    batch_size: int = 64", ALL),
        ("records/schema.py", "class Part(", "class Other:\n    pass\n\n\nclass Part(", set()),
        ("records/schema.py", "    shifts: tuple[int, ...]", "    shifts: tuple[float, ...]", set()),
        ("records/schema.py", "class RunRecord(", "class RunRecord1(", set()),
        ("types.py", "SMALL_SIDE = 64", "SMALL_SIDE = 64  # a comment", set()),
        ("types.py", "needs at least 1", "needs 1 or more", set()),
        ("types.py", "Seeds every draw", "The seed of every draw", set()),
        ("records/io.py", "choose a folder you can write to", "choose another", set()),
        ("records/io.py", "            os.fsync(file.fileno())", "            pass", ALL),
        ("registry.py", "unknown {self.kind}", "no {self.kind}", set()),
        ("registry.py", "importlib.import_module(self.module)", "importlib.import_module(self.name)", ALL),
        ("training/folder.py", "is in use: another", "is held: another", set()),
        ("training/folder.py", "LOCK_SECONDS = 1.0", "LOCK_SECONDS = 2.0", set()),
        ("training/folder.py", '"last.ckpt"', '"newest.ckpt"', ALL),
    ],
)
def test_of_types_and_records_only_what_training_uses_counts(
    package: Path, file: str, before: str, after: str, expected: set[str]
) -> None:
    assert moved(package, file, before, after) == expected


def test_the_sources_are_named_by_module_and_none_is_left_out(package: Path) -> None:
    found = sources("resnet20", "mnist5k")
    assert {"cnnbench.training.classifier", "cnnbench.training.augment", "cnnbench.architectures.resnet"} <= set(found)
    assert "cnnbench.architectures.lenet" not in found
    for name in set(found) - {*BY_DEFINITION}:
        below = package.joinpath(*name.split(".")[1:])
        assert below.with_suffix(".py").is_file() or (below / "__init__.py").is_file()


# --- weights, and the source of their network -------------------------------------------------------------------------

RUN = "runs/mnist5k_theirs/seed1"
SHORT = ["--model.arch", "theirs", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
READ = [["validate", *SHORT], ["test", *SHORT], ["predict", *SHORT], ["export", RUN]]


def refused(capsys: pytest.CaptureFixture[str], reason: str) -> None:
    """Every way to a run's weights: exit 3, in one line."""
    capsys.readouterr()
    for arguments in READ:
        assert main(arguments) == Exit.DATA
        printed = capsys.readouterr().err
        assert reason in printed
        assert printed.count("\n") == 1
    with pytest.raises(CnnbenchError, match=reason.partition(" (")[0]) as error:
        cnnbench.Classifier.load_from_checkpoint(f"{RUN}/best.ckpt")
    assert error.value.code == Exit.DATA


def forget_sources() -> None:
    """Make the checkpoints those of a version that did not note the sources."""
    for path in Path(RUN).glob("*.ckpt"):
        checkpoint = torch.load(path, weights_only=True)
        assert {*checkpoint["cnnbench"].pop("built_from")} == {"their_nets.nets", "their_nets.layers"}
        torch.save(checkpoint, path)


def test_weights_are_refused_where_the_source_of_their_network_has_changed(
    plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *SHORT, "--test"]) == 0
    layers = (plugin / "layers.py").read_text()
    edit(plugin / "layers.py", "nn.ReLU()", "nn.Tanh()")
    reason = "the source of theirs has changed since this run was trained (their_nets.layers): train it again"
    refused(capsys, reason)
    (plugin / "layers.py").write_text(layers)
    edit(plugin / "unrelated.py")
    assert [main(arguments) for arguments in READ[:3]] == [0, 0, 0]


def test_weights_that_do_not_fit_a_changed_network_are_refused_where_no_source_was_noted(
    plugin: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["fit", *SHORT, "--test"]) == 0
    forget_sources()
    edit(plugin / "layers.py")
    assert main(READ[0]) == 0
    nets = importlib.import_module("their_nets.nets")
    monkeypatch.setattr(nets, "theirs", lambda spec: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    refused(capsys, "the checkpoint does not hold the weights of theirs")


def test_networks_of_ours_are_known_by_their_name_those_of_libraries_by_the_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert built_from("lenet5") == {}
    before = built_from("torchvision/resnet18")
    assert before == {"torchvision": metadata.version("torchvision")}
    check_unchanged("torchvision/resnet18", before)
    with pytest.raises(CnnbenchError, match=r"trained with torchvision 0\.1, and this is .*: train it again") as error:
        check_unchanged("torchvision/resnet18", {"torchvision": "0.1"})
    assert error.value.code == Exit.DATA


def test_the_version_of_a_package_whose_sources_are_the_same_is_left_alone(plugin: Path) -> None:
    before = built_from("theirs")
    assert {*before} == {"their_nets.nets", "their_nets.layers"}
    described = plugin.parent / "their_nets-1.2.dist-info" / "METADATA"
    described.write_text(described.read_text().replace("1.2", "1.3"))
    check_unchanged("theirs", before)


def test_a_compiled_module_counts_as_a_whole(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = plugin / "layers.so"
    compiled.write_bytes(b"\x00\x7fELF")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: SimpleNamespace(origin=str(compiled)) if name == "their_nets.layers" else find_spec(name),
    )
    before = built_from("theirs")
    compiled.write_bytes(b"\x00\x7fELF2")
    with pytest.raises(CnnbenchError, match=r"\(their_nets.layers\)"):
        check_unchanged("theirs", before)


def test_a_module_without_a_file_has_no_source() -> None:
    assert sources_module._file("zipimport", {"zipimport"}) is None  # frozen into Python


class Maker:
    """Builds networks of a width."""

    width = 16

    def __init__(self, depth: int) -> None:
        self.depth = depth

    def build(self, spec: ImageSpec) -> nn.Module:
        return make(spec, width=self.depth)

    @classmethod
    def wide(cls, spec: ImageSpec) -> nn.Module:
        return make(spec, width=cls.width)


def make(spec: ImageSpec, width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.height * spec.width * spec.channels, width))


LOGGER = logging.getLogger("of this test")


def logs(spec: ImageSpec) -> nn.Module:
    LOGGER.info("built")
    return make(spec, width=THING_WITH_AN_ADDRESS and 10)


THING_WITH_AN_ADDRESS = object()


@pytest.fixture(params=["__main__", __name__])
def local(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Registers a builder as "theirs", as a script or as a module that it imports does."""
    for value in (Maker, Maker.build, Maker.wide.__func__, make, logs):  # type: ignore[attr-defined]
        monkeypatch.setattr(value, "__module__", request.param)

    monkeypatch.setattr(architecture, "entries", dict(architecture.entries))

    def register(builder: Any) -> None:
        cnnbench.register_architecture(name="theirs")(builder)
        assert architecture["theirs"].module == request.param

    return register


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (functools.partial(make, width=10), functools.partial(make, width=11)),
        (functools.partial(functools.partial(make), width=10), functools.partial(functools.partial(make), width=11)),
        (Maker(10).build, Maker(11).build),
        (functools.partial(make, width=10), Maker(10).build),
    ],
)
def test_the_arguments_of_a_partial_and_the_object_of_a_method_count(
    before: Any, after: Any, local: Callable[[Any], None]
) -> None:
    local(before)
    of_run, trained = sources("theirs", "mnist5k"), built_from("theirs")
    assert (sources("theirs", "mnist5k"), built_from("theirs")) == (of_run, trained)
    check_unchanged("theirs", trained)
    local(after)
    assert sources("theirs", "mnist5k") != of_run
    with pytest.raises(CnnbenchError, match="the source of theirs has changed"):
        check_unchanged("theirs", trained)


def test_the_class_of_a_class_method_counts(local: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    local(Maker.wide)
    before = built_from("theirs")
    assert {*before} == {"__main__.theirs", *([__name__] if Maker.__module__ == __name__ else [])}
    monkeypatch.setattr(Maker, "width", 17)
    assert (built_from("theirs") == before) == (Maker.__module__ == __name__)  # a file counts as it is on disk


def test_a_builder_that_uses_what_cannot_be_described_is_compared_by_the_rest(
    monkeypatch: pytest.MonkeyPatch, local: Callable[[Any], None]
) -> None:
    local(logs)
    trained = built_from("theirs")
    logging.getLogger("of this test.another")
    monkeypatch.setitem(globals(), "THING_WITH_AN_ADDRESS", object())
    check_unchanged("theirs", trained)
    if logs.__module__ == "__main__":
        assert sources("theirs") != sources("theirs")
        monkeypatch.setitem(globals(), "make", lambda spec, width: None)
        with pytest.raises(CnnbenchError, match=r"has changed since this run was trained \(__main__.theirs\)"):
            check_unchanged("theirs", trained)
