"""Language models with exact numerics: the same bits on any number of ranks, in any stage.

Bits could differ in norms, because torch computes RMSNorm in several operations, and ZeRO-3
adds up gradients between modules.
"""

import pytest
from support.ranks import language_model_jobs
from support.ranks.engine_jobs import Shape

pytestmark = pytest.mark.long

STEPS = 2
FORMS = {
    "gpt2": {"preset": "gpt2"},
    "llama": {"preset": "llama", "key_value_heads": 2},
    "rms with biases": {"preset": "llama", "bias": True},
    "sinusoidal, relu": {"positions": "sinusoidal", "activation": "relu", "tie_embeddings": False},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_decoder_only_training_has_the_same_bits_on_three_ranks(rank_pools, form):
    (alone,) = rank_pools(1).run(language_model_jobs.train, Shape(1, numerics="exact"), form, STEPS)
    passes = language_model_jobs.SLOTS * (STEPS + 1)  # the first step is computed twice
    assert {len(found) for found in alone["gradients"].values()} == {passes}
    for ranks, stage in ((3, 0), (3, 3)):
        shape = Shape(stage, numerics="exact")
        for found in rank_pools(ranks).run(language_model_jobs.train, shape, form, STEPS):
            assert found["losses"] == alone["losses"]
            assert found["weights"] == alone["weights"]


def check_bits(rank_pools, job, *arguments):
    """Train on one rank, and compare with two and three ranks in other stages."""
    (alone,) = rank_pools(1).run(job, Shape(1, numerics="exact"), *arguments, STEPS)
    assert alone["losses"][0] != alone["losses"][-1]
    for ranks, stage in ((2, 0), (3, 3)):
        for found in rank_pools(ranks).run(job, Shape(stage, numerics="exact"), *arguments, STEPS):
            assert found["losses"] == alone["losses"]
            assert found["weights"] == alone["weights"]


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_sentence_embedding_has_the_same_bits_on_more_ranks(rank_pools, pooling):
    form = {"preset": "bert", "pooling": pooling}
    check_bits(rank_pools, language_model_jobs.train_sentences, form)


@pytest.mark.parametrize("kind", ["texts", "tokens"])
def test_label_heads_have_the_same_bits_even_if_a_slot_has_no_label(rank_pools, kind):
    check_bits(rank_pools, language_model_jobs.train_labels, kind, {"preset": "bert"})


@pytest.mark.parametrize("form", [{"preset": "bert"}, {}], ids=["bert", "pre-norm"])
def test_a_masked_model_has_the_same_bits_even_if_a_slot_has_no_masked_token(rank_pools, form):
    check_bits(rank_pools, language_model_jobs.train_masked, form)
