import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from model.config import ModelConfig
from model.errors import ModelError
from model.transformer import Transformer, Vocabulary

NORMS = pytest.mark.parametrize("norm", ["post", "pre"])


class Reference(nn.Module):
    """The same network made of torch's own layers, with our weights.

    nn.Transformer always ends its stacks with a norm, which the paper's post-norm form has not;
    so the stacks are built from its encoder and decoder.
    """

    def __init__(self, ours):
        super().__init__()
        config = ours.config
        self.pre = config.norm == "pre"
        layer = {
            "d_model": config.width,
            "nhead": config.heads,
            "dim_feedforward": config.feed_forward_width,
            "dropout": 0.0,
            "batch_first": True,
            "norm_first": self.pre,
        }
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**layer),
            config.encoder_layers,
            norm=nn.LayerNorm(config.width) if self.pre else None,
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(**layer),
            config.decoder_layers,
            norm=nn.LayerNorm(config.width) if self.pre else None,
        )
        self.embedding = nn.Parameter(ours.target_embedding.weight.detach().clone())
        self.positions = ours.positions
        self.pairs = list(self._pairs(ours))
        with torch.no_grad():
            for own, theirs in self.pairs:
                theirs.copy_(torch.cat(own))

    def _pairs(self, ours):
        """Yields (our parameters, to be concatenated; torch's parameter)."""
        yield [ours.target_embedding.weight], self.embedding
        for stack, theirs in ((ours.encoder, self.encoder), (ours.decoder, self.decoder)):
            for own, their in zip(stack.layers, theirs.layers, strict=True):
                modules = [
                    ([own.self_attention.output], their.self_attn.out_proj),
                    ([own.self_attention_norm], their.norm1),
                    ([own.feed_forward.inner], their.linear1),
                    ([own.feed_forward.outer], their.linear2),
                ]
                fused = [([own.self_attention.query_key_value], their.self_attn)]
                if stack is ours.decoder:
                    cross = own.cross_attention
                    modules += [
                        ([cross.output], their.multihead_attn.out_proj),
                        ([own.cross_attention_norm], their.norm2),
                        ([own.feed_forward_norm], their.norm3),
                    ]
                    fused += [([cross.query, cross.key_value], their.multihead_attn)]
                else:
                    modules += [([own.feed_forward_norm], their.norm2)]
                for parts, module in modules:
                    yield [part.weight for part in parts], module.weight
                    yield [part.bias for part in parts], module.bias
                for parts, attention in fused:
                    yield [part.weight for part in parts], attention.in_proj_weight
                    yield [part.bias for part in parts], attention.in_proj_bias
            if self.pre:
                yield [stack.last_norm.weight], theirs.norm.weight
                yield [stack.last_norm.bias], theirs.norm.bias

    def logits(self, source, target_input):
        def embed(ids):
            vectors = F.embedding(ids, self.embedding) * self.embedding.shape[1] ** 0.5
            return vectors + self.positions(0, ids.shape[1])

        padded = source == 0
        future = torch.ones(2 * target_input.shape[1:], dtype=torch.bool).triu(1)
        memory = self.encoder(embed(source), src_key_padding_mask=padded)
        hidden = self.decoder(
            embed(target_input), memory, tgt_mask=future, memory_key_padding_mask=padded
        )
        return hidden @ self.embedding.T


