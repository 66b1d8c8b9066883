"""The commands of docs/how-to/clusters.md that need no cluster, on a smaller recipe; its recipes' parts.

Those for hosts over ssh are in tests/lab.
"""

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from support.pages import block, blocks
from support.recipes import tiny_values
from typer.testing import CliRunner

from cluster.recipe import Recipe
from transloom.cli.app import app

pytestmark = pytest.mark.long

PAGE = "how-to/clusters.md"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """With a recipe that is found before the one that comes with transloom."""
    monkeypatch.chdir(tmp_path)
    values = tiny_values(Path("datasets/phrasebook")) | {"name": "phrasebook"}
    Path("phrasebook").write_text(yaml.safe_dump(values))


def commands(kind, *replaced):
    text = block(PAGE, kind)
    for old, new in replaced:
        text = text.replace(old, new)
    return [shlex.split(line) for line in text.splitlines()]


def test_on_a_laptop(transloom):
    *found, (echo, sentence, pipe, *translate) = commands("bash laptop")
    assert [command[:2] for command in found] == [
        ["transloom", "prepare"],
        ["transloom", "train"],
        ["transloom", "train"],
    ]
    for _, *command in found:
        without_ray = ["--inline"] if command[0] == "train" else []
        result = transloom(*command, *without_ray)
        assert result.exit_code == 0, (command, result.output)
    assert "Finished at step 30" in result.output
    detail = "attention is computed by"
    assert detail in Path("runs/phrasebook/log.txt").read_text()
    assert detail not in result.output
    assert (echo, pipe, translate[0]) == ("echo", "|", "transloom")
    translated = CliRunner().invoke(app, translate[1:], input=f"{sentence}\n")
    assert translated.exit_code == 0, translated.output


def test_for_slurm(transloom, tmp_path):
    one, array = commands("bash slurm", ("/shared", str(tmp_path)))
    for _, *command in (one, array):
        assert transloom(*command).exit_code == 0
    for script in ("job.sbatch", "seeds.sbatch"):
        subprocess.run(["bash", "-n", script], check=True)
    assert "#SBATCH --time=60\n" in Path("job.sbatch").read_text()
    assert "#SBATCH --array=0-2%2\n" in Path("seeds.sbatch").read_text()


def test_for_kubernetes(transloom):
    ((_, *command),) = commands("bash kuberay")
    assert transloom(*command).exit_code == 0
    kinds = [document["kind"] for document in yaml.safe_load_all(Path("job.yaml").read_text())]
    assert kinds == ["ConfigMap", "RayJob"]


def test_its_parts_of_recipes_can_be_loaded(tmp_path):
    parts = blocks(PAGE, "yaml")
    assert len(parts) == 2
    for part in parts:
        values = tiny_values(tmp_path)
        values["batching"]["micro_batches_per_step"] = 8
        values["cluster"] |= yaml.safe_load(part)["cluster"]
        assert Recipe.of(values).cluster.max_ranks == 8
