"""Recorder of modules' inputs and outputs during a forward pass, by forward hooks.

Recorded values are computed by the network's own code. Only scores and weights are recomputed from
the recorded queries and keys, because a fused kernel never stores them. The recomputation uses the
functions of `AttentionBackend.MATMUL` (`attention_scores`, `attention_weights`).
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from model.blocks.attention import attention_scores, attention_weights
from model.blocks.packing import PackedMask
from model.errors import ModelError
from model.inspection.layer_traces import (
    AttentionTrace,
    EncoderLayerTrace,
    FeedForwardTrace,
    ResidualTrace,
)


class _Call(NamedTuple):
    """One call of a module."""

    inputs: tuple[Any, ...]
    output: Tensor


class ModuleCalls:
    """Recorded calls of each module, as queues in the order of the calls."""

    def __init__(self) -> None:
        self._of: dict[nn.Module, deque[_Call]] = {}

    def note(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._of.setdefault(module, deque()).append(_Call(inputs, output))

    def next(self, module: nn.Module) -> _Call:
        return self._of[module].popleft()


@contextmanager
def record_calls(model: nn.Module) -> Iterator[ModuleCalls]:
    """Record the calls of all modules of the model."""
    calls = ModuleCalls()
    hooks = [module.register_forward_hook(calls.note) for module in model.modules()]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def require_evaluation(network: nn.Module) -> None:
    """Raise ModelError if the network is in training mode."""
    if network.training:
        raise ModelError(
            "The model is in training mode, in which dropout changes every pass. Call "
            "model.eval() before trace."
        )


def layer_trace(calls: ModuleCalls, layer: Any) -> EncoderLayerTrace:
    """Return the trace of the next call of a layer without cross-attention."""
    return EncoderLayerTrace(
        self_attention=attention_trace(calls, layer.self_attention),
        self_attention_residual=residual_trace(calls, layer, layer.self_attention_norm),
        feed_forward=feed_forward_trace(calls, layer),
        feed_forward_residual=residual_trace(calls, layer, layer.feed_forward_norm),
    )


def attention_trace(calls: ModuleCalls, module: Any) -> AttentionTrace:
    """Return the trace of the next call of a multi-head attention."""
    core = calls.next(module.attention)
    queries_bhtd, keys_bhsd, values_bhsd, mask, causal = core.inputs
    if isinstance(mask, PackedMask):
        assert mask.queries.max_seqlen == queries_bhtd.shape[2], "several texts in a row"
        mask = None
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


def feed_forward_trace(calls: ModuleCalls, layer: Any) -> FeedForwardTrace:
    """Return the trace of the next call of a layer's feed-forward network."""
    outer = calls.next(layer.feed_forward.outer)
    return FeedForwardTrace(inner_btf=outer.inputs[0], output_btm=outer.output)


def residual_trace(calls: ModuleCalls, layer: Any, norm: nn.Module) -> ResidualTrace:
    """Return the trace of the next residual connection whose sub-layer has this norm."""
    added = calls.next(layer.add)
    normed_btm = calls.next(norm).output
    return ResidualTrace(
        input_btm=added.inputs[0],
        sum_btm=added.output,
        normed_btm=normed_btm,
        output_btm=added.output if layer.pre_norm else normed_btm,
    )
