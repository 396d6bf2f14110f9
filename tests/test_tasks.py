"""Every task that ships is one that runs."""

from pathlib import Path

import pytest
import yaml

from cnnbench import tasks
from cnnbench.architectures import architecture
from cnnbench.datasets import dataset
from cnnbench.training.config import parse
from cnnbench.types import CnnbenchError, Exit

shipped = pytest.mark.parametrize("path", sorted(tasks.SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)

RECIPE = {"model": {"arch", "lr", "weight_decay"}, "trainer": {"max_epochs"}}
"""What a task may set of the recipe; more would compare recipes, not architectures."""


def test_tasks_ship() -> None:
    assert tasks.names()


@shipped
def test_fit_accepts_the_task(path: Path) -> None:
    config = parse(["--config", str(path)])
    assert config.model.arch == yaml.safe_load(path.read_text())["model"]["arch"]


@shipped
def test_the_task_names_what_is_registered_and_is_named_for_it(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    arch, data = config["model"]["arch"], config["data"]
    assert arch in architecture.entries
    assert data["dataset"] in dataset.entries
    assert path.stem == f"{data.get('name', data['dataset'])}_{arch}"


@shipped
def test_the_task_leaves_the_recipe_alone(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    assert all(set(config.get(part, {})) <= allowed for part, allowed in RECIPE.items())


def test_an_unknown_task_is_a_usage_error_with_the_nearest_names() -> None:
    with pytest.raises(CnnbenchError, match="no config file or task 'mnist5k_lenet': did you mean mnist5k_lenet5") as e:
        tasks.find("mnist5k_lenet")
    assert e.value.code == Exit.USAGE


def test_a_task_in_the_working_folder_wins_over_the_shipped_one() -> None:
    assert tasks.find("mnist5k_lenet5") == tasks.SHIPPED / "mnist5k_lenet5.yaml"
    Path("tasks").mkdir()
    for name in ("mnist5k_lenet5", "my_own"):
        Path(f"tasks/{name}.yaml").write_text("model: {arch: lenet5}")
        assert tasks.find(name) == Path(f"tasks/{name}.yaml")


def test_a_path_is_taken_as_it_is() -> None:
    Path("any.yml").write_text("model: {arch: lenet5}")
    assert tasks.find("any.yml") == Path("any.yml")


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", b"a: [", b"\xff\xfe\x00", b"word"])
def test_a_file_that_is_no_config_is_refused_by_name(content: bytes) -> None:
    Path("bad.yaml").write_bytes(content)
    with pytest.raises(CnnbenchError, match=r"^bad\.yaml ") as refused:
        tasks.find("bad.yaml")
    assert refused.value.code == 2
    assert "\n" not in str(refused.value)


def test_a_folder_is_no_config() -> None:
    Path("configs").mkdir()
    with pytest.raises(CnnbenchError, match="configs is a folder"):
        tasks.find("configs")
