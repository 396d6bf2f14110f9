"""Which runs a sweep has, and what their folders hold."""

import pickle
from pathlib import Path

import msgspec
import pytest
import yaml
from PIL import Image

from cnnbench.__main__ import main
from cnnbench.sweeps.plan import DECIDED, Planned, plan, state
from cnnbench.types import CnnbenchError, Exit

SHORT = ["trainer.max_epochs=1"]


def planned(
    names: list[str], seeds: int = 1, overrides: list[str] = SHORT, counts: tuple[int, ...] = ()
) -> list[Planned]:
    return plan(names, seeds=seeds, overrides=overrides, train_images=counts)


@pytest.fixture
def linear() -> Planned:
    """A run in this test's folder, where `fit` would have it."""
    return planned(["mnist5k_linear"])[0]


def refusal(
    names: list[str], overrides: list[str] = SHORT, counts: tuple[int, ...] = (), code: Exit = Exit.USAGE
) -> str:
    with pytest.raises(CnnbenchError) as refused:
        planned(names, overrides=overrides, counts=counts)
    assert refused.value.code == code
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_every_task_has_every_seed_in_a_folder_of_its_own() -> None:
    found = planned(["mnist5k_linear", "mnist5k_mlp"], seeds=2)
    expected = [("mnist5k_linear", 1), ("mnist5k_linear", 2), ("mnist5k_mlp", 1), ("mnist5k_mlp", 2)]
    assert [(run.task, run.seed) for run in found] == expected
    assert [run.config.seed_everything for run in found] == [1, 2, 1, 2]
    assert len({run.identity for run in found}) == 4
    for run in found:
        assert Path(run.folder) == Path.cwd() / "runs" / run.task / f"seed{run.seed}"


def test_a_run_can_be_sent_to_another_process(linear: Planned) -> None:
    assert pickle.loads(pickle.dumps(linear)) == linear


