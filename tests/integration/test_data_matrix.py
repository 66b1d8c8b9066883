"""The data of a run does not depend on ranks, data workers, kills or restarts: the short form."""

from support.data_matrix import STEPS, multi30k_runs, train_disturbed

from cluster.recipe import load_recipe
from data_pipeline.preparation.prepare import prepare


def test_the_same_data_for_two_ranks_two_workers_kills_and_restarts(
    multi30k, ray_head, tmp_path, monkeypatch
):
    runs = multi30k_runs(multi30k, tmp_path, ray_head.address)
    recipe = load_recipe(runs.recipe)
    prepare(recipe.data, recipe.tokenizer, lambda progress: None)
    runs.train("reference", inline=True)
    name, _ = train_disturbed(runs, monkeypatch, ranks=2, workers=2, seed=1)
    assert len(runs.digests(name)) == STEPS
    assert runs.digests(name) == runs.digests("reference")
