"""What the tests of bundles share: runs without training, and bundles changed and signed anew."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.analysis.cost import cost
from cnnbench.analysis.per_class import tally
from cnnbench.architectures import inception
from cnnbench.architectures.handling import copy_network
from cnnbench.architectures.layers import GlobalAveragePool, conv_bn_relu
from cnnbench.bundles import card, contract, graph
from cnnbench.datasets.choice import describe, open_choice
from cnnbench.records.bundle import FileHash, Manifest
from cnnbench.records.schema import DataChoice, RunRecord
from cnnbench.training.classifier import Classifier
from cnnbench.types import ImageSpec

FILES = {"model.onnx", "manifest.json", "golden.npz", "reference.npz", "flips.csv", "predict.py", "README.md"}


def content(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest_of(bundle: Path) -> Manifest:
    return records.read(bundle / "manifest.json", Manifest)


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """`export` exits with `code` and says so in one line on stderr, besides notes and its steps, which is returned."""
    assert main(["export", *map(str, arguments)]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = (line for line in printed.err.splitlines() if not line.startswith(("note: ", "[")))
    assert line.startswith("cnnbench: ")
    return line


def verify_fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """`verify` exits with `code` and says so in one line on stderr, which is returned."""
    code_of_exit = main(["verify", *map(str, arguments)])
    printed = capsys.readouterr()
    assert code_of_exit == code, printed.err
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
    classifier.build(data.spec, data=describe(data, choice), class_names=data.class_names)
    checkpoint: dict[str, Any] = {"state_dict": classifier.state_dict(), "epoch": 0, "global_step": 0}
    classifier.on_save_checkpoint(checkpoint)
    folder = Path("runs") / f"{data.name}_{arch}" / "seed1"
    folder.mkdir(parents=True)
    torch.save(checkpoint, folder / "best.ckpt")
    record = records.read(run / "result.json", RunRecord)
    assert record.test is not None
    record = records.replace(
        record,
        test=records.replace(record.test, checkpoint_sha256=records.sha256(folder / "best.ckpt")),
        task=f"{data.name}_{arch}",
        arch=arch,
        data=classifier.data,
        spec=data.spec,
        cost=cost(arch, data.spec),
    )
    records.write(folder / "result.json", record)
    return folder


Graph = onnx.ModelProto
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Colour:
    """A small colour network with batch norm: its images, its checkpoint and its bundle."""

    images: Path
    checkpoint: Path
    bundle: Path


def narrow(spec: ImageSpec, **_: bool) -> nn.Module:
    return nn.Sequential(
        conv_bn_relu(spec.channels, 32, kernel_size=3),
        nn.MaxPool2d(2),
        inception.InceptionBlock(32, ones=16, threes=(16, 32), fives=(16, 16), pooled=16),
        GlobalAveragePool(),
        nn.Linear(80, spec.num_classes),
    )


@contextmanager
def one_block() -> Iterator[None]:
    """`inception_small` has one block for its four: torch exports it in a third of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "small", narrow)
        yield


def exact_logits(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """Logits `(N, num_classes)` float64 of images `(N, H, W, C)` uint8, by a float64 copy of the network."""
    planes = torch.from_numpy(np.moveaxis(images, 3, 1).astype(np.float64) / 255)
    with torch.no_grad():
        logits: np.ndarray = copy_network(network).eval().double()(planes).numpy()
    return logits


class Forger:
    """A copy of a bundle, and the means to change it and sign it anew."""

    def __init__(self, path: Path, images: Path | None = None) -> None:
        self.path, self.images = path, images
        self.manifest = records.read(path / "manifest.json", Manifest)

    def claim(self, **changes: Any) -> None:
        self.manifest = records.replace(self.manifest, **changes)

    def file(self, name: str, change: Callable[[bytes], bytes]) -> None:
        (self.path / name).write_bytes(change((self.path / name).read_bytes()))

    def graph(self, change: Callable[[Graph], Graph | None]) -> None:
        model = onnx.load(self.path / "model.onnx")
        model = change(model) or model
        graph.save(model, self.path / "model.onnx")

    def arrays(self, name: str, change: Callable[[Arrays], object]) -> None:
        with np.load(self.path / name) as stored:
            arrays = dict(stored)
        change(arrays)
        np.savez(self.path / name, **arrays)

    def predictions(self, change: Callable[[Arrays], object]) -> None:
        """Change reference.npz, and what the manifest claims of the classes with it."""
        self.arrays("reference.npz", change)
        with np.load(self.path / "reference.npz") as stored:
            counts = tally(stored["labels"], stored["predictions"], classes=self.manifest.spec.num_classes)
        self.claim(by_class=counts)

    def restate(self, precision: str = "fp32") -> None:
        """Give a file the metadata that the manifest states."""
        name = next(file.file for file in self.manifest.kept if file.precision == precision)
        model = onnx.load(self.path / name)
        graph.sign(model, contract.manifest_metadata(self.manifest, precision))
        graph.save(model, self.path / name)

    def sign(self, new_card: bool = True) -> None:
        """Make card, sizes, hashes and seal fit the files."""
        sizes = {file.name: file.stat().st_size for file in self.path.iterdir()}
        self.claim(variants=tuple(records.replace(v, bytes=sizes.get(v.file, v.bytes)) for v in self.manifest.variants))
        if new_card:
            card.write(self.path / "README.md", self.manifest)
        files = {name: self.path / name for name in self.manifest.files}
        self.claim(files={name: FileHash(records.sha256(f), f.stat().st_size) for name, f in files.items()})
        records.write(self.path / "manifest.json", self.manifest)
