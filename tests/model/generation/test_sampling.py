import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from model.config.decoder_only import SamplingConfig
from model.errors import ModelError
from model.generation.sampling import draw, generate

EOS, PIECES, CONTEXT = 3, 30, 24
NEVER = -1  # an EOS that the network cannot choose
FORMS = {
    "gpt2": {"preset": "gpt2"},
    "llama": {"preset": "llama", "key_value_heads": 2},
    "sinusoidal": {"positions": "sinusoidal"},
}
PROMPTS = [[4, 9, 2], [11], [5, 6, 7, 8, 9, 10, 12, 13], [29, 4], [11]]

every_form = pytest.mark.parametrize("form", FORMS)


def next_log_probabilities(network, ids):
    ids = torch.tensor([ids])
    with torch.no_grad():
        hidden = network.hidden(ids, torch.zeros_like(ids))
        return network.logits(hidden)[0, -1].double().log_softmax(0)


def allowed(logits, temperature, top_k, top_p):
    """Return the allowed tokens and their probabilities, one after another, best first."""
    powers = {token: logit / temperature for token, logit in enumerate(logits)}
    best = sorted(powers, key=lambda token: -powers[token])[: top_k or None]
    largest = powers[best[0]]
    weights = [math.exp(powers[token] - largest) for token in best]
    kept, before = [], 0.0
    for token, weight in zip(best, weights, strict=True):
        if kept and before >= top_p:
            break
        kept.append((token, weight / sum(weights)))
        before += weight / sum(weights)
    total = sum(share for _, share in kept)
    return [(token, share / total) for token, share in kept]


@given(
    logits=st.lists(
        st.floats(-6, 6).map(lambda x: round(x, 3)), min_size=2, max_size=12, unique=True
    ),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.integers(0, 13),
    top_p=st.sampled_from([0.001, 0.3, 0.7, 0.95, 1.0]),
)
def test_draw_picks_allowed_tokens_in_proportion_to_their_probabilities(
    logits, temperature, top_k, top_p
):
    sampling = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    expected, picks = 0.0, []
    for token, share in allowed(logits, temperature, top_k, top_p):
        if share > 1e-4:  # numbers just inside the token's part of [0, 1)
            picks += [(expected + 1e-5 * share, token), (expected + (1 - 1e-5) * share, token)]
        expected += share
    assert expected == pytest.approx(1)
    numbers, tokens = zip(*picks, strict=True)
    rows = torch.tensor([logits]).expand(len(numbers), -1)
    found = draw(rows, sampling, torch.tensor(numbers, dtype=torch.float64))
    assert found.tolist() == list(tokens)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.7}, {"top_k": 3}, {"top_p": 0.6}, {"top_k": 4, "top_p": 0.8}]
)
def test_frequencies_of_sampled_tokens_match_their_probabilities(build_decoder_only, settings):
    network = build_decoder_only().eval()
    sampling = SamplingConfig(max_new_tokens=1, seed=5, **settings)
    draws = 4000
    found = generate(network, [[4, 9, 2]] * draws, sampling, NEVER)
    counts = torch.bincount(torch.tensor([each.ids[0] for each in found]), minlength=PIECES)
    log_probabilities = next_log_probabilities(network, [4, 9, 2])
    given_ = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | settings
    expected = torch.zeros(PIECES, dtype=torch.float64)
    for token, share in allowed(log_probabilities.tolist(), **given_):
        expected[token] = share
    assert not counts[expected == 0].any()
    # Four standard deviations of a binomial.
    spread = (expected * (1 - expected) / draws).sqrt()
    assert ((counts / draws - expected).abs() <= 4 * spread + 1e-9).all()
    assert (expected > 0.05).sum() > 1
    for each in found[:20]:
        own = log_probabilities[each.ids[0]].item()
        assert each.log_probability == pytest.approx(own, abs=1e-4)


