import itertools
import math

import pytest
import torch

from model.blocks.cache import capacity_for, round_up_capacity
from model.config.transformer import DecodingConfig
from model.errors import ModelError, PrefixError
from model.generation import candidates, member, search_state
from model.generation.search import (
    beam_search,
    best_by_penalty,
    ensemble_search,
    greedy_search,
    length_penalty,
)
from model.generation.search_state import SearchState

BOS, EOS = 2, 3
FORBIDDEN = [0, BOS]


@pytest.fixture
def network(build):
    """Return a builder of networks with untied embeddings: random tied ones repeat their input."""

    def build_untied(seed=2, **settings):
        return build(seed, share_embeddings="none", **settings).eval()

    return build_untied


def uncached_log_probabilities(model, source, ids):
    """Return log p of each token after BOS and `ids`, by the forward pass of training."""
    target_input = torch.tensor([[BOS, *ids]])
    hidden = model.decode(target_input, model.encode(source), source)
    return model.logits(hidden[0, -1]).float().log_softmax(-1)


@torch.no_grad()
def uncached_greedy(model, source, limit):
    ids, total = [], 0.0
    while True:
        log_probabilities = uncached_log_probabilities(model, source, ids)
        log_probabilities[FORBIDDEN] = -torch.inf
        token = EOS if len(ids) + 1 == limit else int(log_probabilities.argmax())
        total += log_probabilities[token].item()
        if token == EOS:
            return tuple(ids), total
        ids.append(token)


@torch.no_grad()
def every_translation(model, source, limit, alpha):
    """Return all outputs of up to `limit` tokens, EOS included, with scores; best first."""
    tokens = [p for p in range(model.vocabulary.target_size) if p not in (*FORBIDDEN, EOS)]
    scored = []
    for length in range(limit):
        for ids in itertools.product(tokens, repeat=length):
            hidden = model.decode(torch.tensor([[BOS, *ids]]), model.encode(source), source)
            log_probabilities = model.logits(hidden[0]).log_softmax(-1)
            total = log_probabilities[range(length + 1), [*ids, EOS]].sum().item()
            scored.append((total / length_penalty(length + 1, alpha), ids))
    return sorted(scored, reverse=True)


LENGTHS = [9, 4, 1, 7, 12, 4]
EXTRA = 16


NEWER = {
    **{"norm": "pre", "positions": "rotary", "key_value_heads": 2},
    **{"norm_kind": "rms", "activation": "swiglu"},
}


@pytest.mark.parametrize(
    "form", [{"norm": "post"}, {"norm": "pre"}, NEWER], ids=["post", "pre", "newer parts"]
)
def test_greedy_search_with_a_cache_equals_search_without(network, sentences, form):
    model = network(**form)
    source = sentences(LENGTHS)
    decoding = DecodingConfig(length_penalty=0.0, max_extra_length=EXTRA)
    found = greedy_search(model, source, decoding)
    assert len({len(hypothesis.ids) for hypothesis in found}) > 3
    for row, length in enumerate(LENGTHS):
        ids, total = uncached_greedy(model, source[row : row + 1, :length], length + EXTRA)
        assert found[row].ids == ids
        assert found[row].score == pytest.approx(total, abs=1e-4)


def test_a_beam_of_one_equals_greedy_search(network, sentences):
    model, source = network(), sentences(LENGTHS)
    decoding = DecodingConfig(beam_size=1, max_extra_length=10)
    for greedy, (beam,) in zip(
        greedy_search(model, source, decoding), beam_search(model, source, decoding), strict=True
    ):
        assert beam.ids == greedy.ids
        assert beam.score == pytest.approx(greedy.score, abs=1e-5)


@pytest.mark.matrix
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_beam_wider_than_all_hypotheses_is_an_exact_search(network, sentences, alpha, seed):
    model = network(seed, pieces=7)
    source = sentences([3, 2, 5], pieces=7)
    limit = 4
    decoding = DecodingConfig(
        beam_size=160, length_penalty=alpha, max_length_factor=0, max_extra_length=limit
    )
    for row, found in enumerate(beam_search(model, source, decoding)):
        one = source[row : row + 1]
        expected = every_translation(model, one, limit, alpha)
        assert len(expected) == 1 + 4 + 16 + 64
        assert [hypothesis.ids for hypothesis in found] == [ids for _, ids in expected]
        torch.testing.assert_close(
            torch.tensor([hypothesis.score for hypothesis in found]),
            torch.tensor([score for score, _ in expected]),
            rtol=0,
            atol=1e-4,
        )


