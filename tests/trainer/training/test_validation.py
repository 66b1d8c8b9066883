"""Validation has the same result on any number of ranks as for each sentence alone."""

import math

import pytest
import sacrebleu
import torch
from support.ranks.validation_jobs import SENTENCES, interrupted_validation, validate
from support.recipes import tiny_recipe

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from trainer.process.placement import Placement
from trainer.tasks.network import build_network


def test_texts_and_scores_are_the_same_on_any_number_of_ranks(rank_pools, phrasebook):
    (alone,) = rank_pools(1).run(validate, phrasebook, 64)
    for ranks in (2, 3):
        for result in rank_pools(ranks).run(validate, phrasebook, 64):
            assert result.texts == alone.texts
            assert result.scores == alone.scores  # summed in the order of the pairs


def test_the_validation_loss_equals_that_of_single_sentences(phrasebook):
    result = validate(Placement(), phrasebook, 64)
    recipe = tiny_recipe(phrasebook)
    store, manifest = open_dataset(recipe.data)
    tokenizers = load_tokenizers(store, manifest)
    model = build_network(recipe.training(), tokenizers).eval()
    heldout = load_heldout(store, manifest, "validation")
    nll, tokens = 0.0, 0
    pairs = zip(*(texts[:SENTENCES] for texts in heldout.texts.values()), strict=True)
    for source, target in pairs:
        source_ids = [*tokenizers["src"].encode([source])[0], 3]
        target_ids = [*tokenizers["tgt"].encode([target])[0], 3]
        hidden = model.decode(
            torch.tensor([[2, *target_ids[:-1]]]),
            model.encode(torch.tensor([source_ids])),
            torch.tensor([source_ids]),
        )
        log_probabilities = model.logits(hidden).log_softmax(-1)[0]
        nll -= sum(log_probabilities[n, i].item() for n, i in enumerate(target_ids))
        tokens += len(target_ids)
    assert result.scores["loss"].value == pytest.approx(nll / tokens, rel=1e-5)
    assert result.scores["perplexity"].value == pytest.approx(math.exp(nll / tokens), rel=1e-4)


def test_validation_stops_on_all_ranks_when_one_rank_is_asked_to_stop(rank_pools, phrasebook):
    assert rank_pools(2).run(interrupted_validation, phrasebook, 64) == [None, None]


def test_bleu_of_validation_is_case_sensitive(phrasebook, monkeypatch):
    store, manifest = open_dataset(tiny_recipe(phrasebook).data)
    targets = load_heldout(store, manifest, "validation").texts["tgt"][:SENTENCES]
    shouted = [target.upper() for target in targets]
    monkeypatch.setattr(SentencePieceTokenizer, "decode", lambda self, ids: shouted)
    result = validate(Placement(), phrasebook, 64)
    assert (
        result.scores["bleu"].value
        == sacrebleu.corpus_bleu(shouted, [targets], force=True).score
        < 20
    )
    assert sacrebleu.corpus_bleu(shouted, [targets], lowercase=True).score == pytest.approx(100)