def test_a_task_by_name_or_file_has_the_configuration_that_fit_has(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("model: {arch: linear, lr: 0.03}\ndata: {batch_size: 50}\n")
    for name in ("mnist5k_linear", "mine.yaml"):
        (run,) = planned([name])
        capsys.readouterr()
        assert main(["fit", "--config", name, "--trainer.max_epochs", "1", "--print_config"]) == 0
        config = yaml.safe_load(capsys.readouterr().out)
        resolved = msgspec.to_builtins(run.config)
        for part in ("model", "data", "trainer"):
            assert {key: resolved[part][key] for key in config[part]} == config[part]
    assert (run.config.model.lr, run.config.data.batch_size) == (0.03, 50)


@pytest.mark.parametrize(
    ("override", "others"),
    [
        ("trainer.devices=auto", False),
        ("trainer.devices=1", False),
        ("trainer.devices=2", True),
        ("trainer.num_nodes=2", True),
        ("model.compile=true", True),
        ("model.compile=false", False),
    ],
)
def test_runs_that_start_processes_are_known_by_their_configuration(override: str, others: bool) -> None:
    (run,) = planned(["mnist5k_linear"], overrides=[override])
    assert run.starts_others is others


def test_a_dataset_and_an_architecture_need_no_task_file() -> None:
    (run,) = planned(["mnist5k_resnet32"])
    assert (run.task, run.arch, run.dataset) == ("mnist5k_resnet32", "resnet32", "mnist5k")
    assert run.config.data.batch_size == 128  # nothing but the defaults of `fit`


def test_a_task_file_comes_before_the_pair_of_its_name_and_one_s_own_before_the_shipped() -> None:
    shipped = planned(["mnist5k_linear"], overrides=[])[0].config
    assert (shipped.data.batch_size, shipped.trainer["max_epochs"]) != (128, 10)  # as no file would have it
    Path("tasks").mkdir()
    Path("tasks/mnist5k_linear.yaml").write_text("model: {arch: linear}\ntrainer: {max_epochs: 99}\n")
    assert planned(["mnist5k_linear"], overrides=[])[0].config.trainer["max_epochs"] == 99


def test_overrides_are_flags_of_fit_and_change_what_the_run_is(linear: Planned) -> None:
    (run,) = planned(["mnist5k_linear"], overrides=[*SHORT, "model.lr=0.01", "--data.batch_size=32"])
    assert (run.config.model.lr, run.config.data.batch_size) == (0.01, 32)
    assert run.identity != linear.identity


def test_a_folder_of_images_is_named_wherever_the_run_is_done() -> None:
    for name in ("cats", "dogs"):
        Path(f"pets/train/{name}").mkdir(parents=True)
        for index in range(12):
            Image.new("RGB", (5, 5), (index, 0, 0)).save(f"pets/train/{name}/{index}.png")
    (run,) = planned(["folder_linear"], overrides=[*SHORT, "data.folder=pets", "data.name=pets"])
    assert run.config.data.folder == str(Path.cwd() / "pets")
    assert (run.task, run.dataset) == ("pets_linear", "pets")


@pytest.mark.parametrize("count", [10, 63, 64, 100, 300, 1000, 3999, 4000])
def test_fewer_images_take_as_many_steps_as_all_of_them(count: int) -> None:
    overrides = ["trainer.max_epochs=3", "data.batch_size=64"]
    (run,) = planned(["mnist5k_linear"], overrides=overrides, counts=(count,))
    per_epoch = max(1, count // 64)
    whole, steps = 3 * (4000 // 64), run.config.trainer["max_epochs"] * per_epoch
    assert abs(steps - whole) <= 3 * per_epoch / 2  # a whole number of epochs for each of the three, rounded
    assert run.config.trainer["max_epochs"] == 3 * run.config.trainer["check_val_every_n_epoch"]
    assert (run.task, run.config.data.train_images) == (f"mnist5k_linear_n{count}", count)


def test_each_number_of_images_is_a_task_of_its_own() -> None:
    found = planned(["mnist5k_linear"], seeds=2, counts=(100, 300))
    assert [(run.task, run.seed) for run in found] == [
        ("mnist5k_linear_n100", 1),
        ("mnist5k_linear_n100", 2),
        ("mnist5k_linear_n300", 1),
        ("mnist5k_linear_n300", 2),
    ]


@pytest.mark.parametrize("count", [9, 4001])
def test_a_number_of_images_that_there_are_not_is_refused(count: int) -> None:
    assert f"data.train_images is {count}: expected 10" in refusal(["mnist5k_linear"], counts=(count,))


def test_two_runs_in_one_folder_are_refused() -> None:
    assert "would share" in refusal(["mnist5k_linear", "mnist5k_linear"])
    assert "would share" in refusal(["mnist5k_linear"], counts=(100, 100))
    assert "would share" in refusal(["mnist5k_linear", "mnist5k_mlp"], overrides=["task=both"])


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("mnist5k_linaer", [], "did you mean linear"),
        ("mnist5_linear", [], "did you mean mnist5k_linear"),
        ("gone.yaml", [], "no file gone.yaml"),
        ("mnist5k_linear", ["model.lrr=1"], "did you mean --model.lr?"),
        ("mnist5k_linear", ["model.lr"], "--override model.lr: expected KEY=VALUE"),
        ("mnist5k_linear", ["=1"], "expected KEY=VALUE"),
        ("mnist5k_linear", ["trainer.max_epochs=many"], "max_epochs"),
        ("mnist5k_linear", ["data.dataset=mnist6k"], "did you mean mnist5k"),
    ],
)
def test_unknown_names_keys_and_values_are_refused_with_the_nearest(
    name: str, overrides: list[str], words: str
) -> None:
    assert words in refusal([name], overrides=overrides)


def test_missing_data_are_told_before_anything_starts() -> None:
    said = refusal(["mnist_linear"], overrides=["data.root=nowhere"], code=Exit.DATA)
    assert "nowhere" in said


def test_what_the_sweep_decides_cannot_be_overridden(linear: Planned) -> None:
    for key in DECIDED:
        with pytest.raises(CnnbenchError, match=f"--override {key}=1: the sweep decides that"):
            planned(["mnist5k_linear"], overrides=[f"{key}=1"])


def test_a_result_that_cannot_be_read_is_not_taken_for_done(linear: Planned) -> None:
    Path(linear.folder).mkdir(parents=True)
    (Path(linear.folder) / "result.json").write_text('{"schema": "cnnbench.run/1"}')
    found, why = state(linear)
    assert found == "outdated"
    assert "cnnbench.run/1" in why
