"""The latency benchmark under pytest-benchmark writes a record that `compare` reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnbench.__main__ import main
from cnnbench.bench import plan, record
from cnnbench.bench.plan import Case, LatencyOptions

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_harness_writes_raw_times_that_compare_reads(
    run: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        str(CHECKOUT / "tests" / "benchmarks" / "test_latency.py"),
        "--bundles",
        str(bundle.parent),
        "--benchmark-enable",
        "--benchmark-quiet",
        "--benchmark-json",
        str(tmp_path / "latency.json"),
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}  # xdist's
    subprocess.run(command, check=True, capture_output=True, env={**environment, "PYTHONDONTWRITEBYTECODE": "1"})
    benchmarks = {
        (entry["extra_info"]["backend"], entry["extra_info"]["batch"]): entry
        for entry in json.loads((tmp_path / "latency.json").read_text())["benchmarks"]
    }
    assert {key: len(entry["stats"]["data"]) for key, entry in benchmarks.items()} == {
        ("torch", 1): 500,
        ("torch", 64): 50,
        ("onnxruntime", 1): 500,
        ("onnxruntime", 64): 50,
    }
    for setup in plan.setups([bundle], LatencyOptions()):
        for batch in (1, 64):
            assert benchmarks[setup.backend, batch]["extra_info"] == record.extra_info(Case(setup, batch))

    paths = [str(run.parent.parent), str(bundle.parent), str(tmp_path / "latency.json")]
    assert main(["compare", *paths, "--format", "json", "--picture", "picture"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    for (backend, batch), entry in benchmarks.items():
        median = 1e3 * np.percentile(entry["stats"]["data"], 50)
        assert row[f"{backend}_batch{batch}_threads1_p50_ms"] == pytest.approx(median)