def textbook_beam_search(models, sources, k, alpha, limit):
    """Search for one sentence with plain lists and no cache, by the networks' mean softmax."""
    live, finished = [(0.0, ())], []
    for length in range(1, limit + 1):
        candidates = []
        for total, ids in live:
            each = [
                uncached_log_probabilities(model, source, ids).double().exp()
                for model, source in zip(models, sources, strict=True)
            ]
            for token, probability in enumerate((sum(each) / len(each)).tolist()):
                if token not in FORBIDDEN and (length < limit or token == EOS):
                    candidates.append((total + math.log(probability), (*ids, token)))
        candidates.sort(reverse=True)
        for total, ids in candidates[:k]:
            if ids[-1] == EOS:
                finished.append((total / length_penalty(length, alpha), ids[:-1]))
        if len(finished) >= k:
            break
        live = [(total, ids) for total, ids in candidates if ids[-1] != EOS][:k]
    return sorted(finished, reverse=True)[:k]


@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_one_beam_search_has_the_best_output_for_each_length_penalty(network, sentences, beam_size):
    """Bits are the same, because the search drops only hypotheses that are best for no penalty."""
    model, source = network(), sentences(LENGTHS)
    decoding = DecodingConfig(beam_size=beam_size, length_penalty=0.0, max_extra_length=6)
    found = beam_search(model, source, decoding)
    chosen = {}
    for alpha in (0.0, 0.6, 1.0, 5.0):
        of_alpha = decoding.model_copy(update={"length_penalty": alpha})
        chosen[alpha] = [best_by_penalty(of_one, alpha) for of_one in found]
        assert chosen[alpha] == [best for best, *_ in beam_search(model, source, of_alpha)]
    if beam_size > 1:
        assert [best.ids for best in chosen[0.0]] != [best.ids for best in chosen[5.0]]


@torch.no_grad()
@pytest.mark.parametrize(
    "form", [{"norm": "post"}, {"norm": "pre"}, NEWER], ids=["post", "pre", "newer parts"]
)
def test_beam_search_equals_a_textbook_implementation(network, sentences, form):
    model, source = network(**form), sentences(LENGTHS)
    decoding = DecodingConfig(beam_size=3, max_extra_length=8)
    for row, found in enumerate(beam_search(model, source, decoding)):
        length = LENGTHS[row]
        one = source[row : row + 1, :length]
        expected = textbook_beam_search([model], [one], 3, 0.6, length + 8)
        assert [hypothesis.ids for hypothesis in found] == [ids for _, ids in expected]
        assert [hypothesis.score for hypothesis in found] == pytest.approx(
            [score for score, _ in expected], abs=1e-4
        )


@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_a_sentence_alone_is_translated_as_in_a_batch(network, sentences, search):
    model, source = network(), sentences(LENGTHS, width=20)
    decoding = DecodingConfig(max_extra_length=10)
    run = greedy_search if search == "greedy" else beam_search
    together = run(model, source, decoding)
    for row, length in enumerate(LENGTHS):
        (alone,) = run(model, source[row : row + 1, :length], decoding)
        ours, theirs = ([alone], [together[row]]) if search == "greedy" else (alone, together[row])
        assert [one.ids for one in ours] == [one.ids for one in theirs]
        assert [one.score for one in ours] == pytest.approx([one.score for one in theirs], abs=1e-5)


@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_spare_rows_and_splitting_of_a_batch_do_not_change_results(
    network, sentences, search, monkeypatch
):
    model, lengths = network(), [1 + row % 13 for row in range(40)]
    source = sentences(lengths)
    decoding = DecodingConfig(max_extra_length=6)
    run = greedy_search if search == "greedy" else beam_search
    monkeypatch.setattr(search_state, "LOGITS_AT_ONCE", 50)
    monkeypatch.setattr(candidates, "CACHE_BYTES", 1)
    found = run(model, source, decoding)
    monkeypatch.setattr(member, "round_up_capacity", lambda rows: rows)
    monkeypatch.setattr(search_state, "LOGITS_AT_ONCE", 10**6)
    monkeypatch.setattr(candidates, "CACHE_BYTES", 10**9)
    expected = run(model, source, decoding)
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = ([ours], [theirs]) if search == "greedy" else (ours, theirs)
        assert [one.ids for one in ours] == [one.ids for one in theirs]
        assert [one.score for one in ours] == pytest.approx([one.score for one in theirs], abs=1e-5)


