"""Results of a sentence do not depend on padding, other sentences, or later pieces."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config.transformer import AttentionBackend
from model.losses.loss import CrossEntropy

PAD, PIECES = 0, 30
EVERY_NETWORK = [
    pytest.param((norm, backend), id=f"{norm}-{backend}")
    for norm in ("post", "pre")
    for backend in AttentionBackend
]
LENGTHS = st.integers(1, 20)
SEEDS = st.integers(0, 2**31)
BATCHES = st.lists(st.tuples(LENGTHS, LENGTHS), min_size=1, max_size=5)  # lengths of each pair


@pytest.fixture(scope="module")
def network(build, randomise_vectors):
    @cache
    def build_once(norm, backend):
        model = build(norm=norm, backend=backend)
        randomise_vectors(model)
        return model

    return build_once


@pytest.mark.matrix
@pytest.mark.parametrize("kind", EVERY_NETWORK)
@settings(max_examples=12)
@given(lengths=BATCHES, more=st.tuples(st.integers(0, 9), st.integers(0, 9)), seed=SEEDS)
def test_a_sentence_has_the_same_logits_and_loss_alone_and_in_a_batch(
    network, sentences, as_input, kind, lengths, more, seed
):
    model = network(*kind)
    source_lengths, target_lengths = ([pair[side] for pair in lengths] for side in (0, 1))
    source = sentences(source_lengths, max(source_lengths) + more[0], seed=seed)
    target = sentences(target_lengths, max(target_lengths) + more[1], seed=seed + 1)
    together = model.logits(model.decode(as_input(target), model.encode(source), source))
    sums = model(source, as_input(target), target, CrossEntropy(0.1))
    smoothed = nll = 0.0
    for row, (s, t) in enumerate(lengths):
        one_source, one_target = source[row : row + 1, :s], target[row : row + 1, :t]
        memory = model.encode(one_source)
        alone = model.logits(model.decode(as_input(one_target), memory, one_source))
        torch.testing.assert_close(together[row, :t], alone[0], rtol=0, atol=1e-5)
        one = model(one_source, as_input(one_target), one_target, CrossEntropy(0.1))
        smoothed, nll = smoothed + one.smoothed, nll + one.nll
    torch.testing.assert_close(sums.smoothed, smoothed, rtol=1e-5, atol=0)
    torch.testing.assert_close(sums.nll, nll, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", EVERY_NETWORK)
@settings(max_examples=12)
@given(data=st.data(), lengths=BATCHES, seed=SEEDS)
def test_a_later_target_piece_does_not_change_earlier_logits(
    network, sentences, as_input, kind, data, lengths, seed
):
    """They are equal bit by bit, and so are those of the other sentences."""
    model = network(*kind)
    source_lengths, target_lengths = ([pair[side] for pair in lengths] for side in (0, 1))
    source, target = sentences(source_lengths, seed=seed), sentences(target_lengths, seed=seed + 1)
    given_input = as_input(target)
    row = data.draw(st.integers(0, len(lengths) - 1), label="row")
    position = data.draw(st.integers(0, target_lengths[row] - 1), label="position")
    changed_input = given_input.clone()
    changed_input[row, position] = (given_input[row, position] + 1) % PIECES
    memory = model.encode(source)
    before, after = (
        model.logits(model.decode(ids, memory, source)) for ids in (given_input, changed_input)
    )
    assert torch.equal(after[row, :position], before[row, :position])
    assert not torch.equal(after[row, position], before[row, position])
    others = torch.arange(len(lengths)) != row
    assert torch.equal(after[others], before[others])


def test_the_embedding_of_padding_gets_no_gradient(build, sentences, as_input):
    model = build(share_embeddings="none")
    source, target = sentences([9, 4]), sentences([3, 7], seed=2)
    model(source, as_input(target), target, CrossEntropy(0.1)).smoothed.backward()
    assert not model.source_embedding.weight.grad[PAD].any()
    assert not model.target_embedding.weight.grad[PAD].any()
