"""A short training on real text reaches scores that a network with a broken part cannot reach."""

import pytest
from support.runs import Runs

from cluster.recipe import RECIPES, load_recipe
from data_pipeline.preparation.prepare import prepare

pytestmark = pytest.mark.long

RECIPE = RECIPES / "multi30k-enfr.yaml"
# A shallow network with little dropout soon learns which words go together.
QUICK = [
    "tokenizer.vocabulary_size=4000",
    "model.encoder_layers=2",
    "model.decoder_layers=2",
    "model.dropout=0.1",
    "batching.max_tokens_per_micro_batch=1024",
    "batching.micro_batches_per_step=1",
    "engine.precision=fp32",  # without AVX-512, bf16 takes several times as long
    "trainer.max_steps=500",
    "trainer.schedule={type: linear, warmup_steps: 125, peak_learning_rate: 0.005, "
    "decay_until_step: 500}",
    "trainer.validate_every_steps=500",
    "checkpoints.every_steps=500",
    "cluster.ranks=1",
    "tracking.wandb=disabled",
]


def test_a_minute_of_training_beats_a_network_without_a_source(multi30k, tmp_path):
    """These settings have reached a perplexity of 12.1 and 25 BLEU.

    A network that gets no source, and so learns only French captions, has a perplexity of 18.3
    after 1,200 steps of twice as many tokens, and 2 BLEU.
    """
    settings = [*QUICK, f"data.mirror={multi30k}", f"data.dataset={tmp_path}/dataset"]
    prepare(load_recipe(RECIPE, settings).data_settings, lambda progress: None)
    runs = Runs(RECIPE, tmp_path, address="")
    result = runs.train("run", *settings, inline=True)
    assert result.validation is not None
    scores = result.validation.scores
    assert scores["perplexity"].value < 14
    assert scores["bleu"].value > 18
