"""Translations by CTranslate2 compared with translations by transloom's search."""

import pytest
import torch

from data_pipeline.batching.task import HeldOut
from data_pipeline.tasks.translation import heldout_pairs, pair_micro_batches
from model.config.transformer import DecodingConfig
from model.errors import PrefixError
from model.generation.search import length_penalty
from transloom.inference.ctranslate2.conversion import write_model
from transloom.inference.ctranslate2.searcher import CTranslate2Searcher
from transloom.inference.engine_names import ComputeType
from transloom.inference.searchers import network_searcher

from .conftest import SENTENCES, TAG

POSITIONS = 64


@pytest.fixture(scope="module")
def network(tokenizers, network_for):
    return network_for(tokenizers, seed=3, share_embeddings="decoder")


@pytest.fixture(scope="module")
def searchers(network, tokenizers, tmp_path_factory):
    """Return transloom's searcher and CTranslate2's for one network."""
    folder = tmp_path_factory.mktemp("model")
    write_model(network, tokenizers, POSITIONS, folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    theirs = CTranslate2Searcher(network, tokenizers, lambda: files, POSITIONS, ComputeType.FLOAT32)
    return network_searcher(network, None), theirs


@pytest.fixture(scope="module")
def batches_of(tokenizers):
    def batches(sentences, prefixes=None, tag=None) -> list[HeldOut]:
        heldout = heldout_pairs(sentences, prefixes or [""] * len(sentences), tag)
        return pair_micro_batches(heldout, tokenizers, 40, 10**6)

    return batches


@pytest.fixture(scope="module")
def log_probability(network):
    """Return a function that computes a translation's log probability with our network."""

    def compute(source, ids):
        bos, eos = network.vocabulary.bos_id, network.vocabulary.eos_id
        source_bs = torch.tensor([source])
        with torch.no_grad():
            hidden = network.decode(
                torch.tensor([[bos, *ids]]), network.encode(source_bs), source_bs
            )
            rows = network.logits(hidden)[0].log_softmax(dim=1)
        return sum(float(row[token]) for row, token in zip(rows, [*ids, eos], strict=True))

    return compute


def searched(searcher, decoding, batches):
    return [one for found in searcher.search(decoding, batches) for one in found]


@pytest.mark.matrix
@pytest.mark.parametrize("alpha", [0, 0.6, 1.2])
@pytest.mark.parametrize("beam", [1, 4])
def test_ctranslate2_finds_our_best_translations_and_scores(searchers, batches_of, beam, alpha):
    batches = batches_of(SENTENCES)
    assert len(batches) > 1
    decoding = DecodingConfig(beam_size=beam, length_penalty=alpha, max_extra_length=40)
    ours, theirs = (searched(searcher, decoding, batches) for searcher in searchers)
    assert len({len(one[0].ids) for one in ours}) > 1
    for expected, found in zip(ours, theirs, strict=True):
        assert found[0].ids == expected[0].ids
        assert found[0].score == pytest.approx(expected[0].score, rel=1e-4)
        assert len(found) == beam
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_every_score_is_the_log_probability_divided_by_our_length_penalty(
    searchers, batches_of, log_probability, tokenizers
):
    decoding = DecodingConfig(beam_size=4, length_penalty=0.8, max_extra_length=40)
    (batch,) = batches_of(SENTENCES[:1], tag=TAG)
    (found,) = searched(searchers[1], decoding, [batch])
    source = tokenizers["src"].encode_field(SENTENCES[:1], TAG).ids.tolist()
    assert len(found) == 4
    for hypothesis in found:
        penalty = length_penalty(len(hypothesis.ids) + 1, 0.8)
        ours = log_probability(source, hypothesis.ids) / penalty
        assert hypothesis.score == pytest.approx(ours, rel=1e-4)


def test_scores_include_the_prefix_as_ours_do(searchers, batches_of, log_probability, tokenizers):
    prefixes = ["she will", "", "no", "the student", "", "a"]
    decoding = DecodingConfig(beam_size=3, max_extra_length=40)
    batches = batches_of(SENTENCES, prefixes)
    numbers = [int(number) for batch in batches for number in batch.pair_ids]
    theirs = dict(zip(numbers, searched(searchers[1], decoding, batches), strict=True))
    for number, (sentence, prefix) in enumerate(zip(SENTENCES, prefixes, strict=True)):
        source = tokenizers["src"].encode_field([sentence]).ids.tolist()
        begun = tuple(tokenizers["tgt"].encode([prefix])[0].tolist())
        for hypothesis in theirs[number]:
            assert hypothesis.ids[: len(begun)] == begun
            penalty = length_penalty(len(hypothesis.ids) + 1, decoding.length_penalty)
            ours = log_probability(source, hypothesis.ids) / penalty
            assert hypothesis.score == pytest.approx(ours, rel=1e-4)
    greedy = decoding.model_copy(update={"beam_size": 1})
    found = [searched(searcher, greedy, batches) for searcher in searchers]
    assert [one[0].ids for one in found[0]] == [one[0].ids for one in found[1]]


def test_a_prefix_above_the_limit_of_its_translation_is_reported(searchers, batches_of):
    decoding = DecodingConfig(max_extra_length=1)
    with pytest.raises(PrefixError, match="tokens, but its translation may have") as raised:
        searched(searchers[1], decoding, batches_of(["non", "non"], ["", "she will " * 9]))
    assert raised.value.index == 1


@pytest.mark.parametrize("extra", [1, 3])
def test_our_search_translates_sentences_that_reach_the_length_limit(searchers, batches_of, extra):
    """Our search adds EOS at the limit and scores it; CTranslate2 would omit it."""
    decoding = DecodingConfig(beam_size=3, max_length_factor=0, max_extra_length=extra)
    ours, theirs = (searched(one, decoding, batches_of(SENTENCES)) for one in searchers)
    assert len(ours) == len(SENTENCES)
    for expected, found in zip(ours, theirs, strict=True):
        assert [h.ids for h in found] == [h.ids for h in expected]
        assert [h.score for h in found] == pytest.approx([h.score for h in expected], rel=1e-4)


@pytest.mark.long
def test_our_search_translates_sentences_above_the_position_table(searchers, batches_of):
    long = " ".join(["je suis étudiant"] * 20)
    decoding = DecodingConfig(beam_size=2, max_extra_length=5)
    ours, theirs = (searched(one, decoding, batches_of([long, "non"])) for one in searchers)
    assert [one[0].ids for one in ours] == [one[0].ids for one in theirs]


@pytest.mark.long
def test_worker_processes_find_the_same_translations_in_order(searchers, batches_of):
    batches = batches_of(SENTENCES * 4)
    decoding = DecodingConfig(beam_size=2, max_extra_length=40)
    alone = searched(searchers[1], decoding, batches)
    with searchers[1].in_processes(3) as workers:
        together = [one for found in workers(decoding, batches) for one in found]
    for found, expected in zip(together, alone, strict=True):
        assert [h.ids for h in found] == [h.ids for h in expected]
        # The rounding of sums depends on the number of threads.
        assert [h.score for h in found] == pytest.approx([h.score for h in expected], rel=1e-5)
    with searchers[1].in_processes(1) as same:
        assert same == searchers[1].search
