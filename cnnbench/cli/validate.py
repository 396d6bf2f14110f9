"""`validate`: score a checkpoint on the validation images."""

from __future__ import annotations

from pathlib import Path

from cnnbench.cli import lightning
from cnnbench.types import Exit


def main(arguments: list[str]) -> int:
    """Score a checkpoint, and print the result.

    Args:
        arguments: The command line after the verb.
    """
    config, options = lightning.parse("validate", arguments)
    from cnnbench.training import run

    result = run.validate(config, runs_dir=options.runs_dir, checkpoint=options.ckpt_path)
    accuracy = f"val accuracy {result.accuracy:.2%}, loss {result.loss:.4f}, {result.images} images"
    lightning.show(f"{result.checkpoint}: {accuracy}", document=result, format=options.format)
    lightning.say_next("test", Path(result.checkpoint).parent, options=options)
    return Exit.OK
