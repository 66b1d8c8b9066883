"""Alignment of target tokens with source tokens, by the attention of one decoder layer.

    sources, their translations ─▶ one pass of the network ─▶ weights of a cross-attention,
    averaged over its heads ─▶ the source token with the largest weight, for each target token

Row t of the weights belongs to the step that predicts target token t. The default layer is the one
before the last. The average of its heads agrees best with human alignments (Garg et al. 2019,
"Jointly Learning to Align and Translate with Transformer Models"). The most attended source token
is often, but not always, the token that was translated.

Shape suffixes as in `model.blocks.attention`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from model.blocks.attention import attention_scores, attention_weights
from model.errors import ModelError
from model.networks.transformer import Transformer

Alignment = tuple[tuple[int, int], ...]


@torch.no_grad()
def align(
    model: Transformer,
    source_bs: Tensor,
    translations: Sequence[Sequence[int]],
    layer: int | None = None,
) -> list[Alignment]:
    """Return, for each translation, the pairs (source position, target position), from 0.

    Every target token has one pair. The source's EOS is never chosen, unless it is the only token.

    Args:
        source_bs: a sentence for each translation, ending in EOS, padded at the end.
        translations: token ids without BOS and EOS.
        layer: decoder layer to use, from 0; None means the layer before the last.

    Raises:
        ModelError: there is no such layer.
    """
    weights_bts = translation_weights(model, source_bs, translations, layer)
    lengths = (source_bs != model.vocabulary.pad_id).sum(dim=1).tolist()
    return [
        tuple(
            (source, target)
            for target, source in enumerate(
                weights_ts[: len(ids), : max(1, length - 1)].argmax(dim=1).tolist()
            )
        )
        for weights_ts, ids, length in zip(weights_bts, translations, lengths, strict=True)
    ]


@torch.no_grad()
def translation_weights(
    model: Transformer,
    source_bs: Tensor,
    translations: Sequence[Sequence[int]],
    layer: int | None = None,
) -> Tensor:
    """Return the averaged weights, fp32 (b, t, s), where t is the longest translation with EOS."""
    assert not model.training, "call model.eval() before aligning: dropout is on"
    vocabulary = model.vocabulary
    target_input_bt = pad_sequence(
        [torch.tensor([vocabulary.bos_id, *ids]) for ids in translations],
        batch_first=True,
        padding_value=vocabulary.pad_id,
    ).to(source_bs.device)
    noted: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        query_bhtd, keys_bhsd, _, mask, causal = inputs
        scores_bhts = attention_scores(query_bhtd, keys_bhsd, mask, causal)
        noted.append(attention_weights(scores_bhts.float()).mean(dim=1))

    hook = _cross_attention(model, layer).register_forward_pre_hook(note)
    try:
        model.decode(target_input_bt, model.encode(source_bs), source_bs)
    finally:
        hook.remove()
    return noted[0]


def _cross_attention(model: Transformer, layer: int | None) -> nn.Module:
    layers = model.decoder.layers
    if layer is None:
        layer = max(0, len(layers) - 2)
    if not 0 <= layer < len(layers):
        raise ModelError(
            f"There is no decoder layer {layer}: the model has {len(layers)}, numbered from 0. "
            f"Choose one from 0 to {len(layers) - 1}."
        )
    attention: nn.Module = layers[layer].get_submodule("cross_attention.attention")
    return attention
