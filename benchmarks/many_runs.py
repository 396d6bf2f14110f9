"""Time and memory of `compare` and `report` on many runs.

    python benchmarks/many_runs.py [--runs 500 1000 2000] [--seeds 1]

The records are copies of one in results/ with other names, costs and accuracies; half of the networks cost the same.
Seconds of wall clock and of the processor, and peak resident memory, of whole processes, imports included.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rounds import table

from cnnbench import records
from cnnbench.records.schema import RunRecord

ORIGINAL = Path(__file__).parent.parent / "results" / "mnist5k_lenet5" / "seed1" / "result.json"


def write_runs(folder: Path, count: int, seeds: int) -> None:
    """Records of `count` runs, `seeds` of each network, without predictions."""
    original = records.read(ORIGINAL, RunRecord)
    assert original.test is not None
    draw = random.Random(count)
    for index in range(count):
        network, seed = divmod(index, seeds)
        arch = f"network{network}"
        macs = original.cost.macs if network % 2 else int(10 ** draw.uniform(4, 9))
        correct = int(original.test.images * draw.uniform(0.9, 0.99))
        test = records.replace(
            original.test,
            correct=correct,
            accuracy=correct / original.test.images,
            checkpoint_sha256=f"checkpoint {index}",
            by_class=None,
        )
        config = records.replace(original.config, model=records.replace(original.config.model, arch=arch))
        record = records.replace(
            original,
            task=f"mnist5k_{arch}",
            arch=arch,
            seed=seed + 1,
            config=config,
            cost=type(original.cost)(macs // 7 + 1, macs, macs // 30 + 1, 5),
            fit=records.replace(original.fit, val_accuracy=test.accuracy),
            test=test,
        )
        records.write(folder / record.task / f"seed{record.seed}" / "result.json", record)


def measured(arguments: list[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak resident bytes of a command."""
    begun = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "cnnbench", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"cnnbench {' '.join(arguments)} exited with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def main() -> None:
    """Measure, and print a row for each verb and number of runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--seeds", type=int, default=1, help="runs of each network")
    chosen = parser.parse_args()
    rows = [["verb", "runs", "networks", "seconds", "processor seconds", "peak memory, MB"]]
    for count in chosen.runs:
        with tempfile.TemporaryDirectory() as place:
            write_runs(Path(place) / "runs", count, chosen.seeds)
            for verb in ("compare", "report"):
                more = ["--out", f"{place}/report.html"] if verb == "report" else []
                seconds, busy, peak = measured([verb, f"{place}/runs", *more])
                networks = -(-count // chosen.seeds)
                rows.append([verb, f"{count:,}", f"{networks:,}", f"{seconds:.1f}", f"{busy:.1f}", f"{peak / 1e6:.0f}"])
    table(rows)


if __name__ == "__main__":
    main()
