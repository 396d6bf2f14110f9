"""When two runs have the same outcome: the hash by which a sweep recognises a finished run.

It covers the fields of `Identity`: the configuration, the images, the seed, versions, and the sources that training
reads (`training.sources`).
"""

from __future__ import annotations

import hashlib
from importlib import metadata

import msgspec

from cnnbench import records
from cnnbench.architectures import architecture
from cnnbench.datasets import dataset
from cnnbench.records.schema import DataConfig, DataRecord, ModelConfig, RunConfig, TrainerOption
from cnnbench.training.config import DECIDED_TRAINER_OPTIONS, TRAINER, TRAINER_FLAGS, run_flags
from cnnbench.training.sources import sources, version_of
from cnnbench.types import Augment, Dataset

WITHOUT_EFFECT = frozenset(
    {
        "accelerator",
        "benchmark",
        "detect_anomaly",
        "deterministic",
        "enable_model_summary",
        "enable_progress_bar",
        "fast_dev_run",
        "limit_predict_batches",
        "limit_test_batches",
        "log_every_n_steps",
        "num_sanity_val_steps",
        "profiler",
    }
    | DECIDED_TRAINER_OPTIONS
)
"""Trainer options that change how fast a run is, how it rounds, or what is printed; all others count."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run's outcome depends on, the machine's rounding apart."""

    model: ModelConfig
    """With the rule of the class weights; what they come to follows from the labels."""
    data: DataConfig
    """Without the options that say where images lie: their hash says which they are."""
    trainer: dict[str, TrainerOption]
    seed: int
    images_sha256: str
    """SHA-256 of the decoded images and labels; of image files, of the files."""
    augment: Augment
    background: int | None = None
    """The gray level under transparent pixels of image files; None where no file has as many channels."""
    shift: int | None = None
    """By which values of 16 bits were shifted; None as above."""
    versions: dict[str, str]
    """Versions of torch, of Pillow where it decodes, and of the distribution of an architecture or dataset that is not
    ours."""
    sources: dict[str, str]
    """SHA-256 by module."""


def identity(config: RunConfig, data: Dataset | DataRecord) -> str:
    """SHA-256, in hexadecimal, of the run's `Identity`.

    Args:
        config: The resolved configuration of `fit`.
        data: The images, or the record of them.
    """
    content = describe(config, data)
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def describe(config: RunConfig, data: Dataset | DataRecord) -> Identity:
    """What the outcome of a run depends on; see `identity`."""
    arch, name, files = config.model.arch, config.data.dataset, data.preprocessing
    return Identity(
        model=config.model,
        data=records.replace(_data_options(config), flip=None, pad=None),  # `augment` says what they come to
        trainer=_trainer_options(config),
        seed=config.seed_everything,
        images_sha256=data.sha256,
        augment=data.augment,
        background=files.background if files else None,
        shift=files.shift if files else None,
        versions={
            "torch": metadata.version("torch"),
            **version_of(architecture, arch),
            **version_of(dataset, name),
            **({"pillow": metadata.version("pillow")} if files else {}),  # its hash is of encoded files
        },
        sources=sources(arch, name),
    )


def first_difference(before: RunConfig, now: RunConfig) -> tuple[str, object, object] | None:
    """The first option on which the outcome depends and that two configurations set differently.

    Returns:
        Its name, such as model.lr, and its two values; None where there is none.
    """
    values, others = _options(before), _options(now)
    return next(
        (
            (name, values.get(name), others.get(name))
            for name in others | values
            if values.get(name) != others.get(name)
        ),
        None,
    )


def _options(config: RunConfig) -> dict[str, object]:
    """Every option on which the outcome depends, by its dotted name."""
    parts = {"model": config.model, "data": _data_options(config), "trainer": _trainer_options(config)}
    options = {
        f"{part}.{key}": value for part, values in parts.items() for key, value in msgspec.to_builtins(values).items()
    }
    return {**options, "seed_everything": config.seed_everything}


def _data_options(config: RunConfig) -> DataConfig:
    """Without those that say where the images lie, and which of them are left out: their hash says which are not."""
    return records.replace(config.data, root=None, folder=None, download=False, skip_broken=False)


def _trainer_options(config: RunConfig) -> dict[str, TrainerOption]:
    """Those that count and are set: a version of Lightning with one more option leaves the hash as it is."""
    ours = {flag.name.removeprefix("trainer."): flag.default for flag in TRAINER_FLAGS}
    usual = {flag.name.removeprefix("trainer."): flag.default for flag in run_flags() if flag.group == TRAINER}
    options = {**ours, **config.trainer}
    return {
        key: value
        for key, value in sorted(options.items())
        if key not in WITHOUT_EFFECT and (key in ours or value != usual.get(key))
    }
