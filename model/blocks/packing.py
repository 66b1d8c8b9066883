"""Packing: consecutive sentences in a single row, so that nothing is computed for padding.

    real (b, t), for each side ─▶ Packing: start of each sentence, origin of each token
    ids (b, t)                 ─▶ ids (1, n), which the layers take as a batch of one row

`real` is true at tokens and false at padding, which is at the *end* of each row. Batches of
sentence pairs have two sides, source and target. In attention, `PackedMask` replaces the mask of a
padded batch, because a mask for a row of n tokens would have n · n elements.

A row may hold several consecutive parts of documents, which then count as sentences. They are
numbered within their row: part (b, t) is 0, 0, 0, 1, 1, -1 for two parts and one padding token.

Shape suffixes: b rows, t padded length, n real tokens of all rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Packing(NamedTuple):
    """Map from the tokens of a padded batch to a row without padding.

    Attributes:
        max_seqlen: tokens of the longest sentence, as a number on the host.
        cu_seqlens: int32 (sentences + 1,): the index of each sentence's first token in the row,
            followed by n.
        places_n: index of each token in the flattened batch of b · t tokens.
        positions_n: each token's position in its sentence, from 0.
    """

    max_seqlen: int
    cu_seqlens: Tensor
    places_n: Tensor
    positions_n: Tensor

    @property
    def sentences(self) -> int:
        """Number of sentences, known on the host."""
        return len(self.cu_seqlens) - 1

    def positions(self, ids_bt: Tensor) -> Tensor:
        """Return each token's position in its sentence, (b, t); 0 at padding."""
        zeros = ids_bt.new_zeros(ids_bt.numel())
        return zeros.scatter_(0, self.places_n, self.positions_n).view(ids_bt.shape)

    def twice(self, ids_bt: Tensor) -> "Packing":
        """Return the packing of a batch whose rows are followed by a copy of them."""
        starts = self.cu_seqlens
        return Packing(
            self.max_seqlen,
            torch.cat([starts, starts[1:] + len(self.places_n)]),
            torch.cat([self.places_n, self.places_n + ids_bt.numel()]),
            torch.cat([self.positions_n, self.positions_n]),
        )

    def to(self, device: torch.device) -> "Packing":
        """Return the packing on a device."""
        return Packing(self.max_seqlen, *(moved(part, device) for part in self[1:]))

    def pack(self, ids_bt: Tensor) -> Tensor:
        """Return the ids of the real tokens in a row, (1, n)."""
        return ids_bt.flatten().index_select(0, self.places_n).unsqueeze(0)


class PackedMask(NamedTuple):
    """Replacement for a mask: a query sees only the keys of the same sentence."""

    queries: Packing
    keys: Packing


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device, without waiting for a GPU."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def packings(*real: Tensor) -> tuple[Packing, ...]:
    """Return the packing of each side of a batch.

    Args:
        real: boolean (b, t), one for each side: true at tokens, false at the padding after them.
    """
    lengths_b = [side.sum(dim=1) for side in real]
    # The only device synchronisation of a packed forward pass, for all sides together.
    on_host = torch.stack(lengths_b).tolist()
    return tuple(
        _packing(lengths, on_host[number], real[number].shape[1])
        for number, lengths in enumerate(lengths_b)
    )


def part_positions(part_bt: Tensor) -> Tensor:
    """Return each token's position in its part, from 0; 0 at padding."""
    place_t = torch.arange(part_bt.shape[1], device=part_bt.device)
    begins_bt = F.pad(part_bt.diff(dim=1) != 0, (1, 0), value=True)
    begin_bt = (place_t * begins_bt).cummax(dim=1).values
    return (place_t - begin_bt).masked_fill_(part_bt < 0, 0)


def packing_of_parts(part_bt: Tensor) -> Packing:
    """Return the packing of a batch whose sentences are the parts of its rows.

    Args:
        part_bt: number of each token's part in its row, from 0; -1 at the padding at the end.
    """
    real_bt, position_bt = part_bt >= 0, part_positions(part_bt)
    parts = (real_bt & (position_bt == 0)).sum()
    longest = position_bt.max() + 1
    lengths_b = real_bt.sum(dim=1)
    # The only device synchronisation of a packed forward pass.
    *on_host, count, max_seqlen = torch.cat([lengths_b, torch.stack([parts, longest])]).tolist()
    rows = _packing(lengths_b, on_host, part_bt.shape[1])
    positions_n = position_bt.flatten().index_select(0, rows.places_n)
    ordinal_n = (positions_n == 0).cumsum(0) - 1  # number of each token's part in the batch
    first_of_each = torch.arange(count + 1, device=part_bt.device)
    return Packing(
        max_seqlen=max_seqlen,
        cu_seqlens=torch.searchsorted(ordinal_n, first_of_each, out_int32=True),
        places_n=rows.places_n,
        positions_n=positions_n,
    )


def _packing(lengths_b: Tensor, on_host: list[int], width: int) -> Packing:
    n = sum(on_host)
    cu_seqlens = F.pad(lengths_b.cumsum(0), (1, 0))
    sentence_n = torch.repeat_interleave(lengths_b, output_size=n)  # no device synchronisation
    positions_n = torch.arange(n, device=cu_seqlens.device) - cu_seqlens.index_select(0, sentence_n)
    return Packing(
        max_seqlen=max(on_host),
        cu_seqlens=cu_seqlens.to(torch.int32),
        places_n=sentence_n * width + positions_n,
        positions_n=positions_n,
    )