@every_form
def test_greedy_generation_chooses_the_best_token_for_the_whole_text(build_decoder_only, form):
    network = build_decoder_only(**FORMS[form]).eval()
    sampling = SamplingConfig(temperature=0, max_new_tokens=12)
    for prompt, found in zip(PROMPTS, generate(network, PROMPTS, sampling, EOS), strict=True):
        ids, score = list(prompt), 0.0
        while len(ids) - len(prompt) < 12 and EOS not in ids[len(prompt) :]:
            log_probabilities = next_log_probabilities(network, ids)
            ids.append(int(log_probabilities.argmax()))
            score += log_probabilities.max().item()
        new = ids[len(prompt) :]
        ended = "eos" if new[-1] == EOS else "length"
        assert list(found.ids) == (new[:-1] if ended == "eos" else new)
        assert found.ended == ended
        assert found.log_probability == pytest.approx(score, abs=1e-3)


@every_form
@pytest.mark.parametrize(
    "settings", [{"temperature": 0}, {"temperature": 1.3, "top_k": 20, "top_p": 0.97}]
)
def test_texts_generated_in_a_batch_equal_those_generated_alone(build_decoder_only, form, settings):
    network = build_decoder_only(spread=5.0, **FORMS[form]).eval()
    sampling = SamplingConfig(max_new_tokens=15, seed=1, **settings)

    def continued(*numbers):
        def finished(index, ids):  # so that texts leave the batch at different steps
            return len(ids) == [4, 11, 2, 7, 15][numbers[index]]

        prompts = [PROMPTS[number] for number in numbers]
        return generate(network, prompts, sampling, NEVER, finished, numbers)

    together, backwards = continued(0, 1, 2, 3, 4), continued(4, 3, 2, 1, 0)[::-1]
    for number, (first, second) in enumerate(zip(together, backwards, strict=True)):
        (alone,) = continued(number)
        assert first.ids == second.ids == alone.ids
        assert first.ended == second.ended == alone.ended
        assert first.log_probability == pytest.approx(alone.log_probability, abs=1e-3)
    # The same prompt with a different number gets a different text, unless it is greedy.
    assert (together[1].ids == together[4].ids[:11]) == (settings["temperature"] == 0)
    assert [len(each.ids) for each in together] == [4, 11, 2, 7, 15]


