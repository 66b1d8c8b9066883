"""The data of a run does not depend on ranks, data workers, kills or restarts.

The long form of a test in tests/integration/test_faults.py; `make chaos` runs it.
"""

import pytest
from support.data_matrix import STEPS, multi30k_runs, train_disturbed

from cluster.recipe import load_recipe
from data_pipeline.preparation.prepare import prepare

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


def test_runs_of_all_shapes_get_the_same_data(multi30k, ray_head, orders, tmp_path, monkeypatch):
    runs = multi30k_runs(multi30k, tmp_path, ray_head.address)
    recipe = load_recipe(runs.recipe)
    prepare(recipe.data_settings, lambda progress: None)
    runs.train("reference", inline=True)
    reference = runs.digests("reference")
    assert len(reference) == STEPS
    for ranks in (1, 2, 3):
        for workers in (1, 2, 4):
            seed = 10 * ranks + workers
            name = train_disturbed(
                runs, orders, monkeypatch, ranks=ranks, workers=workers, seed=seed
            )
            assert runs.digests(name) == reference, name
