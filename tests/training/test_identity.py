"""A run's hash changes with what its outcome depends on, and with nothing else."""

import copy
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cnnbench
from cnnbench.training import identity as module
from cnnbench.training.identity import identity, sources

CONFIG: dict[str, Any] = {
    "model": {"arch": "resnet20", "lr": 0.2, "weight_decay": 5e-4},
    "data": {
        "dataset": "mnist5k",
        "batch_size": 64,
        "root": None,
        "folder": None,
        "name": None,
        "split": None,
        "size": 32,
        "channels": 3,
        "train_images": None,
        "download": False,
    },
    "trainer": {"max_epochs": 3, "precision": None, "devices": "auto", "accelerator": "auto", "max_steps": -1},
    "runs_dir": "runs",
    "task": None,
    "seed_everything": 1,
    "overwrite": False,
    "json": False,
}
IMAGES = "a" * 64

Sources = Callable[[str, str], dict[str, str]]


def changed(key: str, value: object) -> dict[str, Any]:
    """The configuration with one key, such as model.lr, set to another value."""
    config = copy.deepcopy(CONFIG)
    *path, last = key.split(".")
    part = config
    for name in path:
        part = part[name]
    part[last] = value
    return config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.root", "/elsewhere"),
        ("data.folder", "/elsewhere"),
        ("data.download", True),
        ("runs_dir", "/elsewhere"),
        ("trainer.devices", 2),
        ("trainer.accelerator", "cpu"),
        ("trainer.enable_progress_bar", False),
        ("task", "another"),
        ("overwrite", True),
        ("json", True),
    ],
)
def test_where_and_on_what_a_run_is_done_is_no_part_of_it(key: str, value: object) -> None:
    assert identity(changed(key, value), 1, IMAGES) == identity(CONFIG, 1, IMAGES)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.arch", "resnet32"),
        ("model.lr", 0.1),
        ("model.weight_decay", 0.0),
        ("data.batch_size", 128),
        ("data.train_images", 100),
        ("data.size", 64),
        ("data.split", "left-right"),
        ("trainer.max_epochs", 4),
        ("trainer.max_steps", 5),
        ("trainer.precision", "bf16-mixed"),
        ("trainer.limit_train_batches", 3),
        ("trainer.gradient_clip_val", 1.0),
        ("trainer.accumulate_grad_batches", 2),
        ("trainer.check_val_every_n_epoch", 2),
    ],
)
def test_whatever_changes_the_outcome_changes_the_hash(key: str, value: object) -> None:
    assert identity(changed(key, value), 1, IMAGES) != identity(CONFIG, 1, IMAGES)


def test_the_seed_the_images_and_torch_are_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {identity(CONFIG, 1, IMAGES), identity(CONFIG, 2, IMAGES), identity(CONFIG, 1, "b" * 64)}
    monkeypatch.setattr(module.metadata, "version", lambda name: "0.0.1")
    made.add(identity(CONFIG, 1, IMAGES))
    assert len(made) == 4


def test_the_hash_is_a_sha256_in_hexadecimal() -> None:
    assert len(bytes.fromhex(identity(CONFIG, 1, IMAGES))) == 32


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, whose files are the ones that are hashed."""
    real = Path(cnnbench.__file__).parent
    files = shutil.ignore_patterns("__pycache__", "*.pyc")
    copied = Path(shutil.copytree(real, tmp_path / "cnnbench", ignore=files))
    find_spec = importlib.util.find_spec

    def found(name: str) -> object:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            return spec
        return SimpleNamespace(origin=str(copied / Path(spec.origin).relative_to(real)))

    monkeypatch.setattr(importlib.util, "find_spec", found)
    return copied


def edit(file: Path, before: str = "", after: str = "\n# edited\n") -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1) if before else text + after)
    module._read.cache_clear()  # it keeps what a process has read, whose files do not change


def moved(package: Path, file: str, *change: str) -> set[str]:
    """Which of some runs an edit makes others."""
    runs = [("resnet20", "mnist5k"), ("lenet5", "mnist5k"), ("resnet20", "shapes")]
    module._read.cache_clear()
    before = [sources(*run) for run in runs]
    edit(package / file, *change)
    after = [sources(*run) for run in runs]
    module._read.cache_clear()
    return {" ".join(run) for run, old, new in zip(runs, before, after, strict=True) if old != new}


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
        ("registry.py", ALL),
        ("report/compare.py", set()),
        ("report/table.py", set()),
        ("training/sweep.py", set()),
        ("export/graph.py", set()),
        ("__init__.py", set()),
        ("__main__.py", set()),
    ],
)
def test_an_edit_touches_the_runs_that_read_the_file(package: Path, file: str, expected: set[str]) -> None:
    assert moved(package, file) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("SMALL_SIDE = 64", "SMALL_SIDE = 65", ALL),
        ("        return max(self.height, self.width) <= SMALL_SIDE", "        return True", ALL),
        ("class Augment:", "class Augment:\n    extra: int = 0", ALL),
        ("class Robustness:", "class Robustness:\n    extra: int = 0", set()),
        ("class Manifest:", "class Manifest:\n    extra: int = 0", set()),
        ("class RunRecord:", "class RunRecord:\n    extra: int = 0", set()),
        ("SMALL_SIDE = 64", "SMALL_SIDE = 64  # a comment", set()),
    ],
)
def test_of_the_types_only_what_training_uses_counts(
    package: Path, before: str, after: str, expected: set[str]
) -> None:
    assert moved(package, "types.py", before, after) == expected


def test_the_sources_are_named_by_module_and_none_is_left_out(package: Path) -> None:
    found = sources("resnet20", "mnist5k")
    assert {"cnnbench.training.classifier", "cnnbench.training.augment", "cnnbench.architectures.resnet"} <= set(found)
    assert "cnnbench.architectures.lenet" not in found
    for name in set(found) - {module.TYPES}:
        below = package.joinpath(*name.split(".")[1:])
        assert below.with_suffix(".py").is_file() or (below / "__init__.py").is_file()


def test_another_package_s_source_is_no_file_of_ours() -> None:
    assert module._file("torch.nn") is None
    assert module._file("cnnbench.types") is None
    assert module._file("cnnbench.architectures.resnet.resnet20") is None
