"""commands.sh: the same by ordinary verbs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from builders import environment, run_config, run_record

from cnnbench import records
from cnnbench.shipping import commands


def test_the_script_trains_with_the_threads_of_the_race_and_tests_the_chosen_run_alone() -> None:
    two = environment(threads=2)
    runs = [run_record(arch, environment=two, config=run_config(arch, "mnist5k")) for arch in ("mlp", "lenet5")]
    chosen = records.replace(runs[1].config, task="it's")
    path = Path("commands.sh")
    commands.write(path, runs, chosen=chosen, task="it's", precision="int8", command="cnnbench ship")
    subprocess.run(["sh", "-n", str(path)], check=True)
    text = path.read_text()
    assert text.count("OMP_NUM_THREADS=2 cnnbench fit ") == 2
    assert text.count("cnnbench test ") == 1
    assert "--precision fp32,int8" in text


def test_without_a_chosen_run_no_test_image_is_read() -> None:
    path = Path("commands.sh")
    commands.write(path, [run_record()], chosen=None, task="", precision="", command="cnnbench ship")
    assert "cnnbench test" not in path.read_text()
