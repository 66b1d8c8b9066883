"""The notebook `first-steps.ipynb`: its stored outputs, and a run of all cells."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import transloom

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "first-steps.ipynb"
KERNEL = "first-steps-test"
# Fewer steps than a reader trains: translations are bad, but all assertions must hold.
STEPS = 60


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_the_stored_notebook_is_valid_and_small(stored):
    nbformat.validate(stored)
    assert NOTEBOOK.stat().st_size < 200_000


def test_the_stored_outputs_come_from_one_run_of_all_cells(stored):
    cells = code_cells(stored)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [cell.id for cell in cells if not cell.outputs] == []
    assert "error" not in {output.output_type for output in outputs(stored)}


def test_no_stored_output_contains_an_absolute_path(stored):
    folder = re.compile(r"(?<![\w.<])/(?:tmp|home|root|work|usr|opt|Users|content)\b")
    found = [folder.findall(json.dumps(output)) for output in outputs(stored)]
    assert not any(found), found


def test_the_notebook_does_not_install_transloom_from_a_package_index(stored):
    assert not re.search(r"pip install[^\n]* transloom\b(?!-)", NOTEBOOK.read_text())


def test_the_pages_that_the_notebook_links_to_exist(stored):
    text = "".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert len(links) > 5
    assert [link for link in links if not (NOTEBOOK.parent / link).is_file()] == []


@pytest.mark.parametrize("cell_id", ["kill-run", "resume-run"])
def test_a_cell_shows_the_error_of_a_failed_command(stored, tmp_path, monkeypatch, cell_id):
    command = tmp_path / "transloom"
    command.write_text("#!/bin/sh\necho 'error: no space left' >&2\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (cell,) = (cell for cell in stored.cells if cell.id == cell_id)
    names = {"Path": Path, "transloom": transloom, "STEPS": 60}
    names |= {"subprocess": subprocess, "command": [command]}
    with pytest.raises(AssertionError, match="no space left"):
        exec(cell.source, names)  # noqa: S102


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Define a kernel that uses this test's Python, and return the kernel's name."""
    folder = tmp_path / "jupyter" / "kernels" / KERNEL
    folder.mkdir(parents=True)
    specification = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": KERNEL,
        "language": "python",
    }
    (folder / "kernel.json").write_text(json.dumps(specification))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return KERNEL


@pytest.mark.long
def test_all_cells_of_the_notebook_run(tmp_path, monkeypatch, kernel):
    monkeypatch.setenv("FIRST_STEPS", str(STEPS))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)  # token of the tests' Ray head
    notebook = nbformat.read(shutil.copy(NOTEBOOK, tmp_path), as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}  # the folder in which the kernel starts
    NotebookClient(notebook, timeout=None, kernel_name=kernel, resources=resources).execute()
    printed = {
        cell.id: "".join(o.get("text", "") for o in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    assert f"{STEPS} training steps" in printed["setup"]
    assert f"The {STEPS} losses of both runs are equal" in printed["resume-run"]
