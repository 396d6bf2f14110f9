"""Records of runs, failures, bundles and latencies that are damaged or hostile."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import builders as made
from hostile import Case

from cnnbench import records
from cnnbench.records import io

RUN = Path("runs/d_a/seed1")
TABLES = [
    ["compare", "runs", "exports", "latency.json"],
    ["compare", "--view", "seeds", "runs", "exports", "latency.json"],
    ["report", "runs", "exports", "latency.json"],
    ["choose", "runs", "exports", "latency.json"],
    ["collect", "runs", "exports", "latency.json", "--out", "kept"],
]
OF_BUNDLES = [
    *TABLES,
    ["compare", "--view", "precision", "exports"],
    ["verify", "exports/d_a"],
    ["classify", "exports/d_a", "images"],
    ["bench", "exports"],
]
OF_LATENCIES = [*TABLES, ["compare", "latency.json", "--baseline", "latency.json"]]
FILES = {
    "result": RUN / "result.json",
    "robustness": RUN / "robustness.json",
    "failure": Path("runs/d_b/seed1/failure.json"),
    "manifest": Path("exports/d_a/manifest.json"),
    "latency": Path("latency.json"),
    "decision": Path("out/decision.json"),
}
COMMANDS = {
    "result": TABLES,
    "robustness": TABLES,
    "failure": TABLES,
    "manifest": OF_BUNDLES,
    "latency": OF_LATENCIES,
}
Content = dict[str, Any]


def good() -> None:
    """A tested run with predictions and robustness, a failure, a bundle and its latency; and a decision."""
    record = made.run_record()
    made.write_certain(made.write_run(record), made.first(90))
    made.write_run(made.run_record(seed=2, right=91))
    io.write(RUN / "robustness.json", made.shifted("checkpoint of d_a 1", 0.9, 0.5))
    made.write_failure("b", 1)
    made.write_bundle(record)
    made.write_latencies(made.measured(record, [0.001, 0.002, 0.003]))
    records.write(FILES["decision"], made.decision())
    Path("images").mkdir()


def raw(file: str, content: bytes) -> Callable[[], None]:
    """The good records, one of them replaced by some bytes."""

    def make() -> None:
        good()
        FILES[file].write_bytes(content)

    return make


def replaced(file: str, old: str, new: str) -> Callable[[], None]:
    """The good records, with the first place of a text in one of them replaced."""

    def make() -> None:
        good()
        text = FILES[file].read_text()
        assert old in text
        FILES[file].write_text(text.replace(old, new, 1))

    return make


def changed(file: str, *keys: str | int, to: Any) -> Callable[[], None]:
    """The good records, with one value of one of them replaced, and sealed again."""

    def make() -> None:
        good()
        content = json.loads(FILES[file].read_text())
        place = content
        for key in keys[:-1]:
            place = place[key]
        if to is REMOVED:
            del place[keys[-1]]
        else:
            place[keys[-1]] = to
        if "seal" in content:
            del content["seal"]
            content["seal"] = io.seal(content)
        FILES[file].write_text(json.dumps(content))

    return make


REMOVED = object()


def in_place_of(file: str, put: Callable[[Path], object]) -> Callable[[], None]:
    def make() -> None:
        good()
        FILES[file].unlink()
        put(FILES[file])

    return make


def giant(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)  # sparse: it takes no room


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


BYTES = {
    "empty": b"",
    "cut": b'{"schema": "cnnbench.run/2", "task": "d_',
    "a list": b"[1, 2]",
    "null": b"null",
    "a number of 5,000 digits": b'{"schema": "cnnbench.run/2", "seed": ' + b"9" * 5_000 + b"}",
    "binary": b"\x89PNG\r\n\x1a\n\x00\xff",
    "UTF-16": '{"schema": "cnnbench.run/2"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"schema": "cnnbench.run/2"}',
    "nested 100,000 deep": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a key twice": b'{"schema": "cnnbench.run/2", "schema": "cnnbench.run/2"}',
    "NaN": b'{"schema": "cnnbench.run/2", "seed": NaN}',
    "Infinity": b'{"schema": "cnnbench.run/2", "seed": Infinity}',
    "1e999": b'{"schema": "cnnbench.run/2", "seed": 1e999}',
    "a control character": b'{"schema": "cnnbench.run/2", "task": "\\u001b[31m"}',
    "a raw control character": b'{"schema": "cnnbench.run/2", "task": "\x1b[31m"}',
}
PLACES = {"a pipe": os.mkfifo, "a device": device, "a giant": giant}
NAMES = {
    "two folders up": "../../x",
    "absolute": "/tmp/x",
    "with a separator": "a/b",
    "with a backslash": "a\\b",
    "hidden": ".x",
    "empty": "",
    "a surrogate": "\ud800",
    "a line end": "a\nb",
    "a colour": "\x1b[31m",
    "turned": "\u202ea",
    "a number": 5,
    "null": None,
    "300 letters": "x" * 300,
}
HUGE = 10**400
VALUES: dict[str, Sequence[tuple[tuple[str | int, ...], Any]]] = {
    "result": [
        *[(("arch",), name) for name in ("", "\ud800", 5, "a\nb", "x" * 300)],
        *[(("data", "name"), name) for name in ("\ud800", 5, "", "x" * 300)],
        *[(("seed",), seed) for seed in ("1", 1.5, HUGE, -1, None)],
        *[(("test", "accuracy"), value) for value in ("0.9", 1e308, -1.0, 2.0, None, HUGE)],
        *[(("test", "images"), value) for value in (0, -1, HUGE, "100")],
        *[(("test", "correct"), value) for value in (101, -1, HUGE)],
        (("test", "checkpoint_sha256"), 5),
        (("test", "by_class"), {"images": [1], "correct": [2], "predicted": [1]}),
        (("test",), []),
        (("spec", "num_classes"), 0),
        (("spec", "num_classes"), HUGE),
        (("spec", "mean"), [1, 2, 3]),
        (("spec",), {}),
        *[(("cost", "params"), value) for value in (-1, HUGE, "5", 1.5, None)],
        *[(("cost", "macs"), value) for value in (-1, HUGE)],
        (("fit", "curve"), "none"),
        (("fit", "curve", 0, "val_accuracy"), "x"),
        (("fit", "train_seconds"), "6"),
        (("fit", "train_seconds"), -1e308),
        (("fit", "val_accuracy"), 5.0),
        (("fit", "val_images"), 0),
        (("fit", "resources"), None),
        (("fit",), {}),
        (("data",), {}),
        (("data", "train_images"), -5),
        (("data", "augment"), {"pad": -1, "flip": 3}),
        (("data", "augment"), "none"),
        (("config",), {}),
        (("config", "trainer"), [1]),
        (("config", "model"), 5),
        (("environment",), {}),
        (("environment", "packages"), {"torch": 5}),
        (("class_names",), 5),
        (("fc_weights",), REMOVED),
        (("identity",), REMOVED),
    ],
    "robustness": [
        (("shifts",), []),
        (("accuracy",), []),
        (("accuracy",), [[0.5]]),
        (("accuracy", 0, 0), "x"),
        (("accuracy", 0, 0), 1e308),
        (("images",), 0),
        (("equivariance",), {"layer": "conv", "stride": 1, "errors": []}),
        (("environment",), 5),
    ],
    "failure": [
        (("reason",), 5),
        (("reason",), "a\x1b[2Jb"),
        (("arch",), ["a"]),
        (("dataset",), "\ud800"),
        (("seed",), HUGE),
        (("code",), "1"),
    ],
    "manifest": [
        (("variants",), []),
        (("variants", 0, "passes"), []),
        (("variants", 0, "bytes"), "x"),
        (("variants", 0, "file"), "../../x.onnx"),
        (("variants", 0, "passes", 0, "correct"), HUGE),
        (("variants", 0, "precision"), "fp64"),
        (("files",), {}),
        (("files", "model.onnx", "bytes"), -1),
        (("run",), {}),
        (("run", "commands"), "rm -rf /"),
        (("run", "val_accuracy"), 7.0),
        (("reference", "images"), 0),
        (("reference", "images"), HUGE),
        (("reference",), None),
        (("class_names",), ["a", "a"]),
        (("class_names",), ["a\x1b[31m", "b"]),
        (("class_names",), []),
        (("contract", "input", "shape"), "x"),
        (("spec", "height"), -1),
        (("data", "name"), 5),
        (("proof",), {}),
        (("schema",), "cnnbench.bundle/99"),
    ],
    "latency": [
        (("benchmarks",), 5),
        (("benchmarks",), ["a"]),
        (("benchmarks",), []),
        (("benchmarks",), [{}]),
        (("benchmarks", 0, "stats"), {}),
        (("benchmarks", 0, "stats", "data"), []),
        (("benchmarks", 0, "stats", "data"), ["0.1"]),
        (("benchmarks", 0, "stats", "data"), [-0.1]),
        (("benchmarks", 0, "stats", "data"), [HUGE]),
        (("benchmarks", 0, "stats", "data"), [0]),
        (("benchmarks", 0, "extra_info", "batch"), 0),
        (("benchmarks", 0, "extra_info", "batch"), "1"),
        (("benchmarks", 0, "extra_info", "threads"), -1),
        (("benchmarks", 0, "extra_info", "task"), 5),
        (("benchmarks", 0, "extra_info", "backend"), REMOVED),
        (("benchmarks", 0, "extra_info", "processes"), [{"median_seconds": -1}]),
        (("machine_info",), [1]),
    ],
}


HARMLESS: dict[str, Sequence[tuple[tuple[str | int, ...], Any]]] = {
    "result": [
        (("cost", "macs"), 0),
        (("fit", "curve"), []),
        (("config", "trainer", "max_epochs"), {"a": HUGE}),
        (("class_names",), ["\ud800", "b"]),
        (("class_names",), []),
        (("run",), {}),
        (("arch",), "$x_{$"),
        (("arch",), "<script>alert(1)</script>"),
        (("arch",), "{{ 7 * 7 }}"),
        (("environment", "cpu"), "=cmd|' /C calc'!A0"),
    ],
    "failure": [(("reason",), "</script><img src=x onerror=alert(1)>")],
    "latency": [(("benchmarks", 0, "extra_info", "task"), "../../x")],
}
"""What tables show as it is, or pass over."""


def named(keys: Sequence[str | int], value: Any) -> str:
    shown = "removed" if value is REMOVED else "10^400" if value == HUGE else ascii(value)
    return f"{'.'.join(map(str, keys))} is {shown[:40]}"


def cases() -> list[Case]:
    found = []
    for file in ("result", "manifest", "latency"):
        for name, content in BYTES.items():
            found.append(Case(file, name, raw(file, content), COMMANDS[file], 3, FILES[file].name))
        for name, put in PLACES.items():
            found.append(Case(file, name, in_place_of(file, put), COMMANDS[file], 3, str(FILES[file].parent)))
    for file in ("result", "failure", "manifest", "robustness"):
        for name, value in NAMES.items():
            made_so = changed(file, "task", to=value)
            found.append(Case(file, f"task is {name}", made_so, COMMANDS[file], 3, FILES[file].name))
    for file, values in VALUES.items():
        for keys, value in values:
            made_so = changed(file, *keys, to=value)
            found.append(Case(file, named(keys, value), made_so, COMMANDS[file], 3, FILES[file].name))
    for file, values in HARMLESS.items():
        for keys, value in values:
            found.append(Case(file, named(keys, value), changed(file, *keys, to=value), COMMANDS[file][:5], 0, ""))
    for file in ("result", "manifest", "failure"):
        edit = replaced(file, '"task": "d_', '"task": "e_')
        found.append(Case(file, "edited", edit, COMMANDS[file], 4, "edited after it was written"))
    return found
