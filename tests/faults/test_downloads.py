"""Downloads from a server that cuts, lies or is silent: only whole, verified files get their name."""

import gc
import gzip
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import KMNIST

from cnnbench.datasets import Source, _fetch
from cnnbench.datasets.choice import load
from cnnbench.datasets.download import download_dataset
from cnnbench.types import CnnbenchError, Exit

TRAIN, TEST = 40, 20
FOLDER = Path("KMNIST/raw")


def idx(values: np.ndarray) -> bytes:
    """A compressed file of LeCun's format: magic number, sizes, bytes."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes(), mtime=0)


def files() -> dict[str, bytes]:
    made = {}
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        pixels = np.random.RandomState(count).randint(0, 256, (count, 28, 28))
        made[f"{part}-images-idx3-ubyte.gz"] = idx(pixels)
        made[f"{part}-labels-idx1-ubyte.gz"] = idx(np.arange(count) % 10)
    return made


@dataclass
class Mirror:
    """A server of files on this machine, and what it does to one of them."""

    url: str
    files: dict[str, bytes]
    fault: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    closing: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.lstrip("/")
        self.asked[name] += 1
        content = self.files[name]
        fault = self.fault if name == "t10k-images-idx3-ubyte.gz" else ""
        if fault == "missing":
            request.send_error(404)
            return
        if fault == "silent":
            self.closing.wait(30)
            return
        if fault == "page":
            content = b"<!doctype html><title>Sign in</title>"
        if fault == "altered":
            content = content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if fault in ("cut", "stalls"):
            content = content[: len(content) // 2]
        request.wfile.write(content)
        if fault == "stalls":
            request.wfile.flush()
            self.closing.wait(30)


@pytest.fixture(autouse=True)
def _sockets_of_cut_downloads_go() -> Iterator[None]:
    """http.client leaves the socket of a download that fails to the collector, which would warn in another test."""
    gc.freeze()  # else all of torch is looked through, which takes seconds
    yield
    with warnings.catch_warnings(action="ignore"):
        gc.collect()
    gc.unfreeze()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Mirror(f"http://127.0.0.1:{server.server_port}/", files())
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setattr(KMNIST, "mirrors", [found.url])
        sums = [(name, hashlib.md5(content).hexdigest()) for name, content in found.files.items()]
        monkeypatch.setattr(KMNIST, "resources", sums)
        monkeypatch.setattr(_fetch, "SILENCE_SECONDS", 0.3)
        yield found
        found.closing.set()
        server.shutdown()


def there(root: Path) -> set[str]:
    """Every file but the lock."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} - {".kmnist.lock"}


def test_what_is_whole_gets_its_name_and_is_not_fetched_again(mirror: Mirror, tmp_path: Path) -> None:
    first = download_dataset("kmnist", root=tmp_path)
    assert (first.train_images + first.val_images, first.test_images) == (TRAIN, TEST)
    names = {str(FOLDER / name) for name in mirror.files}
    assert there(tmp_path) == names | {name.removesuffix(".gz") for name in names}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["KMNIST"]
    mirror.asked.clear()
    assert download_dataset("kmnist", root=tmp_path) == first
    assert not mirror.asked


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("cut", Exit.DATA, "corrupted"),
        ("altered", Exit.DATA, "corrupted"),
        ("page", Exit.DATA, "corrupted"),
        ("missing", Exit.ENVIRONMENT, "HTTP Error 404"),
        ("silent", Exit.ENVIRONMENT, "timed out"),
        ("stalls", Exit.ENVIRONMENT, "timed out"),
    ],
)
def test_a_fault_leaves_no_file_and_is_one_line(
    mirror: Mirror, tmp_path: Path, fault: str, code: Exit, said: str
) -> None:
    mirror.fault = fault
    with pytest.raises(CnnbenchError, match=said) as refused:
        load("kmnist", Source(tmp_path, download=True))
    assert refused.value.code == code
    assert "\n" not in str(refused.value)
    assert "fetch it again with `cnnbench download kmnist --root" in str(refused.value)
    assert there(tmp_path) == set()
    mirror.fault = ""
    assert len(load("kmnist", Source(tmp_path, download=True)).test) == TEST


def test_a_damaged_file_is_replaced(mirror: Mirror, tmp_path: Path) -> None:
    expected = download_dataset("kmnist", root=tmp_path)
    file = tmp_path / FOLDER / "t10k-images-idx3-ubyte"
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with pytest.raises(CnnbenchError, match="damaged"):
        load("kmnist", Source(tmp_path))
    assert download_dataset("kmnist", root=tmp_path) == expected
    assert file.read_bytes() == whole


FETCH = """
import sys
from torchvision.datasets import KMNIST
from cnnbench.__main__ import main
KMNIST.mirrors, KMNIST.resources = [sys.argv[1]], eval(sys.argv[2])
sys.exit(main(["download", "kmnist", "--root", sys.argv[3]]))
"""


def fetching(root: Path) -> subprocess.Popen[str]:
    """`cnnbench download` from the mirror in a process of its own."""
    command = [sys.executable, "-c", FETCH, KMNIST.mirrors[0], repr(KMNIST.resources), str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ))


@pytest.mark.slow
def test_of_two_processes_one_fetches(mirror: Mirror, tmp_path: Path) -> None:
    both = [fetching(tmp_path), fetching(tmp_path)]
    said = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert mirror.asked == dict.fromkeys(mirror.files, 2)  # torchvision asks where it lies, and then for it
    assert len(load("kmnist", Source(tmp_path)).test) == TEST


@pytest.mark.slow
def test_a_killed_one_leaves_no_file_with_a_name(mirror: Mirror, tmp_path: Path) -> None:
    mirror.fault = "stalls"
    process = fetching(tmp_path)
    deadline = time.monotonic() + 120
    while mirror.asked["t10k-images-idx3-ubyte.gz"] < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert all(name.startswith(".kmnist-") for name in there(tmp_path))
    assert there(tmp_path)
    mirror.fault = ""
    assert download_dataset("kmnist", root=tmp_path).test_images == TEST
