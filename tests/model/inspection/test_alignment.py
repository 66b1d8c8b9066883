import pytest
import torch

from model.config.transformer import AttentionBackend
from model.errors import ModelError
from model.inspection.alignment import align, translation_weights
from model.inspection.trace import trace

TRANSLATIONS = [(5, 9, 4), (), (7, 7, 7, 8, 20)]
LENGTHS = [6, 1, 3]


@pytest.fixture
def network(build):
    return build(3, decoder_layers=3).eval()


@pytest.mark.parametrize("layer", [None, 0, 2])
def test_alignment_weights_are_the_mean_over_the_heads_of_a_layer(network, sentences, layer):
    """They equal those of a traced pass of each sentence."""
    source = sentences(LENGTHS)
    found = translation_weights(network, source, TRANSLATIONS, layer)
    for row, (length, ids) in enumerate(zip(LENGTHS, TRANSLATIONS, strict=True)):
        one = trace(network, source[row : row + 1, :length], torch.tensor([[2, *ids]]))
        attention = one.decoder.layers[1 if layer is None else layer].cross_attention
        expected = attention.weights_bhts.mean(dim=1)[0]
        torch.testing.assert_close(found[row, : len(ids) + 1, :length], expected, rtol=0, atol=1e-6)
        assert not found[row, :, length:].any()


def test_each_target_piece_is_aligned_with_its_most_attended_source_piece(network, sentences):
    source = sentences(LENGTHS)
    weights = translation_weights(network, source, TRANSLATIONS)
    found = align(network, source, TRANSLATIONS)
    assert [[target for _, target in pairs] for pairs in found] == [[0, 1, 2], [], [0, 1, 2, 3, 4]]
    for row in (0, 2):
        for at, target in found[row]:
            assert weights[row, target, at] == weights[row, target, : LENGTHS[row] - 1].max()


def test_a_source_of_only_eos_is_aligned_with_eos(network, sentences):
    assert align(network, sentences([1]), [(5, 6)]) == [((0, 0), (0, 1))]


def test_align_removes_its_hooks_and_accepts_bf16(build, sentences):
    network = build(3, backend=AttentionBackend.MATMUL).eval().bfloat16()
    align(network, sentences(LENGTHS), TRANSLATIONS)
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_layer_that_does_not_exist_is_refused_with_the_existing_ones(network, sentences):
    with pytest.raises(ModelError, match="no decoder layer 3: the model has 3, numbered from 0"):
        align(network, sentences(LENGTHS), TRANSLATIONS, layer=3)
