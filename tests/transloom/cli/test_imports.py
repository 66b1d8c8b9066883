"""Commands and processes start without importing slow packages that they do not need."""

import pytest
from support.command import run_python

SLOW = ("torch", "deepspeed", "wandb", "sacrebleu", "obstore", "aiohttp", "ray.job_submission")
DRIVER = ("transloom.cli.app", "transloom.cli.train_run", "cluster.supervision.supervisor")


@pytest.mark.long
def test_the_driver_imports_no_packages_that_only_ranks_need():
    program = f"""
import importlib, sys
for module in {DRIVER}:
    importlib.import_module(module)
    print(module, [name for name in {SLOW} if name in sys.modules])
"""
    done = run_python(program)
    assert done.stdout == "".join(f"{module} []\n" for module in DRIVER), done.stderr


def test_reading_a_local_dataset_does_not_import_obstore(phrasebook):
    program = f"""
import sys
from data_pipeline.storage.store import open_store
open_store({str(phrasebook)!r}).read_manifest()
print('obstore' in sys.modules)
"""
    done = run_python(program)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize(
    ("process", "of_others"),
    [
        ("cluster.ranks.node_agent", ("trainer.recipe", "fsspec", "sentencepiece", "aiohttp")),
        ("cluster.data.workers", ("trainer.recipe", "trainer.config", "aiohttp")),
    ],
)
def test_node_agents_and_data_workers_import_no_packages_of_ranks(process, of_others):
    program = f"import sys, {process}\nprint([name for name in {of_others} if name in sys.modules])"
    done = run_python(program)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.long
def test_the_modules_of_a_rank_do_not_import_wandb():
    program = "import sys, trainer.assembly.run\nprint('wandb' in sys.modules)"
    done = run_python(program)
    assert done.stdout.endswith("False\n"), done.stderr
