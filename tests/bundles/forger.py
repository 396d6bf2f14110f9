"""A bundle changed and signed anew, as someone would who wants to pass it off as proven."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from cnnbench import records
from cnnbench.bundles import card, contract, graph
from cnnbench.records.schema import Manifest

Graph = onnx.ModelProto
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Colour:
    """A small colour network with batch norm: its images, its checkpoint and its bundle."""

    images: Path
    checkpoint: Path
    bundle: Path


class Forger:
    """A copy of a bundle, and the means to change it and sign it anew."""

    def __init__(self, path: Path, images: Path | None = None) -> None:
        self.path, self.images = path, images
        self.manifest = records.read(path / "manifest.json", Manifest)

    def claim(self, **changes: Any) -> None:
        self.manifest = replace(self.manifest, **changes)

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

    def restate(self, precision: str = "fp32") -> None:
        """Make a file say of itself what the manifest says."""
        m = self.manifest
        file = next(variant.file for variant in m.kept if variant.precision == precision)
        model = onnx.load(self.path / file)
        stated = contract.metadata(
            m.arch, precision, m.data.name, m.class_names, m.contract, m.weights_sha256, m.reference.accuracy
        )
        graph.sign(model, stated)
        graph.save(model, self.path / file)

    def sign(self, new_card: bool = True) -> None:
        """Make card, sizes, hashes and seal fit the files."""
        sizes = {file.name: file.stat().st_size for file in self.path.iterdir()}
        self.claim(variants=tuple(replace(v, bytes=sizes.get(v.file, v.bytes)) for v in self.manifest.variants))
        if new_card:
            card.write(self.path / "README.md", self.manifest)
        files = {name: self.path / name for name in self.manifest.files}
        found = {name: {"sha256": records.sha256(f), "bytes": f.stat().st_size} for name, f in files.items()}
        self.claim(files=found)
        records.write(self.path / "manifest.json", self.manifest)
