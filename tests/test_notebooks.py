"""The notebooks run as they are, in a folder of their own."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    """What each cell of code printed or returned."""
    shown = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            outputs = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
            shown.append("".join(outputs))
    return shown


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default")  # of Jupyter's own libraries
def test_a_notebook_runs_and_shows_what_is_committed(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, 4)
    committed = texts(notebook)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    assert all(committed), "it is committed with its outputs"
    for before, now in zip(committed, texts(notebook), strict=True):
        assert bool(before) == bool(now)
    assert committed[1:3] == texts(notebook)[1:3]  # layers and costs: whatever the machine
    assert (tmp_path / "exports/mnist5k_two_convolutions/model.onnx").is_file()
