"""The notebook `first-steps.ipynb`: its stored outputs, and its cells from top to bottom."""

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
# Fewer steps than a reader trains. The translations are bad then; all assertions must hold.
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


def test_every_cell_was_run_from_top_to_bottom(stored):
    cells = code_cells(stored)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [cell.id for cell in cells if not cell.outputs] == []
    assert "error" not in {output.output_type for output in outputs(stored)}


def test_no_output_names_a_folder_of_a_machine(stored):
    folder = re.compile(r"(?<![\w.<])/(?:tmp|home|root|work|usr|opt|Users|content)\b")
    found = [folder.findall(json.dumps(output)) for output in outputs(stored)]
    assert not any(found), found


def test_nothing_is_installed_from_a_package_index(stored):
    assert not re.search(r"pip install[^\n]* transloom\b(?!-)", NOTEBOOK.read_text())


def test_the_pages_to_which_it_links_exist(stored):
    text = "".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert len(links) > 5
    assert [link for link in links if not (NOTEBOOK.parent / link).is_file()] == []


@pytest.mark.parametrize("cell_id", ["kill-run", "resume-run"])
def test_a_command_that_fails_shows_its_errors(stored, tmp_path, monkeypatch, cell_id):
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
    """Define a kernel of this test's Python, in addition to the user's kernels."""
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
def test_the_notebook_runs(tmp_path, monkeypatch, kernel):
    monkeypatch.setenv("FIRST_STEPS", str(STEPS))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)  # of the tests' own Ray
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
