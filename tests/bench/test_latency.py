"""What is timed: the same real images on both engines, through the file that ships."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnbench import records
from cnnbench.__main__ import main
from cnnbench.bench import latency
from cnnbench.records.schema import Manifest

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Timing sets torch's threads for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_bundles_are_found_by_name_and_nothing_else_is(bundle: Path, tmp_path: Path) -> None:
    for name in ("b", "a"):
        shutil.copytree(bundle, tmp_path / "exports" / name)
    (tmp_path / "exports" / "c").mkdir()
    (tmp_path / "exports" / "file.json").write_text("{}")
    assert [path.name for path in latency.bundles(tmp_path / "exports")] == ["a", "b"]


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_images_are_the_golden_ones_repeated(bundle: Path, batch: int) -> None:
    with np.load(bundle / "golden.npz") as golden:
        pixels = golden["pixels"]
    images = latency.images_of(bundle, batch)
    assert images.dtype == np.uint8
    assert np.array_equal(images, pixels[np.arange(batch) % len(pixels)])


def test_onnx_runtime_times_the_file_that_ships(bundle: Path) -> None:
    with np.load(bundle / "golden.npz") as golden:
        logits = latency.prepare(bundle, "onnxruntime", threads=1)(golden["pixels"])
        np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)


def test_torch_times_the_same_architecture_on_the_same_images(bundle: Path) -> None:
    call = latency.prepare(bundle, "torch", threads=1)
    logits = call(latency.images_of(bundle, 3))
    assert (logits.shape, logits.dtype) == ((3, 10), np.float32)
    assert torch.get_num_threads() == 1
    assert np.array_equal(logits, call(latency.images_of(bundle, 3)))


def test_the_record_names_the_very_file_and_all_that_a_time_depends_on(bundle: Path) -> None:
    info = latency.extra_info(bundle, "torch", batch=64, threads=2)
    manifest = records.read(bundle / "manifest.json", Manifest)
    assert info == {
        "task": manifest.task,
        "arch": manifest.arch,
        "model_sha256": records.sha256(bundle / "model.onnx"),
        "runtime": "torch",
        "precision": "fp32",
        "provider": "cpu",
        "batch": 64,
        "threads": 2,
    }


@pytest.mark.slow
def test_the_harness_writes_raw_times_that_compare_reads(
    run: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        str(CHECKOUT / "tests" / "benchmarks"),
        "--bundles",
        str(bundle.parent),
        "--benchmark-enable",
        "--benchmark-quiet",
        "--benchmark-json",
        str(tmp_path / "latency.json"),
    ]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    cases = {
        (case["extra_info"]["runtime"], case["extra_info"]["batch"]): case
        for case in json.loads((tmp_path / "latency.json").read_text())["benchmarks"]
    }
    assert {key: len(case["stats"]["data"]) for key, case in cases.items()} == {
        ("torch", 1): 500,
        ("torch", 64): 50,
        ("onnxruntime", 1): 500,
        ("onnxruntime", 64): 50,
    }
    for (runtime, batch), case in cases.items():
        assert case["extra_info"] == latency.extra_info(bundle, runtime, batch, threads=1)

    paths = [str(run.parent.parent), str(bundle.parent), str(tmp_path / "latency.json")]
    assert main(["compare", *paths, "--format", "json", "--figure", "picture"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    for (runtime, batch), case in cases.items():
        median = 1e3 * np.percentile(case["stats"]["data"], 50)
        assert row[f"{runtime}_batch{batch}_threads1_p50_ms"] == pytest.approx(median)
