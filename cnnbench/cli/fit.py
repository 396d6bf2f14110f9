"""`fit`: train a network on the training images."""

from __future__ import annotations

from cnnbench.cli import lightning
from cnnbench.records.schema import RunRecord
from cnnbench.types import Exit


def main(arguments: list[str]) -> int:
    """Train, and print what was learnt.

    Args:
        arguments: The command line after the verb.
    """
    config, options = lightning.parse("fit", arguments)
    from cnnbench import api

    record = api.fit(
        config,
        runs_dir=options.runs_dir,
        overwrite=options.overwrite,
        resume=options.ckpt_path,
        test=options.test,
        skip_checks=options.skip_checks,
        logger=options.logger,
    )
    if record:
        lightning.show(_text(record, options.runs_dir), document=record, format=options.format)
        lightning.say_next("export" if record.test else "test", _folder(record, options.runs_dir), options=options)
    return Exit.OK


def _folder(record: RunRecord, runs_dir: str) -> str:
    return f"{runs_dir}/{record.task}/seed{record.seed}"


def _text(record: RunRecord, runs_dir: str) -> str:
    from cnnbench.cli.test import text as tested

    fit = record.fit
    fitted = (
        f"{record.task} seed {record.seed}: val accuracy {fit.val_accuracy:.2%} on {fit.val_images} images "
        f"(epoch {fit.best_epoch + 1} of {fit.epochs}), {fit.train_seconds:.1f} s; "
        f"{_folder(record, runs_dir)}"
    )
    return f"{fitted}\n{tested(record)}" if record.test else fitted
