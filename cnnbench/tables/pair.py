"""Two tasks on the same test images: which is better, by how much, and how sure."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnnbench.cli.table import Column, Format, render
from cnnbench.tables.gather import Found, Run, correct, groups, whole
from cnnbench.types import CnnbenchError, Exit

COLUMNS = [
    Column("seed", "seed", right=True),
    Column("accuracy_a", "{a}, %", lambda value: f"{100 * value:.2f}", right=True),
    Column("accuracy_b", "{b}, %", lambda value: f"{100 * value:.2f}", right=True),
    Column("only_a", "only {a} right", right=True),
    Column("only_b", "only {b} right", right=True),
    Column("p", "McNemar p", "{:.3g}".format, right=True),
]


def show(found: Found, names: tuple[str, str], format: Format) -> int:
    """Print the seeds side by side with McNemar's test, and the answer over seeds and images in one sentence.

    Raises:
        CnnbenchError: A name fits no task or several (exit 2); the test images differ, no seed is common to both, or
            predictions are missing (exit 3).
    """
    a, b = (_named(found, name) for name in names)
    rows, difference = measured(a, b)
    name_a, name_b = a[0].record.task, b[0].record.task
    columns = [
        Column(column.key, column.heading.format(a=name_a, b=name_b), column.show, column.right) for column in COLUMNS
    ]
    answer = difference.sentence(name_a, name_b)
    if format == "json":
        import json
        from dataclasses import asdict

        found_out = {**asdict(difference), "shown": difference.shown, "answer": answer, "per_seed": rows}
        print(json.dumps({"a": name_a, "b": name_b, **found_out}, indent=2))
        return Exit.OK
    render("Every seed", columns, rows, format)
    if format != "csv":
        print(f"\n{answer}" if format == "markdown" else answer)
    return Exit.OK


def measured(a: list[Run], b: list[Run]) -> tuple[list[dict[str, Any]], Any]:
    """One row a seed, and the paired difference over the seeds that both have."""
    from cnnbench.analysis.statistics import mcnemar, paired_difference

    one, other = ({run.record.seed: run for run in runs if run.record.test} for runs in (a, b))
    seeds = sorted(one.keys() & other.keys())
    what = f"{a[0].record.task} and {b[0].record.task}"
    if a[0].record.data.sha256 != b[0].record.data.sha256:
        raise CnnbenchError(f"{what} were tested on other images: a paired comparison needs the same", Exit.DATA)
    if not seeds:
        raise CnnbenchError(f"{what} have no tested seed in common: {sorted(one)} and {sorted(other)}", Exit.DATA)
    right_a, right_b = (np.stack([correct(runs[seed]) for seed in seeds]) for runs in (one, other))
    rows = []
    for place, seed in enumerate(seeds):
        test = mcnemar(right_a[place], right_b[place])
        rows.append(
            {
                "seed": seed,
                "accuracy_a": float(right_a[place].mean()),
                "accuracy_b": float(right_b[place].mean()),
                "only_a": test.only_a,
                "only_b": test.only_b,
                "p": test.p,
            }
        )
    return rows, paired_difference(right_a, right_b)


def _named(found: Found, name: str) -> list[Run]:
    """The group of runs that a task's or an architecture's name means."""
    known = groups(found)
    if not known:
        raise CnnbenchError(f"--pair {name}: no runs to compare, failures alone", Exit.DATA)
    exact = [runs for runs in known if runs[0].record.task == name]
    fitting = exact or whole([runs for runs in known if runs[0].record.arch == name])
    if len(fitting) == 1:
        return fitting[0]
    tasks = sorted({runs[0].record.task for runs in fitting or known})
    if fitting:
        if len(tasks) == 1:
            raise CnnbenchError(f"--pair {name} fits {len(fitting)} rows of different recipes; give the folders of one")
        raise CnnbenchError(f"--pair {name} fits several: {', '.join(tasks)}; name a task, or give --dataset")
    from cnnbench.registry import hint

    raise CnnbenchError(f"--pair {name}: {hint(name, sorted({*tasks, *(runs[0].record.arch for runs in known)}))}")
