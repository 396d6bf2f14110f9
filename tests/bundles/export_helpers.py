"""What the tests of `export` share."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.analysis.cost import cost
from cnnbench.datasets.choice import describe, open_choice
from cnnbench.records.schema import DataChoice, Manifest, RunRecord
from cnnbench.training.classifier import Classifier

FILES = {"model.onnx", "manifest.json", "golden.npz", "reference.npz", "flips.csv", "predict.py", "README.md"}


def content(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest_of(bundle: Path) -> Manifest:
    return records.read(bundle / "manifest.json", Manifest)


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """`export` exits with `code` and says so in one line on stderr, which is returned."""
    assert main(["export", *map(str, arguments)]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("cnnbench: ")
    assert printed.err.count("\n") == 1
    return printed.err


def choice_of(dataset: str, folder: Path | None = None) -> DataChoice:
    return DataChoice(dataset=dataset, folder=str(folder) if folder else None, size=8)


def untrained(run: Path, arch: str, choice: DataChoice) -> Path:
    """A run of `arch` whose checkpoint holds fresh weights: what `fit` and `test` would leave, but at once."""
    data = open_choice(choice)
    torch.manual_seed(0)
    classifier = Classifier(arch)
    classifier.build(data.spec, describe(data, choice), data.class_names)
    checkpoint: dict[str, Any] = {"state_dict": classifier.state_dict()}
    classifier.on_save_checkpoint(checkpoint)
    folder = Path("runs") / f"{data.name}_{arch}" / "seed1"
    folder.mkdir(parents=True)
    torch.save(checkpoint, folder / "best.ckpt")
    record = records.read(run / "result.json", RunRecord)
    assert record.test is not None
    record = replace(
        record,
        test=replace(record.test, checkpoint_sha256=records.sha256(folder / "best.ckpt")),
        task=f"{data.name}_{arch}",
        arch=arch,
        data=classifier.data,
        spec=data.spec,
        cost=cost(arch, data.spec),
    )
    records.write(folder / "result.json", record)
    return folder