def randomise_vectors(model):
    """Biases and norms start at 0 and 1, where a mistake could hide."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))


@NORMS
def test_logits_loss_and_gradients_equal_torchs_transformer(build, sentences, as_input, norm):
    ours = build(norm=norm)
    randomise_vectors(ours)
    reference = Reference(ours)
    source, target = sentences([9, 4, 7]), sentences([6, 8, 3], seed=2)
    target_input = as_input(target)

    logits = ours.logits(ours.decode(target_input, ours.encode(source), source))
    expected_logits = reference.logits(source, target_input)
    real = target != 0
    torch.testing.assert_close(logits[real], expected_logits[real], rtol=0, atol=1e-5)

    tokens = real.sum()
    sums = ours(source, target_input, target, 0.1)
    expected = F.cross_entropy(
        expected_logits.flatten(0, 1),
        target.flatten(),
        label_smoothing=0.1,
        ignore_index=0,
        reduction="sum",
    )
    torch.testing.assert_close(sums.smoothed, expected, rtol=1e-6, atol=0)

    (sums.smoothed / tokens).backward()
    (expected / tokens).backward()
    compared = 0
    for own, theirs in reference.pairs:
        gradient = torch.cat([parameter.grad for parameter in own])
        torch.testing.assert_close(gradient, theirs.grad, rtol=1e-5, atol=1e-5)
        compared += len(own)
    assert compared == len(list(ours.parameters()))


@NORMS
def test_padding_changes_no_logit(build, sentences, as_input, norm):
    model = build(norm=norm)
    source, target = sentences([9, 4, 1], width=12), sentences([2, 8, 5], width=11, seed=2)
    hidden = model.decode(as_input(target), model.encode(source), source)
    for row, (s, t) in enumerate([(9, 2), (4, 8), (1, 5)]):
        one_source, one_target = source[row : row + 1, :s], target[row : row + 1, :t]
        alone = model.decode(as_input(one_target), model.encode(one_source), one_source)
        torch.testing.assert_close(hidden[row, :t], alone[0], rtol=0, atol=1e-5)


def test_loss_of_a_batch_is_the_sum_over_its_sentences(build, sentences, as_input):
    model = build()
    source, target = sentences([9, 4, 1]), sentences([2, 8, 5], seed=2)
    together = model(source, as_input(target), target, 0.1)
    alone = [
        model(
            source[row : row + 1, :s],
            as_input(target[row : row + 1, :t]),
            target[row : row + 1, :t],
            0.1,
        )
        for row, (s, t) in enumerate([(9, 2), (4, 8), (1, 5)])
    ]
    smoothed, nll = (torch.stack(parts).sum() for parts in zip(*alone, strict=True))
    torch.testing.assert_close(together.smoothed, smoothed, rtol=1e-6, atol=0)
    torch.testing.assert_close(together.nll, nll, rtol=1e-6, atol=0)


def test_padding_gets_no_gradient_from_the_inputs(build, sentences, as_input):
    model = build(share_embeddings="none")
    source, target = sentences([9, 4]), sentences([3, 7], seed=2)
    model(source, as_input(target), target, 0.1).smoothed.backward()
    assert not model.source_embedding.weight.grad[0].any()
    assert not model.target_embedding.weight.grad[0].any()


@NORMS
def test_a_later_target_piece_changes_no_earlier_logit(build, sentences, as_input, norm):
    model = build(norm=norm)
    source, target = sentences([6]), sentences([8], seed=2)
    memory = model.encode(source)
    before = model.decode(as_input(target), memory, source)
    for position in range(1, 8):
        changed = as_input(target)
        changed[0, position] = (changed[0, position] + 1) % 30
        after = model.decode(changed, memory, source)
        assert torch.equal(after[:, :position], before[:, :position])
        assert not torch.equal(after[:, position:], before[:, position:])


@pytest.mark.parametrize(("share", "matrices"), [("all", 1), ("decoder", 2), ("none", 3)])
def test_sharing_decides_the_number_of_embeddings(build, sentences, as_input, share, matrices):
    model = build(share_embeddings=share)
    names = [name for name, _ in model.named_parameters() if "embedding" in name]
    assert len(names) == matrices
    source, target = sentences([9, 4]), sentences([3, 7], seed=2)
    model(source, as_input(target), target, 0.1).smoothed.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_separate_vocabularies_may_differ_in_size(sentences, as_input):
    config = ModelConfig(width=32, heads=4, encoder_layers=1, decoder_layers=1)
    vocabulary = Vocabulary(source_size=40, target_size=30, pad_id=0, bos_id=2, eos_id=3)
    with pytest.raises(ModelError, match=r"40 source and 30 target"):
        Transformer(config, vocabulary)
    model = Transformer(config.model_copy(update={"share_embeddings": "decoder"}), vocabulary)
    source, target = sentences([9, 4], pieces=40), sentences([3, 7])
    assert model(source, as_input(target), target, 0.0).smoothed.isfinite()


@pytest.mark.parametrize("special", [(0, 2, 2), (0, 2, 30), (-1, 2, 3)])
def test_vocabulary_needs_three_special_pieces(special):
    with pytest.raises(ModelError, match="three different ids below 30"):
        Vocabulary(40, 30, *special)


def test_bf16_stays_near_fp32(build, sentences, as_input):
    model = build()
    source, target = sentences([9, 4, 7]), sentences([6, 8, 3], seed=2)
    expected = model(source, as_input(target), target, 0.1)
    sums = copy.deepcopy(model).bfloat16()(source, as_input(target), target, 0.1)
    assert sums.smoothed.dtype == torch.float32
    torch.testing.assert_close(sums.smoothed, expected.smoothed, rtol=2e-2, atol=0)
    sums.smoothed.backward()


def test_positions_follow_parameters_that_alone_were_cast(build, sentences, as_input):
    """Engines may cast parameters to bf16 and leave the table of positions in fp32."""
    model = build()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    source, target = sentences([9, 4]), sentences([6, 8], seed=2)
    hidden = model.decode(as_input(target), model.encode(source), source)
    assert hidden.dtype == torch.bfloat16


def test_seed_decides_the_dropout(build, sentences, as_input):
    model = build(dropout=0.3, attention_dropout=0.1)
    source, target = sentences([9, 4, 7]), sentences([6, 8, 3], seed=2)

    def gradients(seed):
        model.zero_grad()
        torch.manual_seed(seed)
        sums = model(source, as_input(target), target, 0.1)
        sums.smoothed.backward()
        return [sums.smoothed.detach(), *(p.grad.clone() for p in model.parameters())]

    for first, again in zip(gradients(7), gradients(7), strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(gradients(7)[0], gradients(8)[0])


def test_dropout_is_off_in_evaluation(build, sentences, as_input):
    model = build(dropout=0.3, attention_dropout=0.1).eval()
    source, target = sentences([9, 4]), sentences([6, 8], seed=2)
    first, again = (model(source, as_input(target), target, 0.1) for _ in range(2))
    assert torch.equal(first.smoothed, again.smoothed)


def test_state_dict_holds_parameters_only(build):
    model = build()
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_sentences_longer_than_the_first_table(build, sentences, as_input):
    model = build()
    source, target = sentences([700]), sentences([300], seed=2)
    assert model(source, as_input(target), target, 0.1).smoothed.isfinite()


def test_parameter_count_of_the_papers_base_model():
    """65 million in Table 3, with a joint vocabulary of about 37,000 pieces."""
    with torch.device("meta"):
        model = Transformer(ModelConfig(), Vocabulary(37000, 37000, 0, 2, 3))
    assert sum(parameter.numel() for parameter in model.parameters()) == 63_082_496
