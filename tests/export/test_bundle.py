"""`export`: what a bundle holds, and that nothing wrong or half-done ever takes its place."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from torch import nn

from cnnbench import datasets, records
from cnnbench.__main__ import main
from cnnbench.analysis.cost import cost
from cnnbench.architectures.layers import Normalize
from cnnbench.export import bundle as bundle_module
from cnnbench.export import graph
from cnnbench.runtime import predict
from cnnbench.training.classifier import Classifier
from cnnbench.types import CnnbenchError, Manifest, RunRecord

FILES = {"model.onnx", "manifest.json", "golden.npz", "reference.npz", "predict.py"}


@pytest.fixture
def mine(run: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "runs" / "mnist5k_lenet5" / "seed1"))


@pytest.fixture
def earlier(bundle: Path, tmp_path: Path) -> Path:
    """A folder of bundles that already holds one of the task."""
    shutil.copytree(bundle, tmp_path / "exports" / bundle.name)
    return tmp_path / "exports"


def content(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def untrained(run: Path, arch: str, choice: dict[str, Any]) -> Path:
    """A run of `arch` whose checkpoint holds fresh weights: what `fit` and `test` would leave, but at once."""
    data = datasets.open_choice(choice)
    torch.manual_seed(0)
    classifier = Classifier(arch)
    classifier.build(data.spec, datasets.describe(data, choice), data.class_names)
    checkpoint: dict[str, Any] = {"state_dict": classifier.state_dict()}
    classifier.on_save_checkpoint(checkpoint)
    folder = Path("runs") / f"{data.name}_{arch}" / "seed1"
    folder.mkdir(parents=True)
    torch.save(checkpoint, folder / "best.ckpt")
    record = records.read(run / "result.json", RunRecord)
    assert record.test is not None
    tested = replace(record.test, checkpoint_sha256=records.sha256(folder / "best.ckpt"))
    record = replace(
        record,
        test=tested,
        task=f"{data.name}_{arch}",
        arch=arch,
        data=classifier.data,
        spec=data.spec,
        cost=cost(arch, data.spec),
    )
    records.write(folder / "result.json", record)
    return folder


def choice_of(dataset: str, folder: Path | None = None) -> dict[str, Any]:
    place = str(folder) if folder else None
    return {"dataset": dataset, "root": None, "folder": place, "name": None, "size": 8, "channels": 3}


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """`export` exits with `code` and says so in one line on stderr, which is returned."""
    assert main(["export", *map(str, arguments)]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("cnnbench: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_a_bundle_holds_the_model_its_proof_and_the_means_to_use_it(bundle: Path) -> None:
    assert {path.name for path in bundle.iterdir()} == FILES
    assert (bundle / "predict.py").read_bytes() == Path(predict.__file__).read_bytes()


def test_the_manifest_round_trips_and_its_hashes_are_right(bundle: Path, tmp_path: Path) -> None:
    manifest = records.read(bundle / "manifest.json", Manifest)
    records.write(tmp_path / "again.json", manifest)
    assert (tmp_path / "again.json").read_bytes() == (bundle / "manifest.json").read_bytes()
    assert set(manifest.files) == FILES - {"manifest.json"}
    for name, stated in manifest.files.items():
        assert stated == {"sha256": records.sha256(bundle / name), "bytes": (bundle / name).stat().st_size}


def test_the_verdict_gives_the_run_s_own_test_accuracy(run: Path, bundle: Path) -> None:
    record = records.read(run / "result.json", RunRecord)
    manifest = records.read(bundle / "manifest.json", Manifest)
    assert record.test is not None
    assert {(v.torch_accuracy, v.onnx_accuracy, v.images, v.flips) for v in manifest.verdict} == {
        (record.test.accuracy, record.test.accuracy, record.test.images, 0)
    }
    assert manifest.run["checkpoint_sha256"] == record.test.checkpoint_sha256
    assert (manifest.task, manifest.arch, manifest.seed, manifest.cost) == (
        record.task, record.arch, record.seed, record.cost,
    )  # fmt: skip


def test_golden_and_reference_are_the_test_images_in_order(bundle: Path) -> None:
    data = datasets.open_choice(choice_of("mnist5k"))
    with np.load(bundle / "golden.npz") as golden, np.load(bundle / "reference.npz") as reference:
        assert np.array_equal(golden["pixels"], data.test.images[: len(golden["pixels"])])
        assert np.array_equal(reference["labels"], data.test.labels)
        assert np.array_equal(golden["logits"].argmax(1), reference["predictions"][: len(golden["logits"])])


def test_no_place_of_this_machine_is_in_a_bundle(bundle: Path, run: Path) -> None:
    for name, found in content(bundle).items():
        for place in (Path.home(), run.parent.parent, bundle.parent):
            assert str(place).encode() not in found, name


def test_exporting_again_gives_the_same_files(bundle: Path, run: Path) -> None:
    assert main(["export", str(run), "--out", "again"]) == 0
    again = content(Path("again") / bundle.name)
    before = content(bundle)
    assert {name: again[name] for name in FILES - {"manifest.json"}} == {
        name: before[name] for name in FILES - {"manifest.json"}
    }


def test_of_several_seeds_the_best_validation_accuracy_ships_whatever_the_test_says(mine: Path) -> None:
    record = records.read(mine / "result.json", RunRecord)
    assert record.test is not None
    for seed, val, test in ((1, 0.6, 0.99), (2, 0.9, 0.10), (3, 0.8, 0.95)):
        folder = mine.parent / f"seed{seed}"
        if seed > 1:
            shutil.copytree(mine, folder)
        scores = {"fit": replace(record.fit, val_accuracy=val), "test": replace(record.test, accuracy=test)}
        records.write(folder / "result.json", replace(record, seed=seed, **scores))
    assert main(["export", str(mine.parent), "--out", "exports"]) == 0
    assert records.read(Path("exports/mnist5k_lenet5/manifest.json"), Manifest).seed == 2


def test_json_prints_the_manifest(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--out", "exports", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("exports/mnist5k_lenet5/manifest.json").read_text())


# --- exports that must not pass ---------------------------------------------------------------------------------------


def change_a_weight(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 0.5
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def fix_the_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2


def no_normalisation(network: nn.Module) -> nn.Module:
    assert isinstance(network[0], Normalize)
    return network[1]


class Wrapped(nn.Module):
    def __init__(self, network: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change(self.network(x))


def swapped_classes(network: nn.Module) -> nn.Module:
    return Wrapped(network, lambda logits: logits[:, [1, 0, *range(2, 10)]])


def other_for_one_image(network: nn.Module) -> nn.Module:
    """A network that no single file can be."""
    return Wrapped(network, lambda logits: logits * 2 if logits.shape[0] == 1 else logits)


def same(value: Any) -> Any:
    return value


SABOTAGE: dict[str, tuple[Callable[[nn.Module], nn.Module], Callable[[onnx.ModelProto], None], str]] = {
    "a changed weight": (same, change_a_weight, "is not the trained network"),
    "a fixed batch": (same, fix_the_batch, "does not run with a batch of"),
    "no normalisation": (no_normalisation, same, "is not the trained network"),
    "classes swapped": (swapped_classes, same, "is not the trained network"),
    "dropout": (lambda network: Wrapped(network, nn.Dropout(0.5)), same, "Dropout"),
}


def sabotage(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    change_network, change_model, _ = SABOTAGE[name]
    honest = graph.to_onnx

    def dishonest(network: nn.Module, *arguments: Any) -> onnx.ModelProto:
        model = honest(change_network(network), *arguments)
        change_model(model)
        return model

    monkeypatch.setattr(graph, "to_onnx", dishonest)
    if name == "dropout":
        monkeypatch.setattr(graph.Deployable, "eval", lambda self: self.train())


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_broken_export_is_refused_and_the_earlier_bundle_stays(
    name: str, run: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(earlier)
    sabotage(monkeypatch, name)
    assert SABOTAGE[name][2] in fails(capsys, 4, run, "--out", earlier)
    assert content(earlier) == before


def test_a_refused_export_writes_nothing_where_there_was_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sabotage(monkeypatch, "a changed weight")
    fails(capsys, 4, run, "--out", "exports")
    assert list(Path("exports").iterdir()) == []


def test_a_branch_on_a_batch_of_one_is_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = graph.to_onnx
    monkeypatch.setattr(graph, "to_onnx", lambda network, *rest: honest(other_for_one_image(network), *rest))
    fails(capsys, 4, run, "--out", "exports")


def test_batch_norm_that_uses_the_batch_is_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = untrained(run, "resnet20", choice_of("mnist5k"))
    monkeypatch.setattr(nn.BatchNorm2d, "forward", batch_statistics)
    fails(capsys, 4, folder, "--out", "exports")
    assert list(Path("exports").iterdir()) == []


def batch_statistics(self: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """What batch norm in training mode computes, spelled out only while exporting."""
    if not torch.compiler.is_exporting():
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)
    mean, var = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
    return (x - mean) / (var + self.eps).sqrt() * self.weight[:, None, None] + self.bias[:, None, None]


def test_a_network_with_batch_norm_exports(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(untrained(run, "resnet20", choice_of("mnist5k"))), "--out", "exports"]) == 0
    assert "0 flips" in capsys.readouterr().out


# --- checkpoints and records that cannot be used ----------------------------------------------------------------------


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # within the weights, which are most of the file
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "a flipped byte": flip_a_byte,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "empty": lambda path: path.write_bytes(b""),
    "not a checkpoint": lambda path: path.write_text("weights, honestly\n"),
    "of another program": lambda path: torch.save({"state_dict": {}}, path),
    "an object": lambda path: torch.save(nn.Linear(2, 2), path),  # unpickling it would execute what it names
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_checkpoint_that_cannot_be_trusted_is_refused(
    name: str, mine: Path, earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(earlier)
    DAMAGE[name](mine / "best.ckpt")
    assert "checkpoint" in fails(capsys, 3, mine, "--out", earlier)
    assert content(earlier) == before


def test_a_record_that_is_missing_or_half_written_is_refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (mine / "result.json").read_text()
    (mine / "result.json").write_text(whole[: len(whole) // 2])
    assert "result.json" in fails(capsys, 3, mine)
    (mine / "result.json").unlink()
    assert "result.json" in fails(capsys, 3, mine)


def test_a_checkpoint_beside_another_run_s_record_is_refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = records.read(mine / "result.json", RunRecord)
    records.write(mine / "result.json", replace(record, arch="mlp"))
    assert "copied from another run" in fails(capsys, 3, mine, "--out", "exports")


def draw_folder(folder: Path) -> None:
    """Two classes of ten images of noise, 8 x 8."""
    random = np.random.RandomState(0)
    for name in ("a", "b"):
        (folder / "train" / name).mkdir(parents=True)
        for index in range(10):
            pixels = random.randint(0, 256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "train" / name / f"{index}.png")


def test_images_changed_since_training_are_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw_folder(tmp_path / "images")
    source = untrained(run, "mlp", choice_of("folder", tmp_path / "images"))
    assert main(["export", str(source), "--out", "exports"]) == 0
    before = content(Path("exports"))
    capsys.readouterr()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "train" / "a" / "0.png")
    assert "not the images of the record" in fails(capsys, 3, source, "--out", "exports")
    assert content(Path("exports")) == before


# --- where it runs and where it writes --------------------------------------------------------------------------------


def test_a_checkpoint_that_was_not_the_one_tested_is_refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = torch.load(mine / "best.ckpt", weights_only=True)
    torch.save({**checkpoint, "epoch": 7}, mine / "best.ckpt")
    assert "is not the checkpoint" in fails(capsys, 3, mine)


def test_a_checkpoint_away_from_its_run_is_refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(mine / "best.ckpt", "loose.ckpt")
    assert "no result.json of its run beside it" in fails(capsys, 3, "loose.ckpt")


def test_cuda_without_a_gpu_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert "cuda" in fails(capsys, 6, run, "--out", "exports", "--providers", "cuda")
    fails(capsys, 6, run, "--out", "exports", "--providers", "cpu,cuda")
    assert not Path("exports").exists()


@pytest.mark.parametrize("names", ["tpu", "cpu,tpu", ""])
def test_an_unknown_provider_is_refused_by_name(names: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected cpu or cuda" in fails(capsys, 2, run, "--out", "exports", "--providers", names)
    assert not Path("exports").exists()


def test_a_folder_that_cannot_be_made_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("in the way")
    assert "--out" in fails(capsys, 2, run, "--out", "file/exports")
    assert "--out" in fails(capsys, 2, run, "--out", "file")
    assert Path("file").read_text() == "in the way"


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 1)])
def test_an_interrupted_export_leaves_the_earlier_bundle(
    error: BaseException, code: int, run: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise error

    before = content(earlier)
    monkeypatch.setattr(records, "write", interrupted)  # the last thing before the bundle takes its place
    assert main(["export", str(run), "--out", str(earlier)]) == code
    assert content(earlier) == before
    assert [path.name for path in earlier.iterdir()] == ["mnist5k_lenet5"]


def test_an_interruption_between_the_two_renames_puts_the_old_bundle_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "file").write_text("old")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), bundle_module.replacing_folder(tmp_path / "task") as partial:
        (partial / "file").write_text("new")
    assert content(tmp_path) == {"task/file": b"old"}


def test_a_new_bundle_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "only in the old one").write_text("old")
    with bundle_module.replacing_folder(tmp_path / "task") as partial:
        (partial / "file").write_text("new")
    assert content(tmp_path) == {"task/file": b"new"}


def test_a_session_elsewhere_is_compared_too(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every provider asked for is in the verdict, and one that differs refuses the export."""
    opened: list[str] = []
    honest = bundle_module.open_session
    monkeypatch.setattr(bundle_module, "chosen_providers", lambda _: ["cpu", "other"])

    def session(model: Path, provider: str) -> Any:
        opened.append(provider)
        return honest(model, "cpu")

    monkeypatch.setattr(bundle_module, "open_session", session)
    assert main(["export", str(run), "--out", "exports"]) == 0
    verdict = records.read(Path("exports/mnist5k_lenet5/manifest.json"), Manifest).verdict
    assert [result.provider for result in verdict] == opened == ["cpu", "other"]


def test_auto_takes_every_provider_that_works_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "usable", lambda: {"cpu": "", "cuda": "no GPU"})
    assert bundle_module.chosen_providers("auto") == ["cpu"]
    with pytest.raises(CnnbenchError):
        bundle_module.chosen_providers("tpu")
