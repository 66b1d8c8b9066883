"""Trace of a forward pass: every value computed from ids to probabilities.

    trace(model, source, target input) ─▶ Trace
        encoder   embedding · √m, positions, sum ─▶ layers ─▶ last norm: the memory
        decoder   the same, each layer with a second attention, over the memory
        logits, probabilities: row t predicts the token after input token t

Forward hooks record inputs and outputs of each module (`model.inspection.module_calls`).

Attention is causal, so row t depends only on tokens 0…t. Decoding step t of a hypothesis therefore
equals row t of one pass over BOS and the hypothesis.

Shape suffixes: b batch, h heads, t length (queries), s length (keys), d width of one head, m model
width, f inner width of the feed-forward network, v target vocabulary. Rows of padding hold
meaningless numbers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.blocks.embeddings import Embedding
from model.errors import ModelError
from model.inspection.layer_traces import (
    DecoderLayerTrace,
    EmbeddingTrace,
    EncoderLayerTrace,
    StackTrace,
)
from model.inspection.module_calls import (
    ModuleCalls,
    attention_trace,
    feed_forward_trace,
    layer_trace,
    record_calls,
    require_evaluation,
    residual_trace,
)
from model.networks.transformer import Transformer


@dataclass(frozen=True)
class Trace:
    """One forward pass."""

    encoder: StackTrace[EmbeddingTrace, EncoderLayerTrace]  # its output is the memory
    decoder: StackTrace[EmbeddingTrace, DecoderLayerTrace]
    logits_btv: Tensor
    probabilities_btv: Tensor  # fp32


@torch.no_grad()
def trace(model: Transformer, source_bs: Tensor, target_input_bt: Tensor) -> Trace:
    """Run the model once and return all intermediate values.

    The hooks are removed afterwards, even after an exception.

    Args:
        source_bs: sentences that end with EOS, padded at the end.
        target_input_bt: BOS and the tokens so far, padded at the end.

    Raises:
        ModelError: the model is in training mode, a source is empty, or the shapes of sources and
            targets do not match.
    """
    _check(model, source_bs, target_input_bt)
    with record_calls(model) as calls:
        memory_bsm = model.encode(source_bs)
        hidden_btm = model.decode(target_input_bt, memory_bsm, source_bs)
        logits_btv = model.logits(hidden_btm)
    # Calls are consumed in the order of the forward pass, because encoder and decoder may call the
    # same embedding.
    source_embedding = model.source_embedding or model.target_embedding
    return Trace(
        encoder=StackTrace(
            ids_bt=source_bs,
            embedding=_embedding(calls, model, source_embedding),
            layers=tuple(layer_trace(calls, layer) for layer in model.encoder.layers),
            output_btm=memory_bsm,
        ),
        decoder=StackTrace(
            ids_bt=target_input_bt,
            embedding=_embedding(calls, model, model.target_embedding),
            layers=tuple(_decoder_layer(calls, layer) for layer in model.decoder.layers),
            output_btm=hidden_btm,
        ),
        logits_btv=logits_btv,
        probabilities_btv=logits_btv.float().softmax(dim=-1),
    )


def _embedding(calls: ModuleCalls, model: Transformer, embedding: Embedding) -> EmbeddingTrace:
    scaled_btm = calls.next(embedding).output
    return EmbeddingTrace(
        scaled_btm=scaled_btm,
        positions_tm=(
            torch.zeros_like(scaled_btm[0])
            if model.positions is None
            else calls.next(model.positions).output
        ),
        sum_btm=calls.next(model.dropout).output,
    )


def _decoder_layer(calls: ModuleCalls, layer: Any) -> DecoderLayerTrace:
    return DecoderLayerTrace(
        self_attention=attention_trace(calls, layer.self_attention),
        self_attention_residual=residual_trace(calls, layer, layer.self_attention_norm),
        cross_attention=attention_trace(calls, layer.cross_attention),
        cross_attention_residual=residual_trace(calls, layer, layer.cross_attention_norm),
        feed_forward=feed_forward_trace(calls, layer),
        feed_forward_residual=residual_trace(calls, layer, layer.feed_forward_norm),
    )


def _check(model: Transformer, source_bs: Tensor, target_input_bt: Tensor) -> None:
    require_evaluation(model)
    shapes = tuple(source_bs.shape), tuple(target_input_bt.shape)
    if not all(len(shape) == 2 and shape[1] > 0 for shape in shapes) or (
        shapes[0][0] != shapes[1][0]
    ):
        raise ModelError(
            f"Source and target input have the shapes {shapes[0]} and {shapes[1]}, but they must "
            "be (b, s) and (b, t). Give one row for each of the same b sentences, with at least "
            "EOS in each source and at least BOS in each target input."
        )
    if not (source_bs != model.vocabulary.pad_id).any(dim=1).all():
        raise ModelError(
            "A source contains only padding, but it needs at least EOS. End every source with EOS, "
            "even an empty one."
        )
