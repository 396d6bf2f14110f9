"""Mutants whose folder, arrays, card or manifest must not be followed or believed: hostile as files."""

from __future__ import annotations

import os
import socket
import warnings
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from export_helpers import Forger
from mutants_graph import in_two_formats
from mutations import Mutant, of_claim, of_file, of_manifest, planted, ran

from cnnbench.records.bundle import FileHash

# --- entries of the folder --------------------------------------------------------------------------------------------


def beside(name: str) -> Callable[[Forger], object]:
    """A planted module in the folder, in no manifest."""
    return lambda forger: (forger.path / name).write_text(planted(forger.path))


def listed(name: str) -> Callable[[Forger], None]:
    """The same, with its hash in the manifest."""

    def change(forger: Forger) -> None:
        beside(name)(forger)
        forger.claim(files={**forger.manifest.files, name: FileHash("", 0)})

    return change


def other_predict(forger: Forger) -> None:
    forger.file("predict.py", lambda data: data + planted(forger.path).encode())


def own_format_beside(forger: Forger) -> None:
    """Where a reader that follows `variant.file` would load it; such a manifest cannot be written by cnnbench."""
    (forger.path / "model.ort").write_bytes(in_two_formats((forger.path / "model.onnx").read_bytes()))


def own_format_named(content: dict[str, Any]) -> None:
    content["variants"][0]["file"] = "model.ort"
    content["files"]["model.ort"] = content["files"]["model.onnx"]


def in_place_of(name: str, make: Callable[[Path], object]) -> Callable[[Forger], None]:
    def change(forger: Forger) -> None:
        (forger.path / name).unlink()
        make(forger.path / name)

    return change


def bound(path: Path) -> None:
    """A socket, whose name may have about 100 characters."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


def sparse(name: str) -> Callable[[Forger], None]:
    return lambda forger: os.truncate(forger.path / name, 10 * 2**30)


ENTRIES = [
    of_claim("a module named numpy beside predict.py", beside("numpy.py"), "files", "could be loaded"),
    of_claim("a library with a version beside it", beside("libonnxruntime.so.1"), "files", "could be loaded"),
    of_claim("a module named numpy, listed in the manifest", listed("numpy.py"), "files", "could be loaded"),
    of_claim("text beside it, listed in the manifest", listed("notes.txt"), "hashes", "no file of a bundle"),
    of_claim("predict.py edited", other_predict, "card", "--allow-predict"),
    of_file("predict.py with one byte more", "predict.py", lambda data: data + b"\n", "card", "--allow-predict"),
    of_claim("model.ort, which is ONNX, too, beside model.onnx", own_format_beside, "files", "could be loaded"),
    of_manifest("model.ort in the manifest", own_format_named, "", "expected model.onnx"),
    *(
        of_claim(f"golden.npz is {what}", in_place_of("golden.npz", make), "files", word, sign=False)
        for what, make, word in (
            ("a link to /etc/passwd", lambda path: path.symlink_to("/etc/passwd"), "a link"),
            ("a pipe", os.mkfifo, "a pipe"),
            ("a socket", bound, "a link, a pipe or a device"),
            ("a folder", Path.mkdir, "a folder"),
        )
    ),
    *(
        of_claim(f"{name} of 10 GiB, sparse", sparse(name), "files", "expected at most", sign=False)
        for name in ("manifest.json", "README.md", "golden.npz", "model.onnx")
    ),
]

# --- arrays -----------------------------------------------------------------------------------------------------------


def npz(make: Callable[[zipfile.ZipFile], object]) -> Callable[[Forger], None]:
    """Another golden.npz."""

    def change(forger: Forger) -> None:
        with zipfile.ZipFile(forger.path / "golden.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            make(archive)

    return change


def header(shape: str, kind: str = "'|u1'") -> bytes:
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text


def many_members(archive: zipfile.ZipFile) -> None:
    for index in range(30_000):
        archive.writestr(f"{index}.npy", b"")


def members_twice(forger: Forger) -> None:
    """Other logits first; a reader takes the first or the last."""
    with np.load(forger.path / "golden.npz") as stored:
        arrays = dict(stored)
    with warnings.catch_warnings(), zipfile.ZipFile(forger.path / "golden.npz", "w") as archive:
        warnings.simplefilter("ignore")  # zipfile's own of a name that it writes twice
        for name, values in [("logits", 2 * arrays["logits"]), *arrays.items()]:
            file = BytesIO()
            np.save(file, values)
            archive.writestr(f"{name}.npy", file.getvalue())


def pickled(forger: Forger) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, (planted(forger.path),)

    objects: Any = {name: np.array([Evil()], dtype=object) for name in ("pixels", "places", "logits")}
    np.savez(forger.path / "golden.npz", **objects)


def no_archive(forger: Forger) -> None:
    """What np.save writes of 2^50 numbers that are not there."""
    (forger.path / "golden.npz").write_bytes(header(f"({2**50},)"))


BOMB = header(f"({2**28},)") + bytes(2**28)
ARRAYS = [
    of_claim("an array that claims more than it holds", npz(lambda z: z.writestr("pixels.npy", header(f"({2**60},)"))),
             "golden", "not what it holds"),
    of_claim("an array of records of 10^9 numbers", npz(
        lambda z: z.writestr("pixels.npy", header("(1000000,)", "[('a', '|u1', (1000000000,))]"))),
        "golden", "not what it holds"),
    of_claim("an array of -5 numbers", npz(lambda z: z.writestr("pixels.npy", header("(-5,)"))), "golden", "not what"),
    of_claim("an array whose header is nested 50,000 deep", npz(
        lambda z: z.writestr("pixels.npy", header("(1,)", "[" * 50_000 + "]" * 50_000))), "golden", "cannot be read"),
    of_claim("arrays of 256 MiB in 1 MB", npz(lambda z: z.writestr("pixels.npy", BOMB)), "golden", "it unpacks to"),
    of_claim("30,000 arrays", npz(many_members), "golden", "its list of arrays"),
    of_claim("two arrays with one name", members_twice, "golden", "one name"),
    of_claim("an array of Python objects", pickled, "golden", "cannot be read"),
    of_claim("one array in the place of an archive", no_archive, "golden", "cannot be read"),
    of_file("golden.npz is text", "golden.npz", lambda _: b"no archive", "golden", "cannot be read"),
    of_file("golden.npz cut", "golden.npz", lambda data: data[:-200], "golden", "cannot be read"),
    of_file("reference.npz is text", "reference.npz", lambda _: b"no archive", "reference", "cannot be read"),
]  # fmt: skip

# --- the card ---------------------------------------------------------------------------------------------------------


def head(text: str) -> Callable[[Forger], None]:
    """Another YAML at the head of the card."""
    return lambda forger: forger.file("README.md", lambda _: f"---\n{text}\n---\n".encode())


def python_in_yaml(forger: Forger) -> None:
    head(f"x: !!python/object/apply:os.system ['touch {ran(forger.path)}']")(forger)


def aliases() -> str:
    """Ten lists of ten of the one before: 10^10 numbers, where they are written out."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{index}: &a{index} [{', '.join([f'*a{index - 1}'] * 10)}]" for index in range(1, 10)]
    return "\n".join(lines)


