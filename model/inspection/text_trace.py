"""Traces of networks with one stack, for a single text.

    trace_decoder_only(network, ids) ─▶ DecoderOnlyTrace    row t predicts the token after token t
    trace_masked(network, ids, places) ─▶ MaskedTrace       a row for each predicted token
        stack: embedding, positions, segments, sum ─▶ layers ─▶ last norm

Recording works as in `model.inspection.trace`. The batch has one row with one text, without
padding.

Shape suffixes: b batch, which is 1, t length, m model width, n predicted tokens, v vocabulary.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.blocks.rotary import RotaryPositions
from model.errors import ModelError
from model.heads.masked_head import MaskedLanguageModel
from model.inspection.layer_traces import EncoderLayerTrace, StackTrace
from model.inspection.module_calls import ModuleCalls, layer_trace, record_calls, require_evaluation
from model.networks.decoder_only import DecoderOnly
from model.networks.encoder_only import EncoderOnly


@dataclass(frozen=True)
class TextEmbeddingTrace:
    """Steps from ids to the first layer's input (Devlin et al. 2019, figure 2)."""

    tokens_btm: Tensor  # rows of the matrix; times √m if positions are sinusoidal
    positions_tm: Tensor | None  # added vectors; None if queries and keys are rotated instead
    segments_btm: Tensor | None  # vectors of the sides of a pair; None if there are none
    sum_btm: Tensor
    normed_btm: Tensor | None  # only in post-norm encoders, otherwise None


TextStackTrace = StackTrace[TextEmbeddingTrace, EncoderLayerTrace]


@dataclass(frozen=True)
class DecoderOnlyTrace:
    """One forward pass of a language model."""

    stack: TextStackTrace
    logits_btv: Tensor
    probabilities_btv: Tensor  # fp32


@dataclass(frozen=True)
class MaskedTrace:
    """One forward pass of a masked model."""

    stack: TextStackTrace
    places: tuple[int, ...]
    inner_nm: Tensor  # output of the head's layer and activation
    normed_nm: Tensor
    logits_nv: Tensor
    probabilities_nv: Tensor  # fp32


@torch.no_grad()
def trace_decoder_only(network: DecoderOnly, ids: Sequence[int]) -> DecoderOnlyTrace:
    """Run the network once over a text, and return all intermediate values.

    Raises:
        ModelError: the network is in training mode, or the text is empty or too long.
    """
    ids_bt = _checked(network, ids)
    with record_calls(network) as calls:
        hidden_btm = network.hidden(ids_bt, torch.zeros_like(ids_bt))
        logits_btv = network.logits(hidden_btm)
    rotated = isinstance(network.positions, RotaryPositions)
    embedding = TextEmbeddingTrace(
        tokens_btm=calls.next(network.embedding).output,
        positions_tm=None if rotated else calls.next(network.positions).output,
        segments_btm=None,
        sum_btm=calls.next(network.dropout).inputs[0],
        normed_btm=None,
    )
    stack = StackTrace(ids_bt, embedding, _layers(calls, network.layers), hidden_btm)
    return DecoderOnlyTrace(stack, logits_btv, logits_btv.float().softmax(dim=-1))


@torch.no_grad()
def trace_masked(
    network: MaskedLanguageModel,
    ids: Sequence[int],
    places: Sequence[int],
    segments: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
) -> MaskedTrace:
    """Run the network once over a text, and return all intermediate values.

    Args:
        places: indices of the tokens to be predicted.
        segments: for each token, the side of a pair that it belongs to, or None if the text is not
            a pair.
        positions: position of each token; None means 0, 1, 2, ….

    Raises:
        ModelError: as for `trace_decoder_only`.
    """
    ids_bt = _checked(network, ids)
    zeros_bt = torch.zeros_like(ids_bt)
    segment_bt = zeros_bt if segments is None else ids_bt.new_tensor([list(segments)])
    position_bt = ids_bt.new_tensor([list(positions or range(len(ids)))])
    with record_calls(network) as calls:
        hidden_btm = network.encoder(ids_bt, segment_bt, position_bt, zeros_bt)
        logits_nv = network.logits(hidden_btm[0, list(places)])
    head_norm = calls.next(network.head.norm)
    return MaskedTrace(
        stack=_encoder_stack(calls, network.encoder, ids_bt, hidden_btm),
        places=tuple(places),
        inner_nm=head_norm.inputs[0],
        normed_nm=head_norm.output,
        logits_nv=logits_nv,
        probabilities_nv=logits_nv.float().softmax(dim=-1),
    )


def _encoder_stack(
    calls: ModuleCalls, encoder: EncoderOnly, ids_bt: Tensor, hidden_btm: Tensor
) -> TextStackTrace:
    norm = calls.next(encoder.embedding_norm)
    segments = encoder.segments
    embedding = TextEmbeddingTrace(
        tokens_btm=calls.next(encoder.embedding).output,
        positions_tm=calls.next(encoder.positions).output[0],
        segments_btm=None if segments is None else calls.next(segments).output,
        sum_btm=norm.inputs[0],
        normed_btm=None if encoder.config.pre_norm else norm.output,
    )
    return StackTrace(ids_bt, embedding, _layers(calls, encoder.layers), hidden_btm)


def _layers(calls: ModuleCalls, layers: Iterable[nn.Module]) -> tuple[EncoderLayerTrace, ...]:
    return tuple(layer_trace(calls, layer) for layer in layers)


def _checked(network: nn.Module, ids: Sequence[int]) -> Tensor:
    """Return the ids as a batch of one text, on the device of the network's weights."""
    require_evaluation(network)
    if not ids:
        raise ModelError("The text has no tokens, but at least 1 is needed. Begin it with BOS.")
    return torch.tensor([list(ids)], device=next(network.parameters()).device)
