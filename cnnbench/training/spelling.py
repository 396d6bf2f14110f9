"""Short spellings of a run's flags, and what a bare name stands for: `fit lenet5 --dataset mnist --epochs 3`.

Both are turned into the dotted flags of `training.config` before these are parsed, so that there is one list of flags.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnbench import datasets, tasks
from cnnbench.architectures import architecture
from cnnbench.arguments import near
from cnnbench.training.folder import RunFolder, find
from cnnbench.types import CnnbenchError, Exit

DATASET = "mnist5k"
"""The data set of an architecture that is named alone; it ships with the package."""

RUN = "expected the folder of a run, such as runs/mnist5k_lenet5/seed1"

SHORT: dict[str, str] = {
    "arch": "model.arch",
    "dataset": "data.dataset",
    "folder": "data.folder",
    "epochs": "trainer.max_epochs",
    "lr": "model.lr",
    "batch-size": "data.batch_size",
    "seed": "seed_everything",
    "weight-decay": "model.weight_decay",
    "class-weights": "model.class_weights",
    "train-images": "data.train_images",
    "size": "data.size",
    "channels": "data.channels",
    "split": "data.split",
    "fold": "data.fold",
    "flip": "data.flip",
    "pad": "data.pad",
    "download": "data.download",
    "root": "data.root",
    "name": "data.name",
    "skip-broken": "data.skip_broken",
    "precision": "trainer.precision",
    "devices": "trainer.devices",
    "accelerator": "trainer.accelerator",
    "compile": "model.compile",
    "checkpoint": "ckpt_path",
}
"""Short flag: the flag that it is written for. Underscores may stand for dashes."""

ALONE: dict[str, str] = {"download": "true", "skip-broken": "true", "compile": "true", "flip": "true"}
"""Short flags that may stand without a value, and the value that they have then."""

GUESSES: dict[str, str] = {
    "learning-rate": "lr",
    "model": "arch",
    "architecture": "arch",
    "network": "arch",
    "net": "arch",
    "data": "dataset",
    "data-dir": "folder",
    "data-path": "folder",
    "images": "folder",
    "epoch": "epochs",
    "n-epochs": "epochs",
    "num-epochs": "epochs",
    "max-epochs": "epochs",
    "batch": "batch-size",
    "bs": "batch-size",
    "wd": "weight-decay",
    "random-seed": "seed",
    "gpus": "devices",
    "device": "accelerator",
    "resume": "checkpoint last",
    "ckpt": "checkpoint",
    "weights": "checkpoint",
    "amp": "precision",
    "task": "config",
    "output": "runs-dir",
    "out": "runs-dir",
    "force": "overwrite",
    "print-config": "print_config",
}
"""What other tools call a flag: the one that is suggested."""


@dataclass(frozen=True)
class Expanded:
    """A command line in dotted flags."""

    flags: list[str]
    said: str = ""
    """What a bare name was taken for, where that is not plain from the name."""


def expand(arguments: Sequence[str], flags: Mapping[str, bool], *, verb: str) -> Expanded:
    """The command line with every short flag and every bare name written out.

    Args:
        arguments: What follows the verb.
        flags: Every long flag without its dashes, and whether it is a switch, which takes no value.
        verb: The verb that errors name.

    Raises:
        CnnbenchError: Several names, or one of nothing (exit 2); a run that is not there (exit 3).
    """
    written, names = _long(arguments, flags, verb)
    if len(names) > 1:
        raise CnnbenchError(f"{verb}: {_several(names, verb)}")
    if not names:
        return Expanded(written)
    given = {flag.partition("=")[0].removeprefix("--"): place for place, flag in enumerate(written)}
    if is_run(names[0]):
        known = {*flags, "config"}  # from Python, neither the folder of the runs nor a checkpoint
        of_run = flags_of_run(names[0], given, verb=verb)
        return Expanded([*(flag for flag in of_run if flag[2:].partition("=")[0] in known), *written])
    return _named(names[0], written, given)


def _long(arguments: Sequence[str], flags: Mapping[str, bool], verb: str) -> tuple[list[str], list[str]]:
    """The flags in their long form, each with its value, and the words that stand alone.

    Raises:
        CnnbenchError: A flag is unknown (exit 2).
    """
    written, names, waiting = list[str](), list[str](), list(arguments)
    accepted = {**flags, "config": False, "print_config": True, "help": True, "help-all": True}
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--"):
            (written if word.startswith("-") else names).append(word)
            continue
        typed, equals, value = word.removeprefix("--").partition("=")
        short = typed.replace("_", "-")
        name = typed if typed in accepted else SHORT.get(short, typed)
        if name not in accepted:
            raise CnnbenchError(f"{verb}: unknown option --{typed}: {suggestion(typed, list(accepted), verb=verb)}")
        if name != typed and short in ALONE and not equals and not _is_truth(waiting[:1]):
            equals, value = "=", ALONE[short]
        if equals or (waiting and not accepted[name]):
            written.append(f"--{name}={value if equals else waiting.pop(0)}")
        elif not accepted[name]:
            raise CnnbenchError(f"{verb}: --{typed} needs a value (see `cnnbench {verb} --help`)")
        else:
            written.append(f"--{name}")
    return written, names


def _is_truth(following: Sequence[str]) -> bool:
    return bool(following) and following[0].lower() in ("true", "false", "null")


def is_architecture(name: str) -> bool:
    """Whether a name is of a registered architecture, or of one of another library."""
    return name in architecture.entries or (name.startswith(("torchvision/", "timm/")) and not Path(name).exists())


def _several(names: Sequence[str], verb: str) -> str:
    """What to say where one name is expected."""
    known = [name for name in names if name in architecture.entries]
    data = [name for name in names if name in datasets.dataset.entries]
    if len(names) == 2 and len(known) == len(data) == 1:
        return f"one name is expected: `cnnbench {verb} {known[0]} --dataset {data[0]}`"
    if verb == "fit":
        return f"one name is expected, here are {', '.join(names)}: `cnnbench sweep {' '.join(names)}` trains several"
    return f"one name is expected, here are {', '.join(names)}: call it once for each"


def _named(name: str, written: list[str], given: Mapping[str, int]) -> Expanded:
    """The flags that a name adds before those that are given, which override it."""
    if not is_architecture(name):
        return Expanded([*task_flags(name), *written])
    if "data.folder" in given or "config" in given:
        return Expanded([f"--model.arch={name}", *written])
    place = given.get("data.dataset")
    data = DATASET if place is None else written[place].partition("=")[2]
    task = f"{data}_{name}"
    if data not in datasets.dataset.entries:  # which parsing refuses with the nearest names
        return Expanded([f"--model.arch={name}", *written])
    told = f"{name} stands for {task.replace('/', '-')}: {name} on the data set {data}"
    told += "" if place is not None else " (other images: --dataset NAME or --folder PATH)"
    if task in tasks.names():
        return Expanded([*task_flags(task), *written], f"{told}, with the settings of this task")
    return Expanded([*_pair_flags(data, name), *written], f"{told}, with the default settings")


def task_flags(name: str) -> list[str]:
    """The flags for a task's name or file, for `<dataset>_<architecture>`, which needs no file, or an architecture.

    Raises:
        CnnbenchError: There is no such task (exit 2).
    """
    entries = datasets.dataset.entries
    if name in tasks.names() or Path(name).is_file():
        return [f"--config={tasks.find(name).resolve()}"]
    if is_architecture(name):
        shipped = f"{DATASET}_{name}"
        return task_flags(shipped) if shipped in tasks.names() else _pair_flags(DATASET, name)
    pairs = [(data, name.removeprefix(f"{data}_")) for data in entries if name.startswith(f"{data}_")]
    if pairs:
        known = [pair for pair in pairs if pair[1] in architecture.entries]
        data, arch = max(known or pairs, key=lambda pair: len(pair[0]))  # mnist_rot before mnist
        return _pair_flags(data, arch)
    if name in entries:
        raise CnnbenchError(f"{name} is a data set: name an architecture with it, such as lenet5 --dataset {name}")
    raise CnnbenchError(_no_task(name))


def _pair_flags(data: str, arch: str) -> list[str]:
    return [f"--data.dataset={data}", f"--model.arch={arch}"]


def _no_task(name: str) -> str:
    """What to say of a name that is neither a task nor an architecture."""
    if "/" in name and not Path(name).exists():
        return f"nothing at {name}: {RUN}; other libraries' networks are torchvision/<name> and timm/<name>"
    if (Path(name) / "manifest.json").is_file():
        return f"{name} is a bundle: {RUN}, or `cnnbench verify {name}`"
    if Path(name).is_dir():
        return (
            f"{name} is a folder, and no run: for your own images name an architecture, such as lenet5 --folder {name}"
        )
    if name.endswith((".yaml", ".yml")):
        return f"no file {name}: expected a YAML file, the name of a task or an architecture"
    known = [*architecture.entries, *tasks.names()]
    closest = near(name, known)
    accepted = f"did you mean {' or '.join(closest)}?" if closest else "`cnnbench list` names the architectures"
    return f"no task, architecture or run {name!r}: {accepted}"


def is_run(name: str) -> bool:
    """Whether a name is a run: its folder, a folder of seeds, or one of its checkpoints."""
    path = Path(name)
    if path.is_file():
        return path.suffix == ".ckpt"
    return path.is_dir() and any(path.glob("best.ckpt")) | any(path.glob("last.ckpt")) | any(path.glob("seed*/*.ckpt"))


def flags_of_run(name: str, given: Mapping[str, int], *, verb: str) -> list[str]:
    """The flags of a run that is named by its folder: its configuration, its place, and which checkpoint is read.

    Raises:
        CnnbenchError: There is none (exit 3).
    """
    folder = Path(name) if any(Path(name).glob("*.ckpt")) else find(name).parent
    run, named = RunFolder(folder), Path(name).is_file()
    if not run.config.is_file():
        raise CnnbenchError(f"{folder} has no config.yaml: expected a folder that `fit` wrote", Exit.DATA)
    above = folder.resolve().parent.parent
    runs_dir = above if folder.is_absolute() else os.path.relpath(above)
    flags = [f"--config={run.config}", f"--runs-dir={runs_dir}"]
    if verb == "fit":
        unfinished = not run.result.is_file() and run.last.is_file()
        return [*flags, "--ckpt_path=last"] if unfinished and "ckpt_path" not in given else flags
    if "ckpt_path" not in given:
        return [*flags, f"--ckpt_path={name if named else run.best}"]
    return flags


def run_path(name: str | None, *, arch: str | None, dataset: str | None, seed: int | None, runs_dir: str) -> str:
    """The folder of a run that is named by its path, its task, or its architecture and data set.

    Args:
        name: A path, a task or an architecture.
        arch: An architecture, instead of a name.
        dataset: With an architecture; by default mnist5k.
        seed: By default the folder of all seeds.
        runs_dir: Folder of the runs.

    Raises:
        CnnbenchError: Neither or both of name and architecture are given, or the name is unknown (exit 2); the run is
            not there (exit 3).
    """
    if (name is None) == (arch is None):
        raise CnnbenchError("name one run: its folder, such as runs/mnist5k_lenet5/seed1, or its task or architecture")
    word = name if name is not None else str(arch)
    if Path(word).exists():
        return word
    if "/" in word and not is_architecture(word):
        raise CnnbenchError(f"no run at {word}: {RUN}", Exit.DATA)
    if arch is not None or is_architecture(word):
        architecture[word]  # an unknown one is refused with the nearest
        word = f"{dataset or DATASET}_{word}".replace("/", "-")
    folder = Path(runs_dir) / word
    if not folder.is_dir():
        if name is not None:
            task_flags(name)  # which refuses an unknown name
        raise CnnbenchError(f"no run at {folder}: `cnnbench fit {word}` trains it", Exit.DATA)
    return str(folder if seed is None else folder / f"seed{seed}")


def suggestion(name: str, accepted: Sequence[str], *, verb: str) -> str:
    """What to say of an unknown flag: the flag that is meant, the nearest one, or where all are listed.

    Args:
        name: The flag without its dashes.
        accepted: The flags that there are, without dashes.
        verb: The verb.
    """
    last = name.rpartition(".")[2].replace("_", "-")
    guess = GUESSES.get(last, last)
    flag = guess.partition(" ")[0]
    if flag in accepted:
        return f"did you mean --{guess}?"
    if SHORT.get(flag) in accepted:
        return f"did you mean --{guess}?" + f" (in full --{SHORT[flag]})" * ("." in name)
    closest = near(name, accepted) or near(last, accepted)
    return (
        f"did you mean --{closest[0]}?"
        if closest
        else f"`{' '.join(['cnnbench', *filter(None, [verb])])} --help-all` lists all options"
    )