def of_head(name: str, text: str) -> Mutant:
    return of_claim(f"the card's YAML: {name}", head(text), "card", "claims something else", new_card=False)


CARD = [
    of_head("a bool that is none", 'x: !!bool "foo"'),
    of_head("a date that is none", "x: 2020-13-45"),
    of_claim("the card's YAML: a call of os.system", python_in_yaml, "card", "claims something else", new_card=False),
    of_head("aliases of aliases", aliases()),
    of_head("a list that holds itself", "&a [*a]"),
    of_head("nested 10,000 deep", "[" * 10_000),
    of_head("900 kB of a number to the base of 60", "x: " + "1:" * 450_000 + "1"),
    of_head("900 kB of keys", "{" + "a: 1," * 180_000 + "}"),
]

# --- the manifest as JSON ---------------------------------------------------------------------------------------------


def of_text(name: str, text: str, word: str) -> Mutant:
    def change(forger: Forger) -> None:
        forger.file("manifest.json", lambda _: text.encode())

    return of_claim(f"the manifest: {name}", change, "", word, sign=False)


def many_constants(count: int) -> list[dict[str, str]]:
    return [{"name": f"c{index}", "rule": "literal", "source": "", "sha256": ""} for index in range(count)]


MANIFEST = [
    of_file(
        "the manifest: a byte order mark", "manifest.json", lambda data: b"\xef\xbb\xbf" + data, "", "BOM", sign=False
    ),
    of_file(
        "the manifest: a key twice",
        "manifest.json",
        lambda data: data.replace(b'"seed": ', b'"seed": 7, "seed": ', 1),
        "",
        "is there twice",
        sign=False,
    ),
    of_text("nested 10^6 deep", "[" * 10**6, "not JSON"),
    of_text("a number of 10^6 digits", '{"schema": ' + "9" * 10**6 + "}", "not JSON"),
    of_claim(
        "the manifest: 10^6 constants in the proof",
        lambda forger: of_manifest("", lambda c: c["proof"].update(constants=many_constants(10**6)), "", "").apply(
            forger
        ),
        "files",
        "expected at most",
        sign=False,
    ),
    of_manifest(
        "the manifest: 200,000 constants in the proof",
        lambda c: c["proof"].update(constants=many_constants(200_000)),
        "card",
        "has another text",
    ),
]
CAUGHT = [*ENTRIES, *ARRAYS, *CARD, *MANIFEST]