def test_texts_depend_only_on_the_sampling_seed_and_not_on_torchs_generator(build_decoder_only):
    network = build_decoder_only().eval()

    def ids(seed, numbers=None):
        sampling = SamplingConfig(max_new_tokens=8, seed=seed)
        found = generate(network, PROMPTS, sampling, NEVER, numbers=numbers)
        return [each.ids for each in found]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = ids(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert ids(7) == ids(7, range(5)) == first
    assert ids(8) != first


def test_draws_for_successive_tokens_are_independent(build_decoder_only):
    """A generator seeded again for each token would repeat a number."""
    # All tokens are equally probable.
    network = build_decoder_only(spread=0.0, positions="rotary").eval()
    sampling = SamplingConfig(max_new_tokens=60)
    (found,) = generate(network, [[4]], sampling, NEVER)
    assert len(set(found.ids)) > 15
    assert found.log_probability == pytest.approx(-60 * math.log(PIECES), rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_only_learned_positions_end_a_text_at_the_context_length(build_decoder_only, form):
    network = build_decoder_only(**FORMS[form]).eval()
    prompts = [[5] * CONTEXT, [5] * (CONTEXT - 3), [5]]
    sampling = SamplingConfig(temperature=0, max_new_tokens=40)
    found = generate(network, prompts, sampling, NEVER)
    if form == "gpt2":
        assert [each.ended for each in found] == ["context"] * 3
        assert [len(each.ids) for each in found] == [1, 4, CONTEXT]
    else:
        assert [each.ended for each in found] == ["length"] * 3
        assert [len(each.ids) for each in found] == [40] * 3


def test_a_text_ends_when_the_callers_function_says_so(build_decoder_only):
    network = build_decoder_only().eval()
    sampling = SamplingConfig(max_new_tokens=9, seed=3)
    free = generate(network, PROMPTS, sampling, NEVER)
    asked = []

    def finished(index, ids):
        asked.append((index, tuple(ids)))
        return index == 2 and len(ids) == 4

    found = generate(network, PROMPTS, sampling, NEVER, finished)
    assert [each.ended for each in found] == ["length", "length", "stop", "length", "length"]
    assert found[2].ids == free[2].ids[:4]
    assert [each.ids for each in found[:2]] == [each.ids for each in free[:2]]
    for index, each in enumerate(found):
        own = [ids for number, ids in asked if number == index]
        assert own == [each.ids[: count + 1] for count in range(len(each.ids))]


def test_eos_counts_in_the_log_probability_but_is_not_returned(build_decoder_only):
    network = build_decoder_only().eval()
    sampling = SamplingConfig(temperature=2.0, max_new_tokens=6)
    (whole,) = generate(network, [[4, 9, 2]], sampling, NEVER)
    last = whole.ids[3]
    assert last not in whole.ids[:3]
    (found,) = generate(network, [[4, 9, 2]], sampling, last, lambda index, ids: ids[-1] == last)
    assert (found.ids, found.ended) == (whole.ids[:3], "eos")
    score = sum(
        next_log_probabilities(network, [4, 9, 2, *whole.ids[:n]])[whole.ids[n]].item()
        for n in range(4)
    )
    assert found.log_probability == pytest.approx(score, abs=1e-3)


def test_a_prompt_is_read_once_and_each_step_reads_one_token(build_decoder_only):
    network = build_decoder_only(preset="llama").eval()
    shapes = []
    network.layers[0].register_forward_pre_hook(
        lambda _, inputs: shapes.append(inputs[0].shape[:2])
    )
    generate(network, PROMPTS, SamplingConfig(temperature=0, max_new_tokens=4), NEVER)
    assert shapes == [(5, 8), (5, 1), (5, 1), (5, 1)]


def test_a_bf16_network_generates_text(build_decoder_only):
    network = build_decoder_only(preset="llama").bfloat16().eval()
    sampling = SamplingConfig(max_new_tokens=5, top_p=0.9)
    assert [len(each.ids) for each in generate(network, PROMPTS, sampling, NEVER)] == [5] * 5


def test_an_empty_prompt_and_one_beyond_the_context_are_refused(build_decoder_only):
    network = build_decoder_only().eval()
    with pytest.raises(ModelError, match=r"Prompt 1 of 2 has no tokens"):
        generate(network, [[4], []], SamplingConfig(), EOS)
    with pytest.raises(ModelError, match=r"Prompt 0 of 1 has 25 tokens.*positions for 24"):
        generate(network, [[4] * 25], SamplingConfig(), EOS)
    assert generate(network, [], SamplingConfig(), EOS) == []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_network_with_nan_logits_is_reported(build_decoder_only, temperature):
    network = build_decoder_only().eval()
    with torch.no_grad():
        network.last_norm.weight[0] = float("nan")
    sampling = SamplingConfig(temperature=temperature)
    with pytest.raises(ModelError, match=r"Prompt 0 .*NaN"):
        generate(network, [[4]], sampling, EOS)


def test_a_random_number_at_a_boundary_selects_the_later_token():
    logits, halves = torch.zeros(2, 2), torch.tensor([0.0, 0.5]).double()
    assert draw(logits, SamplingConfig(), halves).tolist() == [0, 1]


def test_a_tiny_temperature_samples_the_best_token(build_decoder_only):
    logits = F.one_hot(torch.tensor([7, 2]), PIECES).float()
    found = draw(logits, SamplingConfig(temperature=1e-310), torch.tensor([0.9, 0.1]).double())
    assert found.tolist() == [7, 2]
