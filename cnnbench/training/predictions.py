"""predictions.parquet: what the best checkpoint answers for every test image, and whether it is what was scored."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from cnnbench import records
from cnnbench.records.schema import RunRecord
from cnnbench.training.folder import RunFolder
from cnnbench.types import CnnbenchError, Exit


def write_predictions(path: Path, rows: Tensor, *, names: np.ndarray | None = None) -> None:
    """Parquet with one row per image: index, label, prediction (int32), probabilities and logits (lists of float32).

    Where images are files, the column file has their names.

    Args:
        path: The file to write.
        rows: `(N, 3 + num_classes)`: index, label, prediction, logits.
        names: Names of all files of the split, at their index.
    """
    columns = {name: pa.array(rows[:, i].int().numpy()) for i, name in enumerate(("index", "label", "prediction"))}
    if names is not None:
        columns["file"] = pa.array(names[rows[:, 0].int().numpy()].tolist(), pa.string())
    for name, values in (("probabilities", rows[:, 3:].softmax(dim=1)), ("logits", rows[:, 3:])):
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.flatten().numpy()), values.shape[1])
    with records.replacing(path) as partial:
        pq.write_table(pa.table(columns), partial)


def tested_logits(checkpoint: Path, record: RunRecord) -> np.ndarray | None:
    """The logits `(N, num_classes)` float32 that `test` computed with `checkpoint`, in float32 on the CPU.

    None where it did not: another checkpoint, precision or device, or the file is gone.

    Raises:
        CnnbenchError: They are not the ones that were scored (exit 3).
    """
    run = RunFolder(checkpoint.parent)
    if record.test is None or not record.test.logits_sha256 or checkpoint.name != run.best.name:
        return None
    if not run.predictions.is_file():
        return None
    again = "run `cnnbench test` again"
    try:
        column = pq.read_table(run.predictions, columns=["logits"])["logits"].combine_chunks()
        logits: np.ndarray = column.flatten().to_numpy().reshape(record.test.images, -1)
    except (OSError, ValueError, KeyError, AttributeError) as error:  # pyarrow's errors derive from these
        reason = str(error).strip().split("\n")[0]
        raise CnnbenchError(f"{run.predictions} cannot be read: {reason}; {again}", Exit.DATA) from None
    if logits_sha256(logits) != record.test.logits_sha256:
        raise CnnbenchError(f"{run.predictions} does not hold the logits that were scored; {again}", Exit.DATA)
    return logits


def logits_sha256(logits: np.ndarray) -> str:
    """SHA-256 of the values, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(logits, dtype="<f4").tobytes()).hexdigest()
