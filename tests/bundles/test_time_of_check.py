"""A file that changes between two checks of `verify`, each of which opens it anew."""

import shutil
from pathlib import Path

import pytest

from cnnbench.bundles import verify
from cnnbench.bundles.evidence import Check, OpenBundle
from cnnbench.types import CnnbenchError, Exit


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "predict.py"])
def test_a_file_that_changes_while_it_is_verified_is_told(
    name: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Path(shutil.copytree(bundle, tmp_path / "mine"))
    last = verify._check_reference

    def then_change(bundle: OpenBundle) -> Check:
        found = last(bundle)
        (bundle.path / name).write_bytes((bundle.path / name).read_bytes() + b" ")
        return found

    monkeypatch.setattr(verify, "_check_reference", then_change)
    with pytest.raises(CnnbenchError, match=f"{name} changed while it was verified") as caught:
        verify.verify_bundle(mine, quick=True)
    assert caught.value.code == Exit.DATA
