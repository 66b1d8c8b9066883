import copy

import pytest
import torch

from model.config.transformer import ModelConfig
from model.errors import ModelError
from model.losses.loss import CrossEntropy
from model.networks.transformer import Transformer, Vocabulary


@pytest.mark.parametrize(("share", "matrices"), [("all", 1), ("decoder", 2), ("none", 3)])
def test_sharing_determines_the_number_of_embeddings(build, sentences, as_input, share, matrices):
    model = build(share_embeddings=share)
    names = [name for name, _ in model.named_parameters() if "embedding" in name]
    assert len(names) == matrices
    source, target = sentences([9, 4]), sentences([3, 7], seed=2)
    model(source, as_input(target), target, CrossEntropy(0.1)).smoothed.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_vocabularies_of_different_sizes_require_separate_embeddings(sentences, as_input):
    config = ModelConfig(width=32, heads=4, encoder_layers=1, decoder_layers=1)
    vocabulary = Vocabulary(source_size=40, target_size=30, pad_id=0, bos_id=2, eos_id=3)
    with pytest.raises(ModelError, match=r"40 source and 30 target"):
        Transformer(config, vocabulary)
    model = Transformer(config.model_copy(update={"share_embeddings": "decoder"}), vocabulary)
    source, target = sentences([9, 4], pieces=40), sentences([3, 7])
    assert model(source, as_input(target), target, CrossEntropy(0.0)).smoothed.isfinite()


@pytest.mark.parametrize("special", [(0, 2, 2), (0, 2, 30), (-1, 2, 3)])
def test_vocabulary_requires_valid_and_distinct_special_ids(special):
    with pytest.raises(ModelError, match=r"must be ids below 30.* EOS must differ"):
        Vocabulary(40, 30, *special)


def test_bf16_stays_near_fp32(build, sentences, as_input):
    model = build()
    source, target = sentences([9, 4, 7]), sentences([6, 8, 3], seed=2)
    expected = model(source, as_input(target), target, CrossEntropy(0.1))
    sums = copy.deepcopy(model).bfloat16()(source, as_input(target), target, CrossEntropy(0.1))
    assert sums.smoothed.dtype == torch.float32
    torch.testing.assert_close(sums.smoothed, expected.smoothed, rtol=2e-2, atol=0)
    sums.smoothed.backward()


def test_activations_have_the_dtype_to_which_only_parameters_were_cast(build, sentences, as_input):
    """Engines may cast parameters to bf16 and leave the table of positions in fp32."""
    model = build()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    source, target = sentences([9, 4]), sentences([6, 8], seed=2)
    hidden = model.decode(as_input(target), model.encode(source), source)
    assert hidden.dtype == torch.bfloat16


def test_the_seed_determines_dropout(build, sentences, as_input):
    model = build(dropout=0.3, attention_dropout=0.1)
    source, target = sentences([9, 4, 7]), sentences([6, 8, 3], seed=2)

    def gradients(seed):
        model.zero_grad()
        torch.manual_seed(seed)
        sums = model(source, as_input(target), target, CrossEntropy(0.1))
        sums.smoothed.backward()
        return [sums.smoothed.detach(), *(p.grad.clone() for p in model.parameters())]

    for first, again in zip(gradients(7), gradients(7), strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(gradients(7)[0], gradients(8)[0])


def test_dropout_does_not_act_in_evaluation(build, sentences, as_input):
    model = build(dropout=0.3, attention_dropout=0.1).eval()
    source, target = sentences([9, 4]), sentences([6, 8], seed=2)
    first, again = (model(source, as_input(target), target, CrossEntropy(0.1)) for _ in range(2))
    assert torch.equal(first.smoothed, again.smoothed)


def test_the_state_dict_contains_only_parameters(build):
    model = build()
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_sentences_longer_than_the_initial_position_table_are_accepted(build, sentences, as_input):
    model = build()
    source, target = sentences([700]), sentences([300], seed=2)
    assert model(source, as_input(target), target, CrossEntropy(0.1)).smoothed.isfinite()


def test_the_papers_base_model_has_63_million_parameters():
    """The paper's Table 3 says 65 million, with a joint vocabulary of about 37,000 pieces."""
    with torch.device("meta"):
        model = Transformer(ModelConfig(), Vocabulary(37000, 37000, 0, 2, 3))
    assert sum(parameter.numel() for parameter in model.parameters()) == 63_082_496
