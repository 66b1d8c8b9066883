"""A short training on real text reaches what a network with a broken part cannot."""

from support.runs import Runs

from cluster.recipe import RECIPES, load_recipe
from data_pipeline.preparation.prepare import prepare

RECIPE = RECIPES / "multi30k-enfr.yaml"
# A shallow network that drops little finds out soon which words go together.
QUICK = [
    "tokenizer.vocabulary_size=4000",
    "model.encoder_layers=2",
    "model.decoder_layers=2",
    "model.dropout=0.1",
    "batching.max_tokens_per_micro_batch=2048",
    "batching.micro_batches_per_step=1",
    "trainer.max_steps=400",
    "trainer.schedule={type: linear, warmup_steps: 100, peak_learning_rate: 0.005, "
    "decay_until_step: 400}",
    "trainer.validate_every_steps=400",
    "checkpoints.every_steps=400",
    "cluster.ranks=1",
    "tracking.wandb=disabled",
]


def test_a_minute_of_training_beats_what_knows_no_source(multi30k, tmp_path):
    """These settings have reached a perplexity of 10.6, and 26 BLEU.

    A network that is given no source, and so can know nothing but French captions, has 18.3 after
    three times as many steps, and 2 BLEU.
    """
    settings = [*QUICK, f"data.mirror={multi30k}", f"data.dataset={tmp_path}/dataset"]
    prepare(load_recipe(RECIPE, settings).data_settings, lambda progress: None)
    runs = Runs(RECIPE, tmp_path, address="")
    result = runs.train("run", *settings, inline=True)
    assert result.validation is not None
    scores = result.validation.scores
    assert scores["perplexity"].value < 14
    assert scores["bleu"].value > 18
