"""A package of others, as far as it takes to hash and to train its network."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnbench.architectures import architecture
from cnnbench.registry import Entry

NETS = """from torch import nn

from .layers import activation


def theirs(spec):
    size = spec.height * spec.width * spec.channels
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 16), activation(), nn.Linear(16, spec.num_classes))
"""
LAYERS = """from torch import nn


def activation():
    return nn.ReLU()
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package with an architecture of its own, which imports a helper and leaves another file alone."""
    entries = architecture.entries  # are read once, so before there is another entry point
    monkeypatch.setitem(entries, "theirs", Entry("theirs", "their_nets.nets", "theirs"))
    package = tmp_path / "their_nets"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(NETS)
    (package / "layers.py").write_text(LAYERS)
    (package / "unrelated.py").write_text("")
    distribution = tmp_path / "their_nets-1.2.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: their-nets\nVersion: 1.2\n")
    (distribution / "entry_points.txt").write_text("[cnnbench.architectures]\ntheirs = their_nets.nets:theirs\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "their_nets"]:
        del sys.modules[name]
