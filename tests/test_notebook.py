"""Run `check_dataset.ipynb` from top to bottom on generated databases."""

import nbformat
import pytest
from imdb_wiki_tree import write_databases
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from src.cli import ROOT

NOTEBOOK = ROOT / "check_dataset.ipynb"


def execute(data):
    """Run the notebook in the project's folder with another data folder."""
    notebook = nbformat.read(NOTEBOOK, 4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source += f"\ndata = {str(data)!r}\n"
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    return notebook


def outputs(notebook, kind):
    return [output.data[kind] for cell in notebook.cells for output in cell.get("outputs", []) if kind in output.data]


@pytest.mark.slow
def test_runs_from_top_to_bottom(tmp_path):
    write_databases(tmp_path)
    notebook = execute(tmp_path)
    text = "\n".join(outputs(notebook, "text/plain"))
    assert "entries                 429   150" in text
    assert len(outputs(notebook, "image/jpeg")) >= 15
    kinds = {output.output_type for cell in notebook.cells for output in cell.get("outputs", [])}
    assert kinds <= {"display_data", "execute_result"}  # nothing on stderr


@pytest.mark.slow
def test_missing_databases_name_the_download(tmp_path):
    with pytest.raises(CellExecutionError, match=r"run `./download.sh`"):
        execute(tmp_path)


def test_stored_outputs_are_small_and_from_a_run():
    notebook = nbformat.read(NOTEBOOK, 4)
    assert NOTEBOOK.stat().st_size < 150_000
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert "entries                 429   150" in "\n".join(outputs(notebook, "text/plain"))
    assert "/home/" not in NOTEBOOK.read_text()
