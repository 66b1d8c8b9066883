"""Run the commands of resume.md, slurm.md and kubernetes.md in docs/how-to with a small recipe.

tests/lab runs the commands for hosts that are reached over ssh.
"""

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from support.pages import block, run_inline
from support.recipes import tiny_values
from typer.testing import CliRunner

from cluster.recipe import Recipe
from transloom.cli.app import app

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Work in a folder with a recipe that takes precedence over the built-in phrasebook recipe."""
    monkeypatch.chdir(tmp_path)
    values = tiny_values(Path("datasets/phrasebook")) | {"name": "phrasebook"}
    Path("phrasebook").write_text(yaml.safe_dump(values))


def commands(page, kind, *replaced):
    text = block(f"how-to/{page}", kind)
    for old, new in replaced:
        text = text.replace(old, new)
    return [shlex.split(line) for line in text.splitlines()]


def test_the_laptop_commands_of_the_resume_page_train_and_translate(transloom):
    *found, (echo, sentence, pipe, *translate) = commands("resume.md", "bash laptop")
    assert [command[:2] for command in found] == [
        ["transloom", "prepare"],
        ["transloom", "train"],
        ["transloom", "train"],
    ]
    for _, *command in found:
        result = run_inline(transloom, command)
    assert "Finished at step 30" in result.output
    detail = "attention is computed by"
    assert detail in Path("runs/phrasebook/log.txt").read_text()
    assert detail not in result.output
    assert (echo, pipe, translate[0]) == ("echo", "|", "transloom")
    translated = CliRunner().invoke(app, translate[1:], input=f"{sentence}\n")
    assert translated.exit_code == 0, translated.output


def test_the_commands_of_the_slurm_page_write_valid_batch_scripts(transloom, tmp_path):
    one, array = commands("slurm.md", "bash slurm", ("/shared", str(tmp_path)))
    for _, *command in (one, array):
        assert transloom(*command).exit_code == 0
    for script in ("job.sbatch", "seeds.sbatch"):
        subprocess.run(["bash", "-n", script], check=True)
    assert "#SBATCH --time=60\n" in Path("job.sbatch").read_text()
    assert "#SBATCH --array=0-2%2\n" in Path("seeds.sbatch").read_text()


def test_the_commands_of_the_kubernetes_page_write_a_rayjob(transloom):
    ((_, *command),) = commands("kubernetes.md", "bash kubernetes")
    assert transloom(*command).exit_code == 0
    kinds = [document["kind"] for document in yaml.safe_load_all(Path("job.yaml").read_text())]
    assert kinds == ["ConfigMap", "RayJob"]


@pytest.mark.parametrize("page", ["slurm.md", "kubernetes.md"])
def test_the_recipe_excerpt_of_a_cluster_page_can_be_loaded(page, tmp_path):
    values = tiny_values(tmp_path)
    values["batching"]["micro_batches_per_step"] = 8
    values["cluster"] |= yaml.safe_load(block(f"how-to/{page}", "yaml"))["cluster"]
    assert Recipe.of(values).cluster.max_ranks == 8
