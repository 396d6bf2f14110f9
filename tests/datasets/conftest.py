"""A cache folder of the tests' own, and the datasets that need no download, loaded once."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dataset_helpers import Loaded, OurEntry, save_images

from cnnbench.datasets import Source, dataset
from cnnbench.datasets.choice import load
from cnnbench.types import Dataset, DatasetNotFoundError


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@functools.cache
def _loaded(name: str, source: Source) -> Loaded:
    builder = dataset[name].load()
    decoded = builder(source)
    once = functools.wraps(builder)(lambda _: decoded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(dataset.entries, name, OurEntry(name, "", "", builder=once))
        return Loaded(decoded, load(name, source))


@pytest.fixture(scope="session", params=list(dataset))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Every registered dataset that is here: downloaded ones where CNNBENCH_DATA holds them."""
    root, folder = Path(os.environ.get("CNNBENCH_DATA", "nowhere")), None
    if request.param == "folder":
        folder = tmp_path_factory.mktemp("images")
        for value, name in enumerate("abc"):
            save_images(folder / "train" / name, 30, value)
    try:
        return _loaded(request.param, Source(root, folder))
    except DatasetNotFoundError:
        pytest.skip(f"CNNBENCH_DATA names no folder with {request.param}")


@pytest.fixture(scope="session")
def mnist5k() -> Dataset:
    return _loaded("mnist5k", Source(Path(os.environ.get("CNNBENCH_DATA", "nowhere")))).data


@pytest.fixture(scope="session")
def shapes() -> Dataset:
    return _loaded("shapes", Source(Path(os.environ.get("CNNBENCH_DATA", "nowhere")))).data
