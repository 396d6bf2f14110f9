"""What is asked for is understood, or refused in one line before anything is measured."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from bench_helpers import case_of

from cnnbench import records
from cnnbench.bench import plan
from cnnbench.bench.plan import LatencyOptions
from cnnbench.records.bundle import Manifest
from cnnbench.types import CnnbenchError, Exit


def with_int8(bundle: Path, copy: Path) -> Path:
    """A bundle that also holds an int8 file, by its manifest."""
    shutil.copytree(bundle, copy)
    shutil.copyfile(copy / "model.onnx", copy / "model_int8.onnx")
    manifest = records.read(copy / "manifest.json", Manifest)
    int8 = records.replace(manifest.variants[0], precision="int8", file="model_int8.onnx")
    files = {**manifest.files, "model_int8.onnx": manifest.files["model.onnx"]}
    records.write(copy / "manifest.json", records.replace(manifest, variants=(*manifest.variants, int8), files=files))
    return copy


def test_bundles_are_named_or_found_in_a_folder_and_files_are_skipped(bundle: Path, tmp_path: Path) -> None:
    for name in ("b", "a"):
        shutil.copytree(bundle, tmp_path / "exports" / name)
    (tmp_path / "exports" / "latency.json").write_text("{}")
    expected = [tmp_path / "exports" / name for name in ("a", "b")]
    assert plan.find_bundles(sorted((tmp_path / "exports").iterdir())) == expected
    assert plan.find_bundles([str(tmp_path / "exports")]) == expected
    assert plan.find_bundles([expected[1], expected[1]]) == expected[1:]


def test_every_combination_is_a_setup_but_torch_has_only_fp32(bundle: Path, tmp_path: Path) -> None:
    copy = with_int8(bundle, tmp_path / "exports" / "x")
    threads = [1] if len(os.sched_getaffinity(0)) == 1 else [2, 1]
    options = LatencyOptions(backends=["onnxruntime", "torch"], precisions=["fp32", "int8"], threads=threads)
    setups = plan.setups([copy], options)
    assert [(setup.backend, setup.precision, setup.threads) for setup in setups] == [
        (backend, precision, count)
        for backend, precision in (("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("torch", "fp32"))
        for count in sorted(threads)
    ]
    assert {(setup.task, setup.arch) for setup in setups} == {("mnist5k_lenet5", "lenet5")}
    assert {setup.model_sha256 for setup in setups} == {records.sha256(bundle / "model.onnx")}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backends": ["onnx"]}, "--backend 'onnx': "),
        ({"backends": [""]}, "--backend ''"),
        ({"backends": []}, "--backend: expected at least one"),
        ({"provider": "tpu"}, "provider is 'tpu': expected one of cpu, cuda"),
        ({"backends": "torch"}, "backends is 'torch': expected a list, each text"),
        ({"batches": 8}, "batches is 8: expected a list, each a whole number"),
        ({"batches": ["8"]}, "batches is ['8']: expected a list, each a whole number"),
        ({"seconds": "5s"}, "seconds is '5s': expected a number"),
        ({"batches": [8, 0]}, "--batch 8,0: expected whole numbers from 1 on"),
        ({"batches": []}, "--batch : expected whole numbers from 1 on"),
        ({"threads": [-1]}, "--threads -1: expected whole numbers from 1 on"),
        *(({"seconds": seconds}, "--seconds ") for seconds in (0.0, -1.0, float("nan"), float("inf"))),
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CnnbenchError) as failure:
        LatencyOptions(**changes)
    assert failure.value.code == Exit.USAGE
    assert words in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (LatencyOptions(precisions=["int8"]), Exit.USAGE, "holds no int8 model"),
        (LatencyOptions(threads=[9999]), Exit.ENVIRONMENT, "--threads 9999: this process may use"),
    ],
)
def test_what_cannot_be_measured_is_refused(bundle: Path, options: LatencyOptions, code: Exit, words: str) -> None:
    with pytest.raises(CnnbenchError) as failure:
        plan.setups([bundle], options)
    assert failure.value.code == code
    assert words in str(failure.value)
    assert "\n" not in str(failure.value)


def test_torch_with_only_int8_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = with_int8(bundle, tmp_path / "x")
    with pytest.raises(CnnbenchError, match="--precision int8: torch has fp32 only"):
        plan.setups([copy], LatencyOptions(backends=["torch"], precisions=["int8"]))


def test_an_edited_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "x"
    shutil.copytree(bundle, copy)
    model = bytearray((copy / "model.onnx").read_bytes())
    model[-1] ^= 1
    (copy / "model.onnx").write_bytes(model)
    with pytest.raises(CnnbenchError, match="was edited") as failure:
        plan.setups([copy], LatencyOptions())
    assert failure.value.code == Exit.VERDICT
    (copy / "model.onnx").unlink()
    with pytest.raises(CnnbenchError, match="is missing") as failure:
        plan.setups([copy], LatencyOptions())
    assert failure.value.code == Exit.DATA


def test_two_bundles_of_a_task_are_refused(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "x")
    with pytest.raises(CnnbenchError, match=r"^2 bundles are of task mnist5k_lenet5: .*--against"):
        plan.setups([bundle, tmp_path / "x"], LatencyOptions())


@pytest.mark.parametrize("paths", [["empty"], ["file"], ["nowhere"], ["empty", "file"]])
def test_no_bundle_is_an_error(paths: list[str]) -> None:
    Path("empty").mkdir()
    Path("file").touch()
    with pytest.raises(CnnbenchError, match="cnnbench export") as failure:
        plan.find_bundles(paths)
    assert failure.value.code == Exit.DATA


def test_numbers_are_sorted_and_each_counts_once() -> None:
    options = LatencyOptions(batches=[64, 1, 8, 1], threads=[2, 1, 2], backends=["torch", "onnxruntime", "torch"])
    assert (options.batches, options.threads) == ([1, 8, 64], [1, 2])
    assert options.backends == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("name", "batches", "bound", "words"),
    [
        ("Singlestream", [1], None, "did you mean SingleStream"),
        ("SingleStream", [8], None, "expected 1 in --batch"),
        ("Server", [1], None, "needs --server-p99"),
        ("Server", [1], 0.0, "--server-p99 0ms: expected more than 0ms"),
        ("Offline", [1], 5.0, "--server-p99 5ms: expected more than 0ms, with --scenario Server"),
        ("Server", [1], float("nan"), "--server-p99 nanms: expected"),
    ],
)
def test_a_scenario_that_cannot_be_measured_is_refused(
    name: str, batches: list[int], bound: float | None, words: str
) -> None:
    with pytest.raises(CnnbenchError) as failure:
        plan.scenarios([name], batches=batches, server_p99_ms=bound)
    assert words in str(failure.value)


def test_scenarios_are_read() -> None:
    assert plan.scenarios([], batches=[8], server_p99_ms=None) == []
    assert plan.scenarios(["Server", "Offline", "Server"], batches=[8], server_p99_ms=5.0) == ["Server", "Offline"]


def test_cases_are_named_for_all_that_their_latency_depends_on() -> None:
    assert case_of(8).name == "mnist5k_lenet5[onnxruntime-fp32-batch8-threads1]"
    changed = case_of(1, provider="cuda", precision="fp16", threads=2)
    assert changed.name == "mnist5k_lenet5[onnxruntime-fp16-cuda-batch1-threads2]"
