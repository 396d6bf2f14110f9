"""Checkpoints and ONNX files that are damaged or hostile, in the place of good ones that the tests have made."""

import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hostile import Case

CHECKPOINT = Path("runs/mnist5k_lenet5/seed1/best.ckpt")
ONNX = Path("exports/mnist5k_lenet5/model.onnx")
OF_CHECKPOINTS = [
    ["export", "runs/mnist5k_lenet5/seed1"],
    ["test", "--model.arch", "lenet5"],
    ["validate", "--model.arch", "lenet5"],
    ["predict", "--model.arch", "lenet5"],
    ["robustness", "runs", "--images", "50"],
]
OF_ONNX = [
    ["verify", "exports/mnist5k_lenet5", "--quick"],
    ["classify", "exports/mnist5k_lenet5", "exports"],
]
Content = dict[str, Any]


def entries() -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(CHECKPOINT) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def bomb() -> None:
    """A megabyte with a gigabyte of zeros inside."""
    known = entries()
    with zipfile.ZipFile(CHECKPOINT, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in known:
            archive.writestr(name, content)
        with archive.open("archive/data/99", "w", force_zip64=True) as entry:
            for _ in range(64):
                entry.write(bytes(2**24))


def claims() -> None:
    """Stored entries of which one claims to be larger than the file."""
    content = bytearray(CHECKPOINT.read_bytes())
    place = content.find(b"PK\x01\x02")
    content[place + 20 : place + 28] = (2**31).to_bytes(4, "little") * 2
    CHECKPOINT.write_bytes(content)


def short_storages() -> None:
    known = entries()
    with zipfile.ZipFile(CHECKPOINT, "w") as archive:
        for name, content in known:
            archive.writestr(name, content[:4] if "/data/" in name else content)


def changed(change: Callable[[Content], object]) -> Callable[[], None]:
    def make() -> None:
        content = torch.load(CHECKPOINT, weights_only=True)
        change(content)
        torch.save(content, CHECKPOINT)

    return make


def ours(**values: Any) -> Callable[[], None]:
    return changed(lambda content: content["cnnbench"].update(values))


def spec(**values: Any) -> Callable[[], None]:
    return changed(lambda content: content["cnnbench"]["spec"].update(values))


def weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], None]:
    def change_all(content: Content) -> None:
        content["state_dict"] = {name: change(value) for name, value in content["state_dict"].items()}

    return changed(change_all)


def saved(content: object) -> Callable[[], None]:
    return lambda: torch.save(content, CHECKPOINT)


def cut(path: Path, *, to: float) -> Callable[[], None]:
    return lambda: os.truncate(path, int(path.stat().st_size * to))


def piped(path: Path) -> Callable[[], None]:
    def make() -> None:
        path.unlink()
        os.mkfifo(path)

    return make


MAKERS: dict[str, Callable[[], object]] = {
    "a gigabyte in a megabyte": bomb,
    "an entry larger than the file": claims,
    "storages that are cut": short_storages,
    "cut in half": cut(CHECKPOINT, to=0.5),
    "empty": cut(CHECKPOINT, to=0),
    "text": lambda: CHECKPOINT.write_text("weights"),
    "a list": saved([1, 2]),
    "a tensor": saved(torch.zeros(3)),
    "no part of ours": changed(lambda content: content.pop("cnnbench")),
    "another schema": ours(schema="cnnbench.checkpoint/99"),
    "class names that are a number": ours(class_names=5),
    "an architecture that is a list": ours(arch=["lenet5"]),
    "data that is nothing": ours(data=None),
    "data without a name": changed(lambda content: content["cnnbench"]["data"].update(name="")),
    "no spec": changed(lambda content: content["cnnbench"].pop("spec")),
    "a thousand million classes": spec(num_classes=10**9),
    "a negative side": spec(height=-1),
    "a side of 10^400": spec(height=10**400),
    "a mean for no channel": spec(mean=[0.1, 0.2]),
    "buffers that are a number": ours(buffers=5),
    "a buffer of another network": ours(buffers={"x": torch.zeros(3)}),
    "class weights that are text": ours(weight_of_class="x"),
    "weights that are a list": changed(lambda content: content.update(state_dict=[1])),
    "weights of nothing": changed(lambda content: content.update(state_dict={})),
    "a weight that is a number": changed(lambda content: content["state_dict"].update(x=5)),
    "weights that are sparse": weights(lambda value: value.to_sparse()),
    "weights without values": weights(lambda value: value.to("meta")),
    "weights of another shape": weights(lambda value: value.reshape(-1)),
    "an epoch that is text": changed(lambda content: content.update(epoch="1")),
}
GARBAGE = {
    "empty": b"",
    "text": b"a graph",
    "zeros": bytes(1_000),
    "a field that claims 2^31 bytes": b"\x3a\xff\xff\xff\xff\x07",
    "nested groups": b"\x3b" * 10_000,
    "cut": b"\x08\x08\x12\x07pytorch\x1a",
}


def cases() -> list[Case]:
    found = [Case("checkpoint", name, make, OF_CHECKPOINTS, 3, "") for name, make in MAKERS.items()]
    giant, alone = spec(height=100_000, width=100_000), OF_CHECKPOINTS[:1]
    found.append(Case("checkpoint", "100,000 x 100,000 pixels", giant, alone, 3, "bytes for"))
    for name, content in GARBAGE.items():
        put = partial(ONNX.write_bytes, content)
        found.append(Case("ONNX, verified", name, put, OF_ONNX[:1], 4, "edited"))
        found.append(Case("ONNX, run", name, put, OF_ONNX[1:], 3, "model.onnx"))
    for name, put in {"a pipe": piped(ONNX), "10 TB": partial(os.truncate, ONNX, 10 * 2**40)}.items():
        found.append(Case("ONNX", name, put, OF_ONNX, 3, "model.onnx"))
    return found
