"""Task files that are damaged or hostile."""

import os
from collections.abc import Callable
from pathlib import Path

from hostile import CANARY, Case

TASK = Path("hostile.yaml")
COMMANDS = [
    ["fit", "--config", "hostile.yaml"],
    ["test", "--config", "hostile.yaml"],
    ["validate", "--config", "hostile.yaml"],
    ["predict", "--config", "hostile.yaml"],
    ["sweep", "hostile.yaml", "--dry-run"],
]
LAUGHS = "\n".join(
    ["a: &a [x, x]", *[f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]" for i in range(24)]]
)
CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "a list": b"- a\n- b\n",
    "a word": b"word",
    "cut": b"model: {arch: len",
    "binary": b"\x89PNG\r\n\x1a\n\x00\xff",
    "NUL": b"model: {arch: len\x00et5}",
    "a colour": b"model: {arch: \x1b[31mlenet5}",
    "UTF-16": "model: {arch: lenet5}".encode("utf-16"),
    "aliases that explode": LAUGHS.encode(),
    "an alias to itself": b"model: &a {arch: *a}",
    "a merged alias": b"x: &x {arch: lenet5}\nmodel: {<<: *x}",
    "50 MB": b"model: {arch: lenet5}\n" + b"#" * 50_000_000,
    "nested 10,000 deep": b"model: " + b"[" * 10_000 + b"]" * 10_000,
    "a tag that runs a command": f"model: !!python/object/apply:os.system ['touch ../{CANARY}']".encode(),
    "a tag of a class": b"model: !!python/name:os.system ''",
    "a tag of another kind": b"model: !include /etc/passwd",
    "a date that is none": b"model: {arch: 2001-99-99}",
    "a number of 5,000 digits": b"seed_everything: " + b"9" * 5_000,
    "a key that is a map": b"{a: b}: c",
    "two documents": b"model: {arch: lenet5}\n---\nmodel: {arch: mlp}",
    "an unknown key": b"model: {arch: lenet5, import: os}",
    "a class path": b"model: {class_path: os.system, init_args: {command: ls}}",
    "a task name two folders up": b"task: ../../x\nmodel: {arch: lenet5}",
    "an architecture that is a path": b"model: {arch: ../../x}",
    "an architecture that is a list": b"model: {arch: [lenet5]}",
    "a dataset that is a number": b"model: {arch: lenet5}\ndata: {dataset: 5}",
    "NaN for the learning rate": b"model: {arch: lenet5, lr: .nan}",
    "infinity for the learning rate": b"model: {arch: lenet5, lr: .inf}",
    "epochs that are text": b"model: {arch: lenet5}\ntrainer: {max_epochs: many}",
    "epochs of 10^400": b"model: {arch: lenet5}\ntrainer: {max_epochs: 1" + b"0" * 400 + b"}",
    "weights that decay by NaN": b"model: {arch: lenet5, weight_decay: .nan}",
    "a batch of -1": b"model: {arch: lenet5}\ndata: {batch_size: -1}",
}


def written(content: bytes) -> Callable[[], object]:
    return lambda: TASK.write_bytes(content)


def pipe() -> None:
    os.mkfifo(TASK)


def cases() -> list[Case]:
    found = [Case("task", name, written(content), COMMANDS, 2, "cnnbench: ") for name, content in CONTENTS.items()]
    seed = written(b"model: {arch: lenet5}\nseed_everything: -1")
    found.append(Case("task", "a seed of -1", seed, COMMANDS[:4], 2, "seed_everything"))
    found.append(Case("task", "a pipe", pipe, COMMANDS, 2, "cnnbench: "))
    found.append(Case("task", "a folder", TASK.mkdir, COMMANDS, 2, "is a folder"))
    return found