def test_rounded_capacities_have_few_sizes_and_exceed_the_rows_by_at_most_a_quarter():
    sizes = [round_up_capacity(rows) for rows in range(1, 1000)]
    assert all(rows <= size <= 1.25 * rows for rows, size in enumerate(sizes, 1))
    assert len(set(sizes)) == 36
    assert round_up_capacity(0) == 0
    assert [capacity_for(p) for p in (1, 4, 5, 9, 30, 33, 65)] == [4, 4, 8, 12, 32, 40, 80]


def rows_of_each_step(model, monkeypatch):
    rows = []
    step = model.decode_step

    def counted_step(newest_bk, *rest):
        rows.append(len(newest_bk))
        return step(newest_bk, *rest)

    monkeypatch.setattr(model, "decode_step", counted_step)
    return rows


def test_finished_sentences_leave_the_batch_of_greedy_search(network, sentences, monkeypatch):
    model = network()
    rows = rows_of_each_step(model, monkeypatch)
    found = greedy_search(model, sentences(LENGTHS), DecodingConfig(max_extra_length=10))
    steps = [len(hypothesis.ids) + 1 for hypothesis in found]
    assert rows == [sum(n > step for n in steps) for step in range(max(steps))]


def test_finished_sentences_leave_the_batch_of_beam_search(network, sentences, monkeypatch):
    model, lengths = network(), [9, 4, 1]
    decoding = DecodingConfig(beam_size=64, max_length_factor=1, max_extra_length=1)
    rows = rows_of_each_step(model, monkeypatch)
    beam_search(model, sentences(lengths), decoding)
    assert rows[0] == 3
    assert rows[2] == 2, "the third sentence may have two tokens only"
    assert sum(rows) < 3 * len(rows)


@pytest.mark.parametrize("search", [greedy_search, beam_search])
def test_inference_mode_does_not_change_results_of_a_search(network, sentences, search):
    model, source = network(), sentences(LENGTHS)
    decoding = DecodingConfig(max_extra_length=2)
    with torch.inference_mode():
        found = search(model, source, decoding)
    assert found == search(model, source, decoding)


@pytest.mark.parametrize("search", [greedy_search, beam_search])
def test_a_search_with_nan_weights_is_refused_and_names_a_sentence(network, sentences, search):
    model, source = network(), sentences(LENGTHS)
    with torch.no_grad():
        model.decoder.layers[0].feed_forward.inner.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="Source 0 of 6 has no translation"):
        search(model, source, DecodingConfig(max_extra_length=2))


def test_outputs_end_at_the_limit_of_their_sentence(network, sentences):
    model, source = network(), sentences(LENGTHS)
    decoding = DecodingConfig(max_length_factor=0.5, max_extra_length=1)
    limits = [length // 2 + 1 for length in LENGTHS]
    for limit, hypotheses in zip(limits, beam_search(model, source, decoding), strict=True):
        assert all(len(hypothesis.ids) < limit for hypothesis in hypotheses)
    outputs = greedy_search(model, source, decoding)
    assert all(len(one.ids) < limit for one, limit in zip(outputs, limits, strict=True))


def test_beam_search_in_bf16_returns_hypotheses(network, sentences):
    model = network().bfloat16()
    found = beam_search(model, sentences(LENGTHS), DecodingConfig(max_extra_length=5))
    assert all(hypotheses for hypotheses in found)


def test_a_source_without_tokens_is_refused(network, sentences):
    source = sentences([3, 2])
    source[1] = 0
    with pytest.raises(ModelError, match="Source 1 of 2 has 0 tokens"):
        greedy_search(network(), source, DecodingConfig())


def test_length_penalty_equals_the_formula_of_the_paper():
    assert length_penalty(1, 0.6) == 1.0
    assert length_penalty(7, 1.0) == 2.0
    assert length_penalty(20, 0.0) == 1.0


PREFIXES = [[5, 4], [], [6]]


def padded(prefixes):
    width = max(map(len, prefixes))
    return torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in prefixes])


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_a_wide_beam_after_a_prefix_is_an_exact_search(network, sentences, alpha):
    model, source = network(pieces=7), sentences([3, 2, 5], pieces=7)
    decoding = DecodingConfig(
        beam_size=160, length_penalty=alpha, max_length_factor=0, max_extra_length=4
    )
    found = beam_search(model, source, decoding, padded(PREFIXES))
    for row, prefix in enumerate(PREFIXES):
        every = every_translation(model, source[row : row + 1], 4, alpha)
        expected = [(score, ids) for score, ids in every if [*ids[: len(prefix)]] == prefix]
        assert len(expected) == sum(4**n for n in range(4 - len(prefix)))
        assert [hypothesis.ids for hypothesis in found[row]] == [ids for _, ids in expected]
        scores = [hypothesis.score for hypothesis in found[row]]
        assert scores == pytest.approx([score for score, _ in expected], abs=1e-4)


