"""Probes of a sentence, compared with search and trace, and their size limits."""

import pytest
import torch

from model.config.transformer import DecodingConfig
from model.generation.search import greedy_search
from model.inspection.trace import trace
from run_store.record import probe as limits
from trainer.tasks import probing
from trainer.tasks.probing import probe

SENTENCE = "elle est 漢 étudiante"


def probed(translator, sentence=SENTENCE, **settings):
    tokenizers = translator.tokenizers
    return probe(translator.model, tokenizers[0], tokenizers[-1], sentence, **settings)


def test_a_probe_has_the_pieces_and_predictions_of_search_and_weights_of_trace(translator_of):
    translator = translator_of(seed=1)
    model = translator.model
    found = probed(translator)
    ids = translator.source_ids(SENTENCE)
    limit = min(limits.MAX_PIECES, 2 * len(ids) + 4)
    bounded = DecodingConfig(max_length_factor=0, max_extra_length=limit)
    (searched,) = greedy_search(model, torch.tensor([ids]), bounded)
    target = [model.vocabulary.bos_id, *searched.ids]
    traced = trace(model, torch.tensor([ids]), torch.tensor([target]))
    assert found.source == tuple(translator.source_texts(SENTENCE))
    assert "漢 (" in "".join(found.source)
    assert found.target == tuple(translator.target_pieces(target))
    assert found.output == translator.target_text(searched.ids)
    for t, best in enumerate(found.predictions):
        for one, p in zip(best, traced.probabilities_btv[0, t].topk(3).values, strict=True):
            assert one.probability == pytest.approx(float(p), abs=1e-6)
    shown = {one.place: one.bytes_hts / 255 for one in found.attention}
    assert len(shown) == 2 + 2 * 2
    for place, weights in shown.items():
        stack, _, layer, part = place.split(".")
        layers = getattr(traced, stack).layers
        expected = getattr(layers[int(layer)], part).weights_bhts[0]
        assert (torch.tensor(weights) - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_a_long_sentence_is_cut_and_its_full_length_reported(translator_of):
    found = probed(translator_of(), "elle " * 60)
    assert len(found.source) == limits.MAX_PIECES < found.source_pieces == 61
    assert found.source[-1] == "</s>"
    assert len(found.target) <= limits.MAX_PIECES


def test_weights_of_too_many_heads_are_stored_as_their_mean(translator_of, monkeypatch):
    translator = translator_of()
    whole = probed(translator)
    assert {one.mean_of_heads for one in whole.attention} == {1}
    monkeypatch.setattr(probing, "MAX_WEIGHTS", 100)
    for seed in (0, 1):
        for one, each in zip(probed(translator_of(seed)).attention, whole.attention, strict=True):
            assert (one.mean_of_heads, one.shape[0]) == (4, 1)
            if seed == 0:
                assert abs(one.bytes_hts[0] - each.bytes_hts.mean(axis=0)).max() <= 1


def test_only_the_last_layers_of_a_deep_network_are_probed(translator_of, monkeypatch):
    monkeypatch.setattr(probing, "MAX_LAYERS", 1)
    places = [one.place for one in probed(translator_of()).attention]
    assert [place.split(".part")[0].rsplit(".", 1)[0] for place in places] == [
        "encoder.layers.1",
        "decoder.layers.1",
        "decoder.layers.1",
    ]


def test_probing_draws_no_random_numbers_and_leaves_no_hooks(translator_of):
    translator = translator_of()
    before = torch.random.get_rng_state()
    assert probed(translator) == probed(translator)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(module._forward_hooks for module in translator.model.modules())
