"""A run's configuration, to and from flags and YAML files."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Union, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench import datasets
from cnnbench.records.schema import DataConfig
from cnnbench.training.classifier import Classifier
from cnnbench.training.config import (
    configure,
    flags_of,
    parse,
    portable,
    run_flags,
    task_name,
    trainer_options,
    whole_numbers_first,
)
from cnnbench.training.spelling import task_flags
from cnnbench.types import CnnbenchError, Exit

LENET = ["--model.arch", "lenet5"]


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ([], ["--model.arch lenet5"]),
        (["--model.arch", "mlp", "--model.lr", "0.01"], ["--model.arch mlp", "--model.lr 0.01"]),
        (["--trainer.max_epochs", "3", "--data.batch_size", "32"], ["--data.batch_size 32", "--trainer.max_epochs 3"]),
        (["--task", "a task; rm"], ["--task 'a task; rm'"]),
        (["--data.dataset", "folder", "--data.folder", "mine"], ["--data.dataset folder", "--data.folder FOLDER"]),
        (["--data.name", "Größe \"1\" and 'two'"], []),
        (["--data.name=-:"], ["--data.name=-:"]),
        (["--task=--a"], ["--task=--a"]),
        (["--data.name", "back\\slash"], []),
        (["--data.dataset", "mnist", "--data.root", "elsewhere"], []),
        (["--trainer.gradient_clip_val", "0.5"], ["--trainer.gradient_clip_val 0.5"]),
        (["--trainer.limit_train_batches", "1.0"], ["--trainer.limit_train_batches 1.0"]),
        (["--trainer.limit_train_batches", "7"], ["--trainer.limit_train_batches 7"]),
        (["--trainer.profiler", "simple"], ["--trainer.profiler simple"]),
        (["--trainer.deterministic", "true"], ["--trainer.deterministic true"]),
        (["--trainer.devices", "[0,1]"], ["--trainer.devices '[0, 1]'"]),
        (["--trainer.max_time", "{hours: 1}"], []),
        (["--seed_everything", "7"], ["--seed_everything 7"]),
        (["--model.compile", "true"], ["--model.compile true"]),
    ],
    ids=lambda value: " ".join(value or ["-"]),
)
def test_the_flags_give_the_configuration_again(arguments: list[str], flags: list[str]) -> None:
    config = portable(parse([*LENET, *arguments]))
    shown = flags_of(config)
    assert parse(shown) == config
    assert "elsewhere" not in shown
    for flag in flags:
        assert flag in shlex.join(shown)


@settings(max_examples=25, deadline=None)
@given(
    lr=st.floats(1e-6, 10),
    batch_size=st.integers(1, 10_000),
    name=st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12),
    epochs=st.integers(1, 500),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_values_survive_the_way_through_flags(
    lr: float, batch_size: int, name: str, epochs: int, seed: int
) -> None:
    values = {
        "model.lr": lr,
        "data.batch_size": batch_size,
        "trainer.max_epochs": epochs,
        "seed_everything": seed,
    }
    config = parse([*LENET, f"--data.name={name}", *(f"--{key}={value!r}" for key, value in values.items())])
    shown = (config.model.lr, config.data.batch_size, config.trainer["max_epochs"], config.seed_everything)
    assert shown == (lr, batch_size, epochs, seed)
    assert config.data.name == (None if name == "null" else name)
    assert parse(flags_of(config)) == config


def test_defaults_are_those_of_the_classifier_the_data_and_our_few_trainer_options() -> None:
    config = parse(LENET)
    classifier = Classifier("lenet5")
    assert (config.model.lr, config.model.weight_decay) == (classifier.lr, classifier.weight_decay)
    assert config.data == DataConfig()
    assert (config.trainer["max_epochs"], config.trainer["precision"], config.trainer["devices"]) == (
        10,
        "auto",
        "auto",
    )
    assert config.seed_everything == 1


def test_every_flag_has_help_and_none_could_name_code() -> None:
    flags = {flag.name: flag for flag in run_flags()}
    assert all(flag.help for flag in flags.values())
    assert not {"trainer.logger", "trainer.callbacks", "trainer.plugins", "trainer.default_root_dir"} & set(flags)
    assert not [name for name, flag in flags.items() if "lightning" in str(flag.type)]


def test_flags_win_over_a_file_and_a_later_file_over_an_earlier_one() -> None:
    Path("one.yaml").write_text("model: {arch: mlp, lr: 0.5}\ndata: {batch_size: 3}\n")
    Path("two.yaml").write_text("model: {arch: lenet5}\n")
    config = parse(["--config", "one.yaml", "--config=two.yaml", "--data.batch_size", "4"])
    assert (config.model.arch, config.model.lr, config.data.batch_size) == ("lenet5", 0.5, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.lrr", "1"], "fit: unknown option --model.lrr: did you mean --model.lr?"),
        (["--model.lr", "fast"], "fit: model.lr is fast: expected a number"),
        (["--model.lr"], "fit: --model.lr needs a value (see `cnnbench fit --help`)"),
        (["--data.size", "3.5"], "fit: data.size is 3.5: expected a whole number"),
        (["--trainer.limit_train_batches", "x"], "is x: expected a whole number or a number"),
        (["--trainer.enable_model_summary", "maybe"], "expected true or false"),
        (["--trainer.precision", "8"], "expected one of auto, 32-true, "),
        (["--seed_everything", "-1"], "seed_everything is -1: a run is named by its seed, a whole number from 0 to"),
        (["--seed_everything", "4294967296"], "from 0 to 2**32 - 1"),
        (["mnist5k_lenet5", "mlp"], "fit: one name is expected, here are mnist5k_lenet5, mlp: `cnnbench sweep "),
        (["--config", "keys.yaml"], "fit: keys.yaml has an unknown key 'data.sizze': did you mean data.size?"),
        (["--config", "code.yaml"], "code.yaml has an unknown key 'model.class_path'"),
        (["--config", "value.yaml"], "data.size is [1]: expected a whole number"),
        (["--trainer.logger", "false"], "unknown option --trainer.logger"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_accepted_is_refused_in_one_line(arguments: list[str], message: str) -> None:
    Path("keys.yaml").write_text("data: {sizze: 3}\n")
    Path("code.yaml").write_text("model: {class_path: os.system}\n")
    Path("value.yaml").write_text("data: {size: [1]}\n")
    with pytest.raises(CnnbenchError) as error:
        parse([*LENET, *arguments])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.code == Exit.USAGE


def test_an_architecture_must_be_named() -> None:
    with pytest.raises(CnnbenchError, match="name an architecture, a task or a run, such as `cnnbench fit lenet5`"):
        parse(["--data.dataset", "mnist5k"])


@pytest.mark.parametrize("name", ["", "..", "../../evil", "a/b", "a\\b", "/evil", ".hidden", "a\nb", "a\x00b"])
def test_a_task_s_name_names_one_folder(name: str) -> None:
    with pytest.raises(CnnbenchError, match="it names a folder") as refused:
        task_name(parse([*LENET, f"--task={name}"]))
    assert refused.value.code == Exit.USAGE


def test_a_name_of_the_data_names_one_folder() -> None:
    with pytest.raises(CnnbenchError, match="it names a folder"):
        task_name(parse([*LENET, "--data.name", "../../evil"]))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "mnist5k_lenet5"),
        (["--data.dataset", "shapes", "--data.split", "left-right"], "shapes_left-right_lenet5"),
        (["--data.name", "pets"], "pets_lenet5"),
        (["--task", "mine"], "mine"),
        (["--model.arch", "torchvision/resnet18"], "mnist5k_torchvision-resnet18"),
    ],
)
def test_a_task_is_named_for_its_data_and_its_architecture(arguments: list[str], name: str) -> None:
    assert task_name(parse([*LENET, *arguments])) == name


def test_trainer_options_have_our_defaults_and_no_unknown_names() -> None:
    from cnnbench import records

    config = records.replace(parse(LENET), trainer={"max_epochs": 3})
    options = trainer_options(config)
    assert (options["max_epochs"], options["precision"], options["num_sanity_val_steps"]) == (3, "auto", 0)
    with pytest.raises(CnnbenchError, match="unknown trainer option 'max_epoch': did you mean max_epochs"):
        trainer_options(records.replace(config, trainer={"max_epoch": 3}))


def test_options_by_their_last_part_and_paths_are_a_configuration(tmp_path: Path) -> None:
    config = configure(arch="lenet5", dataset="folder", folder=tmp_path, max_epochs=2, seed=7, lr=0.5, name="pets")
    assert (config.model.arch, config.model.lr, config.data.folder) == ("lenet5", 0.5, str(tmp_path))
    assert (config.data.name, config.trainer["max_epochs"], config.seed_everything) == ("pets", 2, 7)
    assert configure("lenet5", dataset="mnist", epochs=2) == configure("mnist_lenet5", max_epochs=2)
    assert configure("mnist5k_lenet5", **{"trainer.max_epochs": 3}).trainer["max_epochs"] == 3
    with pytest.raises(CnnbenchError, match=r"unknown option 'max_epoch': did you mean max_epochs"):
        configure("mnist5k_lenet5", max_epoch=3)


class Block:
    """What prints on several lines, as a network does."""

    def __repr__(self) -> str:
        return "Block(\n)"


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        (
            Block(),
            {},
            "a Block is not a task: expected its name, a YAML file or a configuration; a network of yours has",
        ),
        (
            None,
            {"arch": Block()},
            "a Block is not a name: expected the name of an architecture; register a builder with",
        ),
        (None, {"arch": "linear", "max_epochs": Block()}, "trainer.max_epochs is a Block: expected a whole number"),
        (None, {"arch": "linear", "lr": {1, 2}}, "model.lr is {1, 2}: expected a number"),
    ],
    ids=range(4),
)
def test_what_cannot_be_written_into_a_configuration_is_one_line(
    task: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(CnnbenchError) as refused:
        configure(task, **options)
    assert str(refused.value).startswith(words)
    assert "\n" not in str(refused.value)


def test_numbers_of_numpy_are_numbers() -> None:
    assert configure(arch="linear", seed=np.int64(7), lr=np.float32(0.5)).seed_everything == 7


def test_a_task_that_two_datasets_could_begin_is_of_the_one_whose_architecture_exists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = datasets.dataset.entries
    monkeypatch.setattr(datasets.dataset, "entries", {**entries, "mnist_rot": entries["mnist"]})
    assert task_flags("mnist_rot_lenet5") == ["--data.dataset=mnist_rot", "--model.arch=lenet5"]
    assert task_flags("mnist_resnet32") == ["--data.dataset=mnist", "--model.arch=resnet32"]


@pytest.mark.parametrize("flags", [["--data.folder", "mine"], ["--data.folder=mine", "--data.size", "64"]])
def test_a_folder_implies_its_data_set(flags: list[str]) -> None:
    assert parse([*LENET, *flags]).data.dataset == "folder"


def test_a_folder_beside_another_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("data: {dataset: mnist}\n")
    for flags in (["--data.dataset", "mnist"], ["--config", str(tmp_path / "x.yaml")]):
        with pytest.raises(CnnbenchError, match=r"data\.folder is mine: the data set mnist does not use it; .*folder"):
            parse([*LENET, *flags, "--data.folder", "mine"])


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("mnist", "size=28"),
        ("mnist", "channels=1"),
        ("mnist5k", "skip_broken=true"),
        ("mnist5k", "root=x"),
        ("shapes", "download=true"),
        ("folder", "download=true"),
    ],
)
def test_a_flag_that_the_data_set_does_not_use_is_refused(name: str, flag: str) -> None:
    with pytest.raises(CnnbenchError, match=f"the data set {name} does not use it; those that do are") as refused:
        parse([*LENET, "--data.dataset", name, f"--data.{flag}"])
    assert refused.value.code == Exit.USAGE


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (float | int | None, (int, float, type(None))),
        (Union[float, str, int], (int, str, float)),  # noqa: UP007
        (int | float, (int, float)),
        (str | float, (str, float)),
        (float, ()),
    ],
    ids=str,
)
def test_a_whole_number_is_read_as_one(kind: Any, expected: tuple[Any, ...]) -> None:
    assert get_args(whole_numbers_first(kind)) == expected


@pytest.mark.slow
def test_one_batch_is_not_all_batches_whatever_was_imported_before() -> None:
    """`Optional[Union[float, int]]` before Lightning is imported gives its flags this order."""
    code = (
        "from typing import Optional, Union\nOptional[Union[float, int]]\n"
        "from cnnbench.training.config import parse\n"
        "config = parse(['--model.arch', 'lenet5', '--trainer.limit_val_batches', '1'])\n"
        "print(repr(config.trainer['limit_val_batches']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
