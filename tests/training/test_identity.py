"""A run's hash changes with what its outcome depends on, and with nothing else."""

import functools
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import data_record

import cnnbench
from cnnbench import records
from cnnbench.architectures import architecture
from cnnbench.datasets import dataset
from cnnbench.datasets.choice import describe, open_choice
from cnnbench.records.schema import DataConfig, ModelConfig, RunConfig
from cnnbench.registry import Entry
from cnnbench.training import identity as module
from cnnbench.training.identity import identity, sources
from cnnbench.types import Augment

CONFIG = RunConfig(
    model=ModelConfig(arch="resnet20", lr=0.2, weight_decay=5e-4),
    data=DataConfig(dataset="mnist5k", batch_size=64),
    trainer={"max_epochs": 3, "precision": None, "devices": "auto", "accelerator": "auto", "max_steps": -1},
    seed_everything=1,
)
DATA = data_record("mnist5k", augment=Augment(pad=2))


def changed(key: str, value: Any) -> RunConfig:
    """The configuration with one key, such as model.lr, set to another value."""
    part, _, name = key.rpartition(".")
    if part == "trainer":
        return records.replace(CONFIG, trainer={**CONFIG.trainer, name: value})
    return records.replace(
        CONFIG, **({part: records.replace(getattr(CONFIG, part), **{name: value})} if part else {name: value})
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.root", "/elsewhere"),
        ("data.folder", "/elsewhere"),
        ("data.download", True),
        ("trainer.accelerator", "cpu"),
        ("trainer.deterministic", True),
        ("trainer.log_every_n_steps", 1),
        ("trainer.limit_test_batches", 2),
        ("trainer.val_check_interval", None),  # as Lightning has it
        ("trainer.sync_batchnorm", False),
        ("trainer.an_option_of_a_later_lightning", None),
        ("trainer.enable_progress_bar", False),
        ("task", "another"),
    ],
)
def test_where_and_on_what_a_run_is_done_is_no_part_of_it(key: str, value: Any) -> None:
    assert identity(changed(key, value), DATA) == identity(CONFIG, DATA)


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
        ("trainer.val_check_interval", 0.5),
        ("trainer.max_time", "00:01:00:00"),
        ("trainer.sync_batchnorm", True),
        ("trainer.devices", 2),
        ("trainer.num_nodes", 2),
        ("trainer.strategy", "fsdp"),
        ("trainer.overfit_batches", 3),
    ],
)
def test_whatever_changes_the_outcome_changes_the_hash(key: str, value: object) -> None:
    assert identity(changed(key, value), DATA) != identity(CONFIG, DATA)


def test_the_seed_the_images_the_augmentation_and_torch_are_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = {
        identity(CONFIG, DATA),
        identity(changed("seed_everything", 2), DATA),
        identity(CONFIG, records.replace(DATA, sha256="other images")),
        identity(CONFIG, records.replace(DATA, augment=Augment(pad=2, flip=True))),
    }
    monkeypatch.setattr(module.metadata, "version", lambda name: "0.0.1")
    hashes.add(identity(CONFIG, DATA))
    assert len(hashes) == 5


@pytest.mark.parametrize(
    ("field", "value"), [("background", "white"), ("depth", 16), ("class_weights", (0.5, 2.0)), ("versions", {})]
)
def test_what_later_versions_set_is_part_of_it(field: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    before, content = identity(CONFIG, DATA), module.describe(CONFIG, DATA)
    assert (content.background, content.depth, content.class_weights) == (None, None, None)
    monkeypatch.setattr(module, "describe", lambda config, data: records.replace(content, **{field: value}))
    assert identity(CONFIG, DATA) != before


def test_the_images_and_their_record_give_the_same_hash() -> None:
    data = open_choice(CONFIG.data)
    assert identity(CONFIG, data) == identity(CONFIG, describe(data, CONFIG.data))


def test_the_hash_is_a_sha256_in_hexadecimal() -> None:
    assert len(bytes.fromhex(identity(CONFIG, DATA))) == 32


def forget() -> None:
    """A process keeps what it has read of files, which do not change while it runs."""
    for read in (module._read, module._without_text):
        read.cache_clear()


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package with an architecture of its own, which imports a helper and leaves another file alone."""
    package = tmp_path / "their_nets"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text("from .layers import layer\n\ndef theirs(spec):\n    return layer(spec)\n")
    (package / "layers.py").write_text("def layer(spec):\n    raise NotImplementedError\n")
    (package / "unrelated.py").write_text("")
    distribution = tmp_path / "their_nets-1.2.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: their-nets\nVersion: 1.2\n")
    (distribution / "entry_points.txt").write_text("[cnnbench.architectures]\ntheirs = their_nets.nets:theirs\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(architecture.entries, "theirs", Entry("theirs", "their_nets.nets", "theirs"))
    forget()
    yield package
    forget()
    for name in [name for name in sys.modules if name.partition(".")[0] == "their_nets"]:
        del sys.modules[name]


@pytest.mark.parametrize(("file", "part_of_it"), [("nets.py", True), ("layers.py", True), ("unrelated.py", False)])
def test_the_sources_of_a_plugin_are_part_of_it(file: str, part_of_it: bool, plugin: Path) -> None:
    config, other = changed("model.arch", "theirs"), changed("model.arch", "lenet5")
    before = identity(config, DATA), identity(other, DATA)
    edit(plugin / file)
    assert (identity(config, DATA) != before[0]) == part_of_it
    assert identity(other, DATA) == before[1]


def test_the_version_of_a_plugin_is_part_of_it(plugin: Path) -> None:
    config = changed("model.arch", "theirs")
    content = module.describe(config, DATA)
    assert content.versions == {"torch": metadata.version("torch"), "their-nets": "1.2"}
    assert {"their_nets.nets", "their_nets.layers"} <= set(content.sources)
    described = plugin.parent / "their_nets-1.2.dist-info" / "METADATA"
    described.write_text(described.read_text().replace("1.2", "1.3"))
    assert module.describe(config, DATA).versions["their-nets"] == "1.3"


def test_another_library_s_networks_are_known_by_its_version() -> None:
    content = module.describe(changed("model.arch", "torchvision/resnet18"), DATA)
    assert content.versions == {name: metadata.version(name) for name in ("torch", "torchvision")}
    assert not [name for name in content.sources if name.startswith("torchvision")]


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
        if spec is None or spec.origin is None:
            return spec
        return SimpleNamespace(origin=str(copied / Path(spec.origin).relative_to(real)))

    monkeypatch.setattr(importlib.util, "find_spec", found)
    return copied


def edit(file: Path, before: str = "", after: str = "\n# edited\n") -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1) if before else text + after)
    forget()


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
    forget()
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
    for name in set(found) - {*module.BY_DEFINITION}:
        below = package.joinpath(*name.split(".")[1:])
        assert below.with_suffix(".py").is_file() or (below / "__init__.py").is_file()
