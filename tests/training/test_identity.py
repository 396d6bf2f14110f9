"""A run's hash changes with what its outcome depends on, and with nothing else."""

from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from builders import data_record

from cnnbench import records
from cnnbench.datasets.choice import describe, open_choice
from cnnbench.records.schema import DataConfig, ModelConfig, RunConfig
from cnnbench.training import identity as module
from cnnbench.training.identity import identity
from cnnbench.types import Augment, Preprocessing

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
        ("data.skip_broken", True),  # the hash of the images says what is left
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


@pytest.mark.parametrize(("flag", "value"), [("flip", False), ("flip", True), ("pad", 0), ("pad", 3)])
def test_a_flag_counts_by_what_the_augmentation_comes_to(flag: str, value: int) -> None:
    """mnist5k is padded by 2 and not flipped where no flag says otherwise."""
    config = changed(f"data.{flag}", value)
    data = open_choice(config.data)
    assert getattr(data.augment, flag) == value
    assert (identity(config, data) == identity(CONFIG, open_choice(CONFIG.data))) == (data.augment == Augment(pad=2))


def test_how_files_were_decoded_is_part_of_it_and_what_was_only_measured_is_not() -> None:
    chosen = Preprocessing(background=255, shift=8, border=200, mode="RGB")
    hashes = {
        identity(CONFIG, records.replace(DATA, preprocessing=value))
        for value in (None, chosen, replace(chosen, background=0), replace(chosen, shift=4), replace(chosen, border=1))
    }
    assert len(hashes) == 4


def test_the_version_of_pillow_counts_where_it_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    files = records.replace(DATA, preprocessing=Preprocessing(background=255, shift=8, border=200, mode="RGB"))
    before = identity(CONFIG, DATA), identity(CONFIG, files)
    version = metadata.version
    monkeypatch.setattr(module.metadata, "version", lambda name: "0.1" if name == "pillow" else version(name))
    now = identity(CONFIG, DATA), identity(CONFIG, files)
    assert [then == again for then, again in zip(before, now, strict=True)] == [True, False]


def test_the_images_and_their_record_give_the_same_hash() -> None:
    data = open_choice(CONFIG.data)
    assert identity(CONFIG, data) == identity(CONFIG, describe(data, CONFIG.data))


def test_the_hash_is_a_sha256_in_hexadecimal() -> None:
    assert len(bytes.fromhex(identity(CONFIG, DATA))) == 32


@pytest.mark.parametrize(("file", "part_of_it"), [("nets.py", True), ("layers.py", True), ("unrelated.py", False)])
def test_the_sources_of_a_plugin_are_part_of_it(file: str, part_of_it: bool, plugin: Path) -> None:
    config, other = changed("model.arch", "theirs"), changed("model.arch", "lenet5")
    before = identity(config, DATA), identity(other, DATA)
    (plugin / file).write_text((plugin / file).read_text() + "\n# edited\n")
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
