"""A run with a moving average is validated with the weights that translate."""

import pytest
from support.recipes import SHORT_TRANSLATIONS, tiny_values, write_yaml
from support.runs import Runs
from support.tasks import opened_task

from cluster.recipe import Recipe
from data_pipeline.batching.heldout import load_heldout
from run_store.checkpoints.fragment import MASTER
from run_store.checkpoints.reader import CheckpointReader
from trainer.process.placement import Placement
from trainer.training.validation import Validator
from transloom.inference.translator import Translator


@pytest.mark.parametrize("stage", [0, 3])
def test_validation_scores_the_moving_average(tmp_path, phrasebook, stage):
    values = tiny_values(phrasebook, max_steps=4, ema_decay=0.9)
    values["decoding"] = SHORT_TRANSLATIONS
    recipe_file = write_yaml(tmp_path / "tiny.yaml", values | {"engine": {"zero_stage": stage}})
    runs = Runs(recipe_file, tmp_path, address="")
    result = runs.train("run", inline=True)
    (line,) = runs.lines("run", "validation")
    loss = line["scores"]["loss"]["value"]

    recipe = Recipe.of(values).training()
    task, (store, manifest) = opened_task(recipe)
    validator = Validator(task.scoring(load_heldout(store, manifest, "validation")), Placement())
    translator = Translator.load(result.run)
    found = validator.run(translator.model).scores["loss"].value
    assert loss == pytest.approx(found, rel=1e-6)

    reader = CheckpointReader(translator.checkpoint)
    for name, parameter in translator.model.named_parameters():
        weight = reader.read(MASTER, name, 0, parameter.numel())
        parameter.data.copy_(weight.view_as(parameter))
    without_average = validator.run(translator.model).scores["loss"].value
    assert loss != pytest.approx(without_average, rel=1e-4)
