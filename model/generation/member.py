"""One network of a search, with the state of its decoder for the unfinished sentences.

A search uses one network, or averages the probabilities of several. Each network has its own
sources, memories and cache. The hypotheses' tokens and ancestry are the same for all networks.

Memories, their mask and caches may keep spare rows after the rows in use; see `search_state`.

Shape suffixes: b unfinished sentences, k hypotheses of each, s source length, v target vocabulary.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from model.blocks.attention import KeyValue
from model.blocks.cache import KeyValueCache, compact_rows, round_up_capacity
from model.networks.transformer import Transformer


class Member:
    """One network of a search."""

    def __init__(self, model: Transformer, source_bs: Tensor, k: int) -> None:
        """Encode the sources.

        Args:
            source_bs: sources, padded at the end.
            k: hypotheses of a sentence.
        """
        assert not model.training, "call model.eval() before decoding: dropout is on"
        self.model = model
        self._memories = model.decoder.project_memory(model.encode(source_bs))
        self._memory_mask = model.source_mask(source_bs)
        self._caches = [KeyValueCache(k) for _ in self._memories]

    def step(self, tokens_bk: Tensor, ancestry_mask: Tensor) -> Tensor:
        """Return the hidden states (b, k, d) after the newest tokens."""
        b = len(tokens_bk)
        # Spare rows decode arbitrary tokens, but each of their queries must attend to at least one
        # key.
        spare = len(self._memory_mask) - b
        hidden_bkd = self.model.decode_step(
            F.pad(tokens_bk, (0, 0, 0, spare)),
            self._memories,
            self._memory_mask,
            F.pad(ancestry_mask, (0, 0, 0, 0, 0, spare)).unsqueeze(1),
            self._caches,
        )
        return hidden_bkd[:b]

    def compact_rows(self, gaps: Tensor, movers: Tensor, kept: int) -> None:
        """Remove finished sentences; see `model.blocks.cache.compact_rows`."""
        decoded = min(round_up_capacity(kept), len(self._memory_mask))
        self._memory_mask = compact_rows(self._memory_mask, gaps, movers, decoded)
        self._memories = [
            KeyValue(*(compact_rows(part, gaps, movers, decoded) for part in memory))
            for memory in self._memories
        ]
        for cache in self._caches:
            cache.compact_rows(gaps, movers, decoded)


def joint_logits(members: Sequence[Member], hidden: Sequence[Tensor]) -> Tensor:
    """Return logits (b, k, v) of the mean of the members' probabilities.

    With one member, the result is the logits of that member. With several members, the result is
    the logarithms of the mean probabilities, in fp32.

    Args:
        hidden: each member's hidden states (b, k, d).
    """
    logits = [member.model.logits(h) for member, h in zip(members, hidden, strict=True)]
    if len(logits) == 1:
        return logits[0]
    log_probabilities = [l_bkv.log_softmax(dim=-1, dtype=torch.float32) for l_bkv in logits]
    return torch.stack(log_probabilities).logsumexp(dim=0) - math.log(len(logits))
