"""A look inside: everything that the forward pass computes on its way from ids to probabilities.

    trace(model, source, target input) ─▶ Trace
        encoder   embedding · √m, positions, sum ─▶ layers ─▶ last norm: the memory
        decoder   the same, each layer with a second attention, over the memory
        logits, probabilities: row t is the step that predicts the token after input token t

Nothing is computed a second time by other code: forward hooks note what each module of the model
receives and returns while it runs. Only scores and weights are worked out from the noted queries
and keys, since a fused kernel never holds them, by the functions that `AttentionBackend.MATMUL`
uses (`attention_scores`, `attention_weights`).

Attention is causal, so row t depends on tokens 0…t alone: decoding step t of a hypothesis equals
row t of one pass over BOS and the hypothesis.

Shape suffixes: b batch, h heads, t length (queries), s length (keys), d width of one head, m model
width, f inner width of the feed-forward network, v target vocabulary. The rows of padded tokens
hold numbers too, which nothing reads.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.attention import attention_scores, attention_weights
from model.embeddings import Embedding
from model.errors import ModelError
from model.layers import Decoder, DecoderLayer, Encoder, EncoderLayer
from model.transformer import Transformer


@dataclass(frozen=True)
class EmbeddingTrace:
    """How ids become the first layer's input (§3.4, §3.5)."""

    scaled_btm: Tensor  # rows of the embedding matrix, times √m
    positions_tm: Tensor  # what is added: zeros where queries and keys are rotated instead
    sum_btm: Tensor


@dataclass(frozen=True)
class AttentionTrace:
    """One multi-head attention (§3.2).

    Queries and keys of self-attention are rotated ones, where positions are rotary. Heads of keys
    and values that several heads of queries share are repeated for each.
    """

    queries_bhtd: Tensor
    keys_bhsd: Tensor
    values_bhsd: Tensor
    scores_bhts: Tensor  # QKᵀ / √d; -∞ where a query may not look
    weights_bhts: Tensor  # softmax of the scores
    mix_bhtd: Tensor  # weights · values, as the model's own backend computed it
    output_btm: Tensor  # the heads joined and projected by W^O


@dataclass(frozen=True)
class FeedForwardTrace:
    """One feed-forward network (§3.3)."""

    inner_btf: Tensor  # max(0, xW₁ + b₁); of a SwiGLU what is left of it by the gate
    output_btm: Tensor


@dataclass(frozen=True)
class ResidualTrace:
    """The way around a sub-layer (§3.1).

    post-norm: input ─▶ sub-layer ─▶ sum with the input ─▶ normed, which goes on.
    pre-norm:  input ─▶ normed ─▶ sub-layer ─▶ sum with the input, which goes on.
    """

    input_btm: Tensor
    sum_btm: Tensor
    normed_btm: Tensor
    output_btm: Tensor  # what goes on: normed (post) or sum (pre)


@dataclass(frozen=True)
class EncoderLayerTrace:
    """Self-attention and feed-forward."""

    self_attention: AttentionTrace
    self_attention_residual: ResidualTrace
    feed_forward: FeedForwardTrace
    feed_forward_residual: ResidualTrace


@dataclass(frozen=True)
class DecoderLayerTrace:
    """Masked self-attention, cross-attention and feed-forward."""

    self_attention: AttentionTrace
    self_attention_residual: ResidualTrace
    cross_attention: AttentionTrace
    cross_attention_residual: ResidualTrace
    feed_forward: FeedForwardTrace
    feed_forward_residual: ResidualTrace


@dataclass(frozen=True)
class EncoderTrace:
    """From source ids to the memory."""

    ids_bt: Tensor
    embedding: EmbeddingTrace
    layers: tuple[EncoderLayerTrace, ...]
    output_btm: Tensor  # after the last norm, which post-norm models do not have


@dataclass(frozen=True)
class DecoderTrace:
    """From target ids to the hidden states."""

    ids_bt: Tensor
    embedding: EmbeddingTrace
    layers: tuple[DecoderLayerTrace, ...]
    output_btm: Tensor


@dataclass(frozen=True)
class Trace:
    """One forward pass."""

    encoder: EncoderTrace
    decoder: DecoderTrace
    logits_btv: Tensor
    probabilities_btv: Tensor  # fp32


