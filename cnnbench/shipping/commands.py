"""commands.sh: the shipped network again, by ordinary verbs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from cnnbench import records
from cnnbench.records.schema import RunConfig, RunRecord
from cnnbench.training.config import flags_of

HEAD = """\
#!/bin/sh
# {what}, again and by ordinary verbs, in the folder "again" or the one that is named: sh commands.sh FOLDER
set -e
OUT=${{1:-again}}
"""


def write(
    path: Path, runs: Sequence[RunRecord], *, chosen: RunConfig | None, task: str, precision: str, command: str
) -> None:
    """Write the script.

    Args:
        path: Path of the script.
        runs: Runs of the race, in the order in which they ended.
        chosen: The shipped one.
        task: Its name.
        precision: Precision of the shipped file.
        command: That the script stands for.
    """
    lines = [HEAD.format(what=command.replace("\n", " ")), "# the race: no image of the test split is read"]
    lines += [f"{_threads(run)}{_verb('fit', run.config)}" for run in runs]
    if chosen is not None:
        run = f'"$OUT"/runs/{shlex.quote(task)}/seed{chosen.seed_everything}'
        bundle = f'"$OUT"/exports/{shlex.quote(task)}'
        precisions = f" --precision fp32,{precision}" if precision != "fp32" else ""
        images = f" --folder {shlex.quote(chosen.data.folder)}" if chosen.data.folder else ""
        measured = f" --precision {precision}"
        lines += [
            "# the chosen network: test images are read here",
            _verb("test", chosen),
            f'cnnbench export {run} --out "$OUT"/exports{precisions}',
            f"cnnbench verify {bundle} --rescore{images}",
            f'cnnbench bench {bundle} --backend onnxruntime --batch 1 --seconds 2{measured} --out "$OUT"/latency.json',
            'cnnbench report "$OUT" --out "$OUT"/report.html',
        ]
    with records.replacing(path) as partial:
        partial.write_text("\n".join(lines) + "\n")


def _threads(run: RunRecord) -> str:
    """As many threads as the run had: with others its weights would be others."""
    return f"OMP_NUM_THREADS={run.environment.threads} " if run.environment.threads else ""


def _verb(verb: str, config: RunConfig) -> str:
    return f'cnnbench {verb} {shlex.join(flags_of(config))} --runs-dir "$OUT"/runs'
