"""The memory of incremental decoding: keys and values of the pieces decoded so far.

A decoding step feeds the newest piece of every hypothesis. The hypotheses of a sentence (its beam)
lie along the axis that holds positions in training: x is (b, k, m), b sentences with k hypotheses
each. Keys and values are written once, at (position, slot), and never move when hypotheses change
places in the beam: a mask built from each hypothesis' ancestry picks its own past out of all
slots. Sentences that are finished leave; the last ones then move into the gaps.

Shape suffixes as in `model.attention`, and k hypotheses (slots of the beam), p positions.
"""

import torch
from torch import Tensor

FIRST_CAPACITY = 16


def fill_gaps(tensor: Tensor, gaps: Tensor, movers: Tensor, kept: int) -> Tensor:
    """Drops rows: rows `movers` are written over rows `gaps`, then the first `kept` remain."""
    tensor[gaps] = tensor[movers]
    return tensor[:kept]


class SelfAttentionCache:
    """Keys and values of one decoder layer's self-attention, (b, h, p, k, d), in place."""

    def __init__(self) -> None:
        self.length = 0
        self._keys_bhpkd: Tensor | None = None
        self._values_bhpkd: Tensor | None = None

    def append(self, keys_bhkd: Tensor, values_bhkd: Tensor) -> tuple[Tensor, Tensor]:
        """Stores one position; returns all so far, (b, h, p · k, d), positions outermost."""
        self._keys_bhpkd = self._with_room(self._keys_bhpkd, keys_bhkd)
        self._values_bhpkd = self._with_room(self._values_bhpkd, values_bhkd)
        self._keys_bhpkd[:, :, self.length] = keys_bhkd
        self._values_bhpkd[:, :, self.length] = values_bhkd
        self.length += 1
        past = slice(0, self.length)
        return (
            self._keys_bhpkd[:, :, past].flatten(2, 3),
            self._values_bhpkd[:, :, past].flatten(2, 3),
        )

    def fill_gaps(self, gaps: Tensor, movers: Tensor, kept: int) -> None:
        """Drops the finished sentences' rows."""
        assert self._keys_bhpkd is not None
        assert self._values_bhpkd is not None
        past = slice(0, self.length)
        for stored in (self._keys_bhpkd, self._values_bhpkd):
            fill_gaps(stored[:, :, past], gaps, movers, kept)
        self._keys_bhpkd = self._keys_bhpkd[:kept]
        self._values_bhpkd = self._values_bhpkd[:kept]

    def _with_room(self, stored: Tensor | None, new_bhkd: Tensor) -> Tensor:
        b, h, k, d = new_bhkd.shape
        if stored is None:
            return new_bhkd.new_empty(b, h, FIRST_CAPACITY, k, d)
        if self.length < stored.shape[2]:
            return stored
        return torch.cat([stored, torch.empty_like(stored)], dim=2)  # twice the room