@torch.no_grad()
def trace(model: Transformer, source_bs: Tensor, target_input_bt: Tensor) -> Trace:
    """Runs the model once and returns what was computed on the way.

    The model is left as it was, without hooks, also after an exception.

    Args:
        source_bs: sentences that end with EOS, padded at the end.
        target_input_bt: BOS and the tokens so far, padded at the end.

    Raises:
        ModelError: the model is in training mode, or the sentences do not fit together.
    """
    _check(model, source_bs, target_input_bt)
    with _recorded(model) as calls:
        memory_bsm = model.encode(source_bs)
        hidden_btm = model.decode(target_input_bt, memory_bsm, source_bs)
        logits_btv = model.logits(hidden_btm)
    # In the order of the forward pass: a shared embedding is called by both sides.
    source_embedding = model.source_embedding or model.target_embedding
    return Trace(
        encoder=EncoderTrace(
            ids_bt=source_bs,
            embedding=_embedding(calls, model, source_embedding),
            layers=tuple(_encoder_layer(calls, layer) for layer in _layers(model.encoder)),
            output_btm=memory_bsm,
        ),
        decoder=DecoderTrace(
            ids_bt=target_input_bt,
            embedding=_embedding(calls, model, model.target_embedding),
            layers=tuple(_decoder_layer(calls, layer) for layer in _layers(model.decoder)),
            output_btm=hidden_btm,
        ),
        logits_btv=logits_btv,
        probabilities_btv=logits_btv.float().softmax(dim=-1),
    )


class _Call(NamedTuple):
    """One call of a module."""

    inputs: tuple[Any, ...]
    output: Tensor


class _Calls:
    """The calls of each module, to be taken in the order in which they were made."""

    def __init__(self) -> None:
        self._of: dict[nn.Module, deque[_Call]] = {}

    def note(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._of.setdefault(module, deque()).append(_Call(inputs, output))

    def next(self, module: nn.Module) -> _Call:
        return self._of[module].popleft()


@contextmanager
def _recorded(model: nn.Module) -> Iterator[_Calls]:
    """Notes the calls of all modules below the model."""
    calls = _Calls()
    hooks = [module.register_forward_hook(calls.note) for module in model.modules()]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _layers(stack: Encoder | Decoder) -> Iterator[Any]:
    yield from stack.layers


def _embedding(calls: _Calls, model: Transformer, embedding: Embedding) -> EmbeddingTrace:
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


def _encoder_layer(calls: _Calls, layer: EncoderLayer) -> EncoderLayerTrace:
    return EncoderLayerTrace(
        self_attention=_attention(calls, layer.self_attention),
        self_attention_residual=_residual(calls, layer, layer.self_attention_norm),
        feed_forward=_feed_forward(calls, layer),
        feed_forward_residual=_residual(calls, layer, layer.feed_forward_norm),
    )


def _decoder_layer(calls: _Calls, layer: DecoderLayer) -> DecoderLayerTrace:
    return DecoderLayerTrace(
        self_attention=_attention(calls, layer.self_attention),
        self_attention_residual=_residual(calls, layer, layer.self_attention_norm),
        cross_attention=_attention(calls, layer.cross_attention),
        cross_attention_residual=_residual(calls, layer, layer.cross_attention_norm),
        feed_forward=_feed_forward(calls, layer),
        feed_forward_residual=_residual(calls, layer, layer.feed_forward_norm),
    )


def _attention(calls: _Calls, module: Any) -> AttentionTrace:
    core = calls.next(module.attention)
    queries_bhtd, keys_bhsd, values_bhsd, mask, causal = core.inputs
    scores_bhts = attention_scores(queries_bhtd, keys_bhsd, mask, causal)
    return AttentionTrace(
        queries_bhtd=queries_bhtd,
        keys_bhsd=keys_bhsd,
        values_bhsd=values_bhsd,
        scores_bhts=scores_bhts,
        weights_bhts=attention_weights(scores_bhts),
        mix_bhtd=core.output,
        output_btm=calls.next(module.output).output,
    )


def _feed_forward(calls: _Calls, layer: EncoderLayer | DecoderLayer) -> FeedForwardTrace:
    outer = calls.next(layer.feed_forward.outer)
    return FeedForwardTrace(inner_btf=outer.inputs[0], output_btm=outer.output)


def _residual(calls: _Calls, layer: EncoderLayer | DecoderLayer, norm: nn.Module) -> ResidualTrace:
    added = calls.next(layer.add)
    normed_btm = calls.next(norm).output
    return ResidualTrace(
        input_btm=added.inputs[0],
        sum_btm=added.output,
        normed_btm=normed_btm,
        output_btm=added.output if layer.pre_norm else normed_btm,
    )


def _check(model: Transformer, source_bs: Tensor, target_input_bt: Tensor) -> None:
    if model.training:
        raise ModelError(
            "The model is in training mode, in which dropout makes every pass another one. Call "
            "model.eval() before trace."
        )
    shapes = tuple(source_bs.shape), tuple(target_input_bt.shape)
    if not all(len(shape) == 2 and shape[1] > 0 for shape in shapes) or (
        shapes[0][0] != shapes[1][0]
    ):
        raise ModelError(
            f"Source and target input have the shapes {shapes[0]} and {shapes[1]}, but they must "
            "be (b, s) and (b, t): a row for each of the same b sentences, a source with EOS at "
            "least, a target input with BOS at least."
        )
    if not (source_bs != model.vocabulary.pad_id).any(dim=1).all():
        raise ModelError(
            "A source holds padding alone, but at least 1 token, EOS, is needed. End every source "
            "with EOS, the empty one too."
        )
