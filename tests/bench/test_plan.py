"""What is asked for is understood, or refused in one line before anything is measured."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cnnbench import records
from cnnbench.bench import plan
from cnnbench.records.schema import Manifest
from cnnbench.types import CnnbenchError, Exit

USUAL: dict[str, Any] = {"runtimes": "torch,onnxruntime", "precisions": "fp32", "provider": "cpu", "threads": "1"}


def with_int8(bundle: Path, copy: Path) -> Path:
    """A bundle that also holds an int8 file, by its manifest."""
    shutil.copytree(bundle, copy)
    shutil.copyfile(copy / "model.onnx", copy / "model_int8.onnx")
    manifest = records.read(copy / "manifest.json", Manifest)
    int8 = replace(manifest.variants[0], precision="int8", file="model_int8.onnx")
    files = {**manifest.files, "model_int8.onnx": manifest.files["model.onnx"]}
    records.write(copy / "manifest.json", replace(manifest, variants=(*manifest.variants, int8), files=files))
    return copy


def test_bundles_are_named_or_found_in_a_folder_and_files_are_passed_over(bundle: Path, tmp_path: Path) -> None:
    for name in ("b", "a"):
        shutil.copytree(bundle, tmp_path / "exports" / name)
    (tmp_path / "exports" / "latency.json").write_text("{}")
    expected = [tmp_path / "exports" / name for name in ("a", "b")]
    assert plan.found_bundles([str(path) for path in sorted((tmp_path / "exports").iterdir())]) == expected
    assert plan.found_bundles([str(tmp_path / "exports")]) == expected
    assert plan.found_bundles([str(expected[1]), str(expected[1])]) == expected[1:]


def test_every_combination_is_an_engine_but_torch_has_fp32_alone(bundle: Path, tmp_path: Path) -> None:
    copy = with_int8(bundle, tmp_path / "exports" / "x")
    cores = len(os.sched_getaffinity(0))
    threads = "1" if cores == 1 else "1,2"
    found = plan.setups([copy], "onnxruntime,torch", "fp32,int8", "cpu", threads)
    assert [(one.runtime, one.precision, one.threads) for one in found] == [
        (runtime, precision, count)
        for runtime, precision in (("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("torch", "fp32"))
        for count in map(int, threads.split(","))
    ]
    assert {one.task for one in found} == {"mnist5k_lenet5"}


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"runtimes": "onnx"}, Exit.USAGE, "--runtime 'onnx': "),
        ({"runtimes": ""}, Exit.USAGE, "--runtime ''"),
        ({"precisions": "int8"}, Exit.USAGE, "holds no int8 model"),
        ({"threads": "0"}, Exit.USAGE, "--threads 0: expected whole numbers from 1 on"),
        ({"threads": "1;2"}, Exit.USAGE, "--threads 1;2: expected"),
        ({"threads": "9999"}, Exit.ENVIRONMENT, "--threads 9999: this process may use"),
    ],
)
def test_what_cannot_be_measured_is_refused(bundle: Path, changes: dict[str, str], code: Exit, words: str) -> None:
    with pytest.raises(CnnbenchError) as failure:
        plan.setups([bundle], **{**USUAL, **changes})
    assert failure.value.code == code
    assert words in str(failure.value)
    assert "\n" not in str(failure.value)


def test_torch_alone_with_int8_alone_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = with_int8(bundle, tmp_path / "x")
    with pytest.raises(CnnbenchError, match="torch has fp32 alone"):
        plan.setups([copy], "torch", "int8", "cpu", "1")


def test_an_edited_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "x"
    shutil.copytree(bundle, copy)
    model = bytearray((copy / "model.onnx").read_bytes())
    model[-1] ^= 1
    (copy / "model.onnx").write_bytes(model)
    with pytest.raises(CnnbenchError, match="was edited") as failure:
        plan.setups([copy], **USUAL)
    assert failure.value.code == Exit.VERDICT
    (copy / "model.onnx").unlink()
    with pytest.raises(CnnbenchError, match="is missing") as failure:
        plan.setups([copy], **USUAL)
    assert failure.value.code == Exit.DATA


def test_two_bundles_of_a_task_are_refused(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "x")
    with pytest.raises(CnnbenchError, match=r"^2 bundles are of task mnist5k_lenet5: .*--against"):
        plan.setups([bundle, tmp_path / "x"], **USUAL)


@pytest.mark.parametrize("paths", [["empty"], ["file"], ["nowhere"], ["empty", "file"]])
def test_no_bundle_is_told(paths: list[str]) -> None:
    Path("empty").mkdir()
    Path("file").touch()
    with pytest.raises(CnnbenchError, match="cnnbench export") as failure:
        plan.found_bundles(paths)
    assert failure.value.code == Exit.DATA


@pytest.mark.parametrize("text", ["0", "", "1,", "-1", "1.5", "x", "\u00b2"])
def test_a_batch_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CnnbenchError, match=r"--batch .*: expected whole numbers from 1 on"):
        plan.numbers("--batch", text)


def test_numbers_are_sorted_and_each_counts_once() -> None:
    assert plan.numbers("--batch", "64, 1,8,1") == [1, 8, 64]


@pytest.mark.parametrize(
    ("text", "batches", "bound", "words"),
    [
        ("Singlestream", [1], None, "did you mean SingleStream"),
        ("SingleStream", [8], None, "expected 1 in --batch"),
        ("Server", [1], None, "needs --server_p99_ms"),
        ("Server", [1], 0.0, "--server_p99_ms 0: expected milliseconds above 0"),
        ("Offline", [1], 5.0, "--server_p99_ms 5: expected milliseconds above 0, with --scenario Server"),
        ("Server", [1], float("nan"), "--server_p99_ms nan: expected"),
    ],
)
def test_a_scenario_that_cannot_be_is_refused(text: str, batches: list[int], bound: float | None, words: str) -> None:
    with pytest.raises(CnnbenchError) as failure:
        plan.scenarios(text, batches, bound)
    assert words in str(failure.value)


def test_scenarios_are_read() -> None:
    assert plan.scenarios("", [8], None) == []
    assert plan.scenarios("Server,Offline", [8], 5.0) == ["Server", "Offline"]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_seconds_are_above_zero(value: float) -> None:
    with pytest.raises(CnnbenchError, match=r"--seconds .*: expected a number above 0"):
        plan.positive("--seconds", value)
