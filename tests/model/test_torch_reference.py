"""The network compared with torch.nn.Transformer with the same weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from model.blocks.embeddings import Embedding
from model.config.transformer import AttentionBackend
from model.losses.loss import CrossEntropy

PAD = 0


class Reference(nn.Module):
    """nn.Transformer with our weights, embeddings and positions.

    By default, torch adds a norm after each stack, which the paper's post-norm form lacks.
    Therefore its encoder and decoder are built here.
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
        self.transformer = nn.Transformer(
            config.width,
            config.heads,
            custom_encoder=nn.TransformerEncoder(
                nn.TransformerEncoderLayer(**layer),
                config.encoder_layers,
                norm=nn.LayerNorm(config.width) if self.pre else None,
                enable_nested_tensor=False,
            ),
            custom_decoder=nn.TransformerDecoder(
                nn.TransformerDecoderLayer(**layer),
                config.decoder_layers,
                norm=nn.LayerNorm(config.width) if self.pre else None,
            ),
            batch_first=True,
        )
        self.embeddings = nn.ParameterDict(
            {
                name: torch.empty_like(module.weight)
                for name, module in ours.named_children()
                if isinstance(module, Embedding)
            }
        )
        self.positions = ours.positions
        self.pairs = list(self._pairs(ours))
        with torch.no_grad():
            for own, theirs in self.pairs:
                theirs.copy_(torch.cat(own))

    def _pairs(self, ours):
        """Yield our parameters, to be concatenated, with torch's parameter for them."""
        for name, embedding in self.embeddings.items():
            yield [getattr(ours, name).weight], embedding
        for stack, theirs in (
            (ours.encoder, self.transformer.encoder),
            (ours.decoder, self.transformer.decoder),
        ):
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

    def _embedding(self, side):
        """Return the side's matrix (§3.4), or the target's if the side has none."""
        own = f"{side}_embedding"
        return self.embeddings[own if own in self.embeddings else "target_embedding"]

    def logits(self, source, target_input, padded_target):
        def embed(ids, side):
            vectors = F.embedding(ids, self._embedding(side))
            return vectors * vectors.shape[-1] ** 0.5 + self.positions(0, ids.shape[1])

        padded = source == PAD
        future = torch.ones(2 * target_input.shape[1:], dtype=torch.bool).triu(1)
        hidden = self.transformer(
            embed(source, "source"),
            embed(target_input, "target"),
            tgt_mask=future,
            src_key_padding_mask=padded,
            tgt_key_padding_mask=padded_target,
            memory_key_padding_mask=padded,
        )
        return hidden @ self._embedding("output").T


@pytest.mark.parametrize("backend", list(AttentionBackend))
@pytest.mark.parametrize("share", ["all", "decoder", "none"])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_logits_loss_and_gradients_equal_torchs_transformer(
    build, randomise_vectors, sentences, as_input, norm, share, backend
):
    ours = build(backend=backend, norm=norm, share_embeddings=share, encoder_layers=3)
    randomise_vectors(ours)
    reference = Reference(ours)
    source, target = sentences([9, 4, 17]), sentences([6, 23, 3], seed=2)
    target_input, real = as_input(target), target != PAD

    logits = ours.logits(ours.decode(target_input, ours.encode(source), source))
    expected_logits = reference.logits(source, target_input, ~real)
    torch.testing.assert_close(logits[real], expected_logits[real], rtol=0, atol=1e-5)

    sums = ours(source, target_input, target, CrossEntropy(0.1))
    expected = F.cross_entropy(
        expected_logits.flatten(0, 1),
        target.flatten(),
        label_smoothing=0.1,
        ignore_index=PAD,
        reduction="sum",
    )
    torch.testing.assert_close(sums.smoothed, expected, rtol=1e-6, atol=0)

    (sums.smoothed / real.sum()).backward()
    (expected / real.sum()).backward()
    compared = 0
    for own, theirs in reference.pairs:
        gradient = torch.cat([parameter.grad for parameter in own])
        torch.testing.assert_close(gradient, theirs.grad, rtol=0, atol=1e-5)
        compared += len(own)
    assert compared == len(list(ours.parameters()))
