"""The data of a run does not depend on ranks, data workers, kills or restarts: every shape.

The long form of tests/integration/test_data_matrix.py; `make chaos` runs it.
"""

import pytest
from support.data_matrix import STEPS, multi30k_runs, train_disturbed

from cluster.recipe import load_recipe
from data_pipeline.preparation.prepare import prepare

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


def test_the_same_data_for_every_shape(multi30k, ray_head, tmp_path, monkeypatch):
    runs = multi30k_runs(multi30k, tmp_path, ray_head.address)
    recipe = load_recipe(runs.recipe)
    prepare(recipe.data, recipe.tokenizer, lambda progress: None)
    runs.train("reference", inline=True)
    reference = runs.digests("reference")
    assert len(reference) == STEPS
    killed = 0
    for ranks in (1, 2, 3):
        for workers in (1, 2, 4):
            name, kills = train_disturbed(
                runs, monkeypatch, ranks=ranks, workers=workers, seed=10 * ranks + workers
            )
            assert runs.digests(name) == reference, name
            killed += kills
    assert killed
