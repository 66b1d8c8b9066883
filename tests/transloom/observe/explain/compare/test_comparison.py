"""Comparison of two models: numbers of page and command equal those of the models."""

from dataclasses import asdict

import pytest
import torch
from support.live_model import ask

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.storage.phrasebook import phrasebook_pairs
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from model.config.transformer import DecodingConfig
from model.generation.search import greedy_search
from model.inspection.trace import trace
from model.networks.transformer import Transformer, Vocabulary
from transloom.inference.translator import Translator
from transloom.observe.explain.compare.comparison import compare, incompatibilities
from transloom.observe.explain.live.packing import packed

SENTENCE = "elle 漢 sera journaliste demain"
NAMES = ("one@1", "other@2")
DECODING = DecodingConfig(max_length_factor=0.5, max_extra_length=6)


@pytest.fixture(scope="module")
def other_tokenizer():
    texts = [text for pair in phrasebook_pairs("train")[:600] for text in pair]
    config = TokenizerConfig(type="bpe", vocabulary_size=300)
    return SentencePieceTokenizer.train(texts, config, "another model", [])


@pytest.fixture
def model_of(translator_of):
    """Return a function that builds a translator with random weights and varied output."""

    def build(seed, **settings):
        made = translator_of(seed, share_embeddings="none", **settings)
        made.decoding = DECODING
        return made

    return build


def with_tokenizers(translator, source, target):
    """Return a translator with the same network settings and other tokenizers."""
    special = target.special_ids
    sizes = source.vocabulary_size, target.vocabulary_size
    vocabulary = Vocabulary(*sizes, special.pad, special.bos, special.eos)
    torch.manual_seed(1)
    model = Transformer(translator.model.config, vocabulary)
    tokenizers = {SOURCE: source, TARGET: target}
    return Translator(model, tokenizers, DECODING, translator.checkpoint)


def equal(found, expected, where=""):
    """Assert that both have equal texts, and equal numbers up to rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            equal(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            equal(found[number], value, f"{where}.{number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-7), where
    else:
        assert found == expected, where


@pytest.mark.parametrize(
    ("first", "second"),
    [({}, {}), ({"norm": "pre"}, {"encoder_layers": 1, "decoder_layers": 3, "heads": 2})],
    ids=["alike", "other shapes"],
)
def test_the_page_computes_the_same_comparison_as_the_command(model_of, tmp_path, first, second):
    both = [model_of(0, **first), model_of(1, **second)]
    expected = asdict(compare(both, NAMES, SENTENCE, None))
    question = ("compare", {"sentence": SENTENCE, "tag": None, "names": NAMES})
    (found,) = ask(packed(both[0]), tmp_path, question, other=packed(both[1]))
    assert expected["parting"] is not None
    assert any("漢 (<unk>)" in piece for piece in expected["sides"][0]["source"])
    equal(found, expected)


def test_both_models_score_the_first_models_translation(model_of):
    both = [model_of(0), model_of(1)]
    found = compare(both, NAMES, SENTENCE, None)
    eos = both[0].model.vocabulary.eos_id
    written = []
    for side, translator in zip(found.sides, both, strict=True):
        source = torch.tensor([translator.source_ids(SENTENCE)])
        (best,) = greedy_search(translator.model, source, DECODING)
        written.append([*best.ids, eos])
        assert side.written == translator.target_pieces(written[-1])
        assert side.asked == found.sides[0].written
        read = [translator.model.vocabulary.bos_id, *written[0][:-1]]
        traced = trace(translator.model, source, torch.tensor([read]))
        probabilities = traced.probabilities_btv[0]
        for t, step in enumerate(side.steps):
            assert step.asked == pytest.approx(float(probabilities[t, written[0][t]]), rel=1e-4)
            assert (
                step.best[0].piece == translator.target_pieces([int(probabilities[t].argmax())])[0]
            )
        assert [lens.steps[-1].asked for lens in side.lens][-1] == side.steps[-1].asked
        cross = next(a for a in side.attentions if a.key == "decoder.layers.1.cross_attention")
        expected = traced.decoder.layers[1].cross_attention.weights_bhts[0]
        assert torch.tensor(cross.data).view(cross.shape).allclose(expected, rtol=1e-4)
    differ = [n for n, pair in enumerate(zip(*written, strict=False)) if pair[0] != pair[1]]
    assert found.parting.step == differ[0]
    own = [found.parting.probabilities[n][n] for n in range(2)]
    for n, step in enumerate([side.steps[differ[0]] for side in found.sides]):
        assert own[n] == step.best[0].probability  # each model chooses its most probable piece
        assert found.parting.probabilities[n][1 - n] < own[n]


def test_a_model_compared_with_itself_has_no_differences(model_of):
    found = compare([model_of(0)] * 2, NAMES, SENTENCE, None)
    assert found.parting is None
    first, second = (asdict(side) for side in found.sides)
    assert {key: value for key, value in first.items() if key != "name"} == {
        key: value for key, value in second.items() if key != "name"
    }
    assert incompatibilities(found, [model_of(0)] * 2) == []


def test_a_comparison_says_which_parts_are_incompatible(model_of, other_tokenizer, tmp_path):
    first = model_of(0)
    source, target = first._tokenizers[SOURCE], first._tokenizers[TARGET]
    reads_other = with_tokenizers(first, other_tokenizer, target)
    writes_other = with_tokenizers(first, source, other_tokenizer)
    found = compare([first, reads_other], NAMES, SENTENCE, None)
    (said,) = incompatibilities(found, [first, reads_other])
    assert not found.same_source
    assert found.same_target
    assert "split this sentence into different pieces" in said
    assert "Predictions can still be compared" in said

    found = compare([first, writes_other], NAMES, SENTENCE, None)
    (said,) = incompatibilities(found, [first, writes_other])
    sizes = [first.model.vocabulary.target_size, 300]
    assert f"({sizes[0]:,} and 300 pieces)" in said
    assert "The translations and each model's own steps are shown" in said
    assert found.same_source
    assert not found.same_target
    assert found.parting is None
    assert [side.asked == side.written for side in found.sides] == [True, True]
    question = ("compare", {"sentence": SENTENCE, "tag": None, "names": NAMES})
    (live,) = ask(packed(first), tmp_path, question, other=packed(writes_other))
    equal(live, asdict(found))

    smaller = model_of(0, heads=2, decoder_layers=1)
    found = compare([first, smaller], NAMES, SENTENCE, None)
    (said,) = incompatibilities(found, [first, smaller])
    assert "2 encoder layers, 2 decoder layers, 4 heads and " in said
    assert "2 encoder layers, 1 decoder layer, 2 heads" in said
