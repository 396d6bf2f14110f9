"""What many tests share: one small trained run and its bundle, made once by the real verbs."""

import copy
import functools
import hashlib
import importlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

if "PYTEST_XDIST_WORKER" in os.environ:  # several test processes share the cores; read when torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import onnx
import pytest
import torch
from filelock import FileLock
from preloaded import Preloaded
from torch import Tensor
from torch.onnx._internal.exporter._registration import ONNXRegistry

from cnnbench.__main__ import main
from cnnbench.bench import plan
from cnnbench.bundles import graph
from cnnbench.bundles.program import ReferenceNetwork
from cnnbench.datasets import Decoded, Source
from cnnbench.runtime import sandbox

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell that starts us in the background lets us ignore Ctrl-C, and with us whatever the tests send it to
    signal.signal(signal.SIGINT, signal.default_int_handler)

# how long an example takes says how busy the machine is, since tests share its cores
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bundles", type=lambda name: Path(name).resolve(), help="folder of the bundles whose latency is measured"
    )
    parser.addoption(
        "--mutants", type=lambda name: Path(name).resolve(), help="where to write what `verify` says of each mutant"
    )
    parser.addoption(
        "--corpus", type=lambda name: Path(name).resolve(), help="where to write what verbs say of each hostile file"
    )
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: `make test-all` runs it"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "measured_bundle" in metafunc.fixturenames:
        folder = metafunc.config.getoption("--bundles")
        found = plan.bundles_in(folder) if folder else [None]
        metafunc.parametrize("measured_bundle", found, indirect=True, ids=lambda p: p.name if p else "tested")


@pytest.fixture
def measured_bundle(request: pytest.FixtureRequest) -> Path:
    """A bundle of --bundles, else the one that the tests made."""
    return request.param or request.getfixturevalue("bundle")


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test works in a folder of its own, and leaves the command line and torch's threads as they were."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["cnnbench"])
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it in its processes
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def real_convert() -> Callable[..., onnx.ModelProto]:
    """torch's exporter, which most tests call only once per network."""
    return graph._convert


@pytest.fixture(scope="session", autouse=True)
def _each_network_is_converted_once(
    real_convert: Callable[..., onnx.ModelProto], tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[None]:
    """torch's ONNX exporter takes seconds: the same reference network gives the graph made before.

    tests/bundles/test_graph.py shows that converting twice gives the same bytes, by `real_convert`.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "converted"
    folder.mkdir(exist_ok=True)

    def convert_once(reference: ReferenceNetwork, *, outputs: list[str]) -> onnx.ModelProto:
        file = folder / f"{content_of(reference.program, outputs)}.onnx"
        with FileLock(file.with_suffix(".lock")):
            if not file.exists():
                file.write_bytes(real_convert(reference, outputs=outputs).SerializeToString())
        return onnx.load_model_from_string(file.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_convert", convert_once)
        # torch reads its table of operators anew for each network, which takes longer than a small network itself
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session", autouse=True)
def preloaded() -> Iterator[Preloaded]:
    """The sandbox's child starts as a fork, with numpy and onnxruntime imported: a fresh process takes half a second.

    tests/runtime/test_sandbox.py shows that both keep the same limits; `real_sandbox` has the fresh process.
    """
    forked = Preloaded()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "_spawn", forked.spawn)
        yield forked
    forked.close()


_spawn = sandbox._spawn


@pytest.fixture
def real_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox's child is a fresh process, as it is for users."""
    monkeypatch.setattr(sandbox, "_spawn", _spawn)


def content_of(program: torch.export.ExportedProgram, outputs: list[str]) -> str:
    """Hash of all that the exporter reads of a program: operators, shapes, signature, and every tensor's bytes."""
    digest = hashlib.sha256(f"{program} {outputs}".encode())
    for name, value in sorted({**program.state_dict, **program.constants}.items()):
        assert isinstance(value, Tensor), name
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="session", autouse=True)
def _each_dataset_is_read_once() -> Iterator[None]:
    """The digits are 4 MB of text and the shapes are drawn, for each verb anew: here once in each test process."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("mnist5k", "shapes"):
            module = importlib.import_module(f"cnnbench.datasets.{name}")
            patch.setattr(module, name, read_once(module, name))
        yield


def read_once(module: ModuleType, name: str) -> Callable[[Source], Decoded]:
    """A dataset's reader that remembers; not while a test has put something else into its module."""
    read, made = getattr(module, name), {}
    imported = {key: value for key, value in vars(module).items() if key != name}

    @functools.wraps(read)
    def remembering(source: Source) -> Decoded:
        if any(vars(module).get(key) is not value for key, value in imported.items()):
            return read(source)
        if source.split not in made:
            made[source.split] = read(source)
        return copy.deepcopy(made[source.split])  # a test may change what it was given

    return remembering


Make = Callable[[Path], None]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str, Make], Path]:
    """`once(name, make)`: a folder that `make` fills, once per test session, whatever the number of test processes."""
    base = tmp_path_factory.getbasetemp()
    root = base if worker_id == "master" else base.parent

    def folder(name: str, make: Make) -> Path:
        place, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                place.mkdir()
                make(place)
                done.touch()
        return place

    return folder


@pytest.fixture(scope="session")
def runs_dir(once: Callable[[str, Make], Path]) -> Path:
    """Runs of the session: mnist5k_lenet5, trained for two epochs and tested."""

    def make(folder: Path) -> None:
        assert main(["fit", "--model.arch", "lenet5", "--runs-dir", str(folder), "--trainer.max_epochs", "2"]) == 0
        assert main(["test", "--model.arch", "lenet5", "--runs-dir", str(folder)]) == 0

    return once("runs", make)


@pytest.fixture(scope="session")
def run(runs_dir: Path) -> Path:
    return runs_dir / "mnist5k_lenet5" / "seed1"


@pytest.fixture(scope="session")
def bundle(run: Path, once: Callable[[str, Make], Path]) -> Path:
    """The bundle exported from `run`. Shared: a test that changes a bundle copies it first."""

    def make(folder: Path) -> None:
        assert main(["export", str(run), "--out", str(folder)]) == 0

    return once("exports", make) / "mnist5k_lenet5"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder CNNBENCH_DATA names, where it holds the full MNIST."""
    root = Path(os.environ.get("CNNBENCH_DATA", "nowhere"))
    if not (root / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip("CNNBENCH_DATA names no folder with the full MNIST")
    return root.resolve()
