"""A machine in a bad way: a disk that is full, a user without rights, limits and streams that are closed."""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnbench.__main__ import main

FIT = ["fit", "--model.arch", "linear", "--trainer.max_epochs", "1", "--data.train_images", "200"]
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@dataclass(frozen=True)
class Ended:
    """How a verb ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of its error; progress may stand above it."""
        lines = [line for line in self.err.splitlines() if line.startswith("cnnbench: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        assert "internal error" not in self.err
        return lines[0].removeprefix("cnnbench: ")


def here(*words: object) -> Ended:
    """A verb in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(word) for word in words])
    return Ended(code, out.getvalue(), err.getvalue())


@contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """A disk of this many bytes: a tmpfs, which only root may mount."""
    if not ROOT or not shutil.which("mount"):
        pytest.skip("needs root to mount a small tmpfs")
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("may not mount a tmpfs here")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def read_alone(disk: Path) -> Iterator[None]:
    """While it lasts, nothing can be written to a disk of `small_disk`, not even by root."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes what is free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def unprivileged() -> list[str]:
    """Before a command: what makes it obey the permissions of files."""
    if not ROOT:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root obeys no permissions, and there is no setpriv")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


NOBODY = """
mkdir "$1" && mount --bind "$2" "$1" && mount -t tmpfs -o mode=755 tmpfs "$3" && mkdir -p "$2" && mount --bind "$1" "$2"
shift 3
exec setpriv --reuid=54321 --regid=54321 --clear-groups "$@"
"""


def nobody() -> list[str]:
    """Before a command: an ordinary user who stands in no /etc/passwd.

    Python may lie where only root can go: it is then shown to the command in a namespace of its own.
    """
    if not (ROOT and shutil.which("setpriv") and shutil.which("unshare")):
        pytest.skip("needs root, setpriv and unshare to be a user who has no entry in /etc/passwd")
    python = Path(sys.base_prefix).resolve()
    closed = [folder for folder in reversed(python.parents) if not folder.stat().st_mode & 0o001]
    command = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    if closed:
        keep = Path(tempfile.mkdtemp()) / "python"
        command = ["unshare", "--mount", "sh", "-c", NOBODY, "sh", str(keep), str(python), str(closed[0])]
    if subprocess.run([*command, sys.executable, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip("an ordinary user cannot start this Python")
    if closed:
        keep.rmdir()
    return command


VERBS = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from cnnbench.__main__ import main
ended = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    ended.append([code, out.getvalue(), err.getvalue()])
json.dump(ended, sys.stdout)
"""


def elsewhere(
    *verbs: Sequence[object],
    before: str = "",
    wrapper: Sequence[str] = (),
    environ: Mapping[str, str | None] | None = None,
    folder: Path | None = None,
) -> list[Ended]:
    """Verbs in one process of their own, which imports torch once.

    Args:
        verbs: Each with its arguments.
        before: Commands of the shell, such as `ulimit -n 64`.
        wrapper: What starts the process.
        environ: Variables; None removes one.
        folder: Where it works.
    """
    words = json.dumps([[str(word) for word in verb] for verb in verbs])
    done = started([sys.executable, "-c", VERBS, words], before=before, wrapper=wrapper, environ=environ, folder=folder)
    assert done.code == 0, done.err
    return [Ended(*each) for each in json.loads(done.out)]


def started(
    command: Sequence[str],
    *,
    before: str = "",
    wrapper: Sequence[str] = (),
    environ: Mapping[str, str | None] | None = None,
    folder: Path | None = None,
) -> Ended:
    """A command; the other arguments are those of `elsewhere`."""
    variables = {**os.environ, **(environ or {})}
    done = subprocess.run(
        ["bash", "-c", f'{before}\nexec "$@"', "bash", *wrapper, *command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in variables.items() if value is not None},
        cwd=folder,
        timeout=900,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def image_folder(folder: Path) -> Path:
    """12 gray images of two classes."""
    drawn = np.random.RandomState(0)
    for number in range(12):
        file = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.randint(0, 256, (20, 20), np.uint8)).save(file)
    return folder
