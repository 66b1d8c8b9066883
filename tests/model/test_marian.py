"""The network against Hugging Face's MarianMTModel with the same weights.

Marian is post-norm, as the paper is. Its layout is another one: vectors hold all sines of a
position before all cosines, where ours alternate (§3.5), so every axis as wide as the model is
permuted on the way, and Marian keeps its own positions. Queries, keys and values have a matrix
each.
"""

import pytest
import torch
from torch import Tensor
from transformers import MarianConfig, MarianMTModel
from transformers.trainer_pt_utils import LabelSmoother

from model.loss import CrossEntropy
from model.transformer import Transformer

PIECES = 30
NO_TARGET = -100
# Ours: theirs, and the axes as wide as the model of (weight, bias); -1 stands for none.
MODULES = {
    "self_attention.query": ("self_attn.q_proj", 1, -1),
    "self_attention.key": ("self_attn.k_proj", 1, -1),
    "self_attention.value": ("self_attn.v_proj", 1, -1),
    "self_attention.output": ("self_attn.out_proj", 0, 0),
    "self_attention_norm": ("self_attn_layer_norm", 0, 0),
    "cross_attention.query": ("encoder_attn.q_proj", 1, -1),
    "cross_attention.key": ("encoder_attn.k_proj", 1, -1),
    "cross_attention.value": ("encoder_attn.v_proj", 1, -1),
    "cross_attention.output": ("encoder_attn.out_proj", 0, 0),
    "cross_attention_norm": ("encoder_attn_layer_norm", 0, 0),
    "feed_forward.inner": ("fc1", 1, -1),
    "feed_forward.outer": ("fc2", 0, 0),
    "feed_forward_norm": ("final_layer_norm", 0, 0),
}
EMBEDDINGS = {
    "all": {"target_embedding": "model.shared"},
    "decoder": {
        "source_embedding": "model.encoder.embed_tokens",
        "target_embedding": "model.decoder.embed_tokens",
    },
    "none": {
        "source_embedding": "model.encoder.embed_tokens",
        "target_embedding": "model.decoder.embed_tokens",
        "output_embedding": "lm_head",
    },
}


def in_marians_layout(ours: Transformer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights, or gradients, by our names of parameters → the same by Marian's."""
    width = ours.config.width
    sines_first = torch.cat([torch.arange(0, width, 2), torch.arange(1, width, 2)])
    embeddings = EMBEDDINGS[ours.config.share_embeddings]
    theirs = {}
    for name, tensor in tensors.items():
        path, kind = name.rsplit(".", 1)
        if path in embeddings:
            theirs[f"{embeddings[path]}.{kind}"] = tensor[:, sines_first]
            continue
        stack, layers, number, module = path.split(".", 3)
        parent, _, last = module.rpartition(".")
        fused = last.split("_") if last in ("query_key_value", "key_value") else [last]
        for part, cut in zip(fused, tensor.chunk(len(fused)), strict=True):
            their_module, *axes = MODULES[f"{parent}.{part}" if parent else part]
            axis = axes[kind == "bias"]
            their_name = f"model.{stack}.{layers}.{number}.{their_module}.{kind}"
            theirs[their_name] = cut if axis < 0 else cut.index_select(axis, sines_first)
    return theirs


def marian_with_the_weights_of(ours: Transformer) -> MarianMTModel:
    config, vocabulary = ours.config, ours.vocabulary
    settings = MarianConfig(
        vocab_size=PIECES,
        max_position_embeddings=64,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        encoder_ffn_dim=config.feed_forward_width,
        decoder_ffn_dim=config.feed_forward_width,
        encoder_attention_heads=config.heads,
        decoder_attention_heads=config.heads,
        d_model=config.width,
        dropout=0.0,
        activation_function="relu",
        scale_embedding=True,
        share_encoder_decoder_embeddings=config.share_embeddings == "all",
        tie_word_embeddings=config.share_embeddings != "none",
        pad_token_id=vocabulary.pad_id,
        eos_token_id=vocabulary.eos_id,
        forced_eos_token_id=None,
        decoder_start_token_id=vocabulary.bos_id,
        attn_implementation="eager",
    )
    marian = MarianMTModel(settings)
    weights = in_marians_layout(ours, dict(ours.named_parameters()))
    learned = {name: p for name, p in marian.named_parameters() if p.requires_grad}
    assert weights.keys() == learned.keys()
    with torch.no_grad():
        for name, parameter in learned.items():
            parameter.copy_(weights[name])
    return marian


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("share", ["all", "decoder", "none"])
def test_logits_loss_and_gradients_are_marians(
    build, randomise_vectors, sentences, as_input, share, smoothing
):
    ours = build(pieces=PIECES, share_embeddings=share, encoder_layers=3)
    randomise_vectors(ours)
    marian = marian_with_the_weights_of(ours)
    source, target = sentences([9, 4, 17]), sentences([6, 23, 3], seed=2)
    real = target != ours.vocabulary.pad_id
    labels = target.masked_fill(~real, NO_TARGET)

    expected = marian(
        input_ids=source, attention_mask=source != ours.vocabulary.pad_id, labels=labels
    )
    hidden = ours.decode(as_input(target), ours.encode(source), source)
    torch.testing.assert_close(ours.logits(hidden)[real], expected.logits[real], rtol=0, atol=1e-5)

    loss = ours(source, as_input(target), target, CrossEntropy(smoothing)).smoothed / real.sum()
    expected_loss = (
        LabelSmoother(smoothing, NO_TARGET)(expected, labels) if smoothing else expected.loss
    )
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=0)

    loss.backward()
    expected_loss.backward()
    gradients = in_marians_layout(ours, {n: p.grad for n, p in ours.named_parameters()})
    for name, parameter in marian.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(
                gradients[name], parameter.grad, rtol=0, atol=1e-5, msg=lambda m, n=name: n + m
            )