def test_a_prefix_of_a_sentences_best_translation_does_not_change_it(network, sentences):
    model, source = network(), sentences(LENGTHS)
    decoding = DecodingConfig(max_extra_length=10)
    free = greedy_search(model, source, decoding)
    prefixes = padded([one.ids[: row % 3] for row, one in enumerate(free)])
    for forced, one in zip(greedy_search(model, source, decoding, prefixes), free, strict=True):
        assert forced.ids == one.ids
        assert forced.score == pytest.approx(one.score, abs=1e-5)


@pytest.mark.parametrize(
    ("prefix", "error"),
    [
        ([5, 6, 7], "has 3 tokens, but its translation may have at most 3, EOS included"),
        ([5, EOS], r"contains the special ids \[3\]"),
        ([0, 5], r"contains the special ids \[0\]"),
    ],
)
def test_a_prefix_that_cannot_be_continued_is_refused(network, sentences, prefix, error):
    decoding = DecodingConfig(max_length_factor=0, max_extra_length=3)
    with pytest.raises(PrefixError, match=f"Prefix 1 {error}"):
        beam_search(network(), sentences([4]), decoding, torch.tensor([prefix]))


@pytest.mark.parametrize("search", [greedy_search, beam_search])
def test_a_sentence_keeps_its_prefix_when_another_leaves_the_batch(network, sentences, search):
    """The first sentence leaves after two tokens, and the last one moves to its row."""
    model, source = network(), sentences([1, 9, 8])
    prefixes = [[], [9, 8, 7, 6, 5], [5, 6, 7, 8, 9, 10]]
    decoding = DecodingConfig(max_length_factor=1, max_extra_length=1)
    found = search(model, source, decoding, padded(prefixes))
    for prefix, hypotheses in zip(prefixes, found, strict=True):
        for hypothesis in [hypotheses] if search is greedy_search else hypotheses:
            assert list(hypothesis.ids[: len(prefix)]) == prefix


def test_the_length_limit_is_rounded_down(network, sentences):
    lengths = [1, 2, 3, 5, 7, 11]
    decoding = DecodingConfig(max_length_factor=1.7, max_extra_length=2)
    state = SearchState([network()], [sentences(lengths)], None, 1, decoding)
    assert state.limits == [3, 5, 7, 10, 13, 20]


def test_an_ensemble_averages_the_probabilities_of_its_networks(network, sentences):
    """The networks have different shapes, and one of them reads different source tokens."""
    models = [network(2), network(4, width=24, encoder_layers=1, norm="pre"), network(5)]
    sources = [sentences(LENGTHS), sentences(LENGTHS), sentences([n + 2 for n in LENGTHS])]
    decoding = DecodingConfig(beam_size=3, max_extra_length=5)
    together = ensemble_search(models, sources, decoding)
    for row, found in enumerate(together):
        lengths = [LENGTHS[row], LENGTHS[row], LENGTHS[row] + 2]
        one = [
            source[row : row + 1, :length] for source, length in zip(sources, lengths, strict=True)
        ]
        expected = textbook_beam_search(models, one, 3, 0.6, max(lengths) + 5)
        assert [hypothesis.ids for hypothesis in found] == [ids for _, ids in expected]
        assert [hypothesis.score for hypothesis in found] == pytest.approx(
            [score for score, _ in expected], abs=1e-4
        )
    alone = beam_search(models[0], sources[0], decoding)
    assert [f[0].ids for f in together] != [f[0].ids for f in alone]


def test_an_ensemble_of_a_network_with_itself_equals_that_network(network, sentences):
    model, source = network(), sentences([9, 4, 1])
    decoding = DecodingConfig(beam_size=4, max_extra_length=8)
    alone = beam_search(model, source, decoding, padded(PREFIXES))
    together = ensemble_search([model, model], [source, source], decoding, padded(PREFIXES))
    for one, two in zip(alone, together, strict=True):
        assert [hypothesis.ids for hypothesis in one] == [hypothesis.ids for hypothesis in two]
        assert [h.score for h in one] == pytest.approx([h.score for h in two], abs=1e-5)


def test_the_longest_source_of_an_ensemble_sets_the_limit(network, sentences):
    """The position of this source's member in the ensemble does not matter."""
    decoding = DecodingConfig(beam_size=1, max_length_factor=1.0, max_extra_length=2)
    short, long = sentences([3, 4]), sentences([5, 9])
    for sources in ([short, long], [long, short]):
        state = SearchState([network(1), network(2)], sources, None, 1, decoding)
        assert state.limits == [5 + 2, 9 + 2]
