"""`predict`: write the predictions for every test image."""

from __future__ import annotations

from cnnbench.cli import lightning
from cnnbench.types import Exit


def main(arguments: list[str]) -> int:
    """Write the predictions of a checkpoint, and print where.

    Args:
        arguments: The command line after the verb.
    """
    config, options = lightning.parse("predict", arguments)
    from pyarrow.parquet import read_metadata

    from cnnbench.training import run

    path = run.predict(config, runs_dir=options.runs_dir, checkpoint=options.ckpt_path)
    images = read_metadata(path).num_rows
    text = f"{path}: predictions of {images} test images"
    lightning.show(text, document={"predictions": str(path), "images": images}, format=options.format)
    lightning.say_next("compare", path.parent, "--view", "mistakes", options=options)
    return Exit.OK
