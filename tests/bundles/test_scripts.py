"""The list of predict.py's versions holds the one of this checkout and those of the committed bundles."""

import hashlib
from pathlib import Path

import pytest

from cnnbench.bundles.scripts import VERSIONS, Version, version_of
from cnnbench.runtime import predict

CHECKOUT = Path(__file__).parents[2]
COMMITTED = sorted((CHECKOUT / "exports").glob("*/predict.py"))


def test_the_last_version_is_the_file_of_this_checkout() -> None:
    """If predict.py has changed, add its hash to the end, and keep the others: bundles in the world hold them."""
    assert VERSIONS[-1] == hashlib.sha256(Path(predict.__file__).read_bytes()).hexdigest()
    assert len({*VERSIONS}) == len(VERSIONS)


@pytest.mark.parametrize("script", COMMITTED, ids=lambda script: script.parent.name)
def test_those_of_the_committed_bundles_are_listed(script: Path) -> None:
    assert hashlib.sha256(script.read_bytes()).hexdigest() in VERSIONS


def test_each_version_is_told_from_any_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "predict.py").write_text("print('hello')\n")
    assert version_of(Path(predict.__file__)) == Version("as in this version", follows=True)
    assert version_of(tmp_path / "predict.py") is None
    listed = hashlib.sha256(b"print('hello')\n").hexdigest()
    monkeypatch.setattr("cnnbench.bundles.scripts.VERSIONS", (listed, *VERSIONS))
    assert version_of(tmp_path / "predict.py") == Version("as in an earlier version")
    with monkeypatch.context() as patch:
        patch.setattr("cnnbench.bundles.scripts.FOLLOWING", (listed,))
        assert version_of(tmp_path / "predict.py") == Version("as in an earlier version", follows=True)
    monkeypatch.setattr("cnnbench.bundles.scripts.IMPORTING", (listed,))
    found = version_of(tmp_path / "predict.py")
    assert found
    assert found.warned
    assert "imports from its own folder" in found.words
