"""The memory of incremental decoding: keys and values of the pieces decoded so far.

A decoding step feeds the newest piece of every hypothesis. The hypotheses of a sentence (its beam)
lie along the axis that holds positions in training: x is (b, k, m), b sentences with k hypotheses
each. Keys and values are written once, at (position, slot), and never move when hypotheses change
places in the beam: a mask built from each hypothesis' ancestry picks its own past out of all
slots. Sentences that are finished leave; the last ones then move into the gaps.

Room is made for some positions at a time, more the longer the past is. Those yet to come are part
of what attention is given, as zeros that the mask hides: so products have few different shapes
(`model.linear` tells why), and take what is stored without a copy.

Shape suffixes as in `model.attention`, and k hypotheses (slots of the beam), p positions.
"""

import torch
from torch import Tensor


def roomy(count: int) -> int:
    """The next of 1, 2, …, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, …; at most a quarter more."""
    step = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step


def room_for(positions: int) -> int:
    """How many positions there is room for with so many stored: 4, 8, …, 32, 40, 48, …."""
    return -(-roomy(positions) // 4) * 4


def fill_gaps(tensor: Tensor, gaps: Tensor, movers: Tensor, kept: int) -> Tensor:
    """Drops rows: rows `movers` are written over rows `gaps`, then the first `kept` remain."""
    tensor[gaps] = tensor[movers]
    return tensor[:kept]


class SelfAttentionCache:
    """Keys and values of one decoder layer's self-attention, (b, h, p, k, d), in place."""

    def __init__(self, slots: int) -> None:
        """Room for as many hypotheses as there are slots."""
        self.slots = slots
        self.length = 0
        self._keys_bhpkd: Tensor | None = None
        self._values_bhpkd: Tensor | None = None

    def append(self, keys_bhkd: Tensor, values_bhkd: Tensor) -> tuple[Tensor, Tensor]:
        """Stores one position of hypotheses 0…k-1; returns all, (b, h, p · slots, d).

        Positions are outermost; p is what there is room for with this one.
        """
        self._keys_bhpkd = self._with_room(self._keys_bhpkd, keys_bhkd)
        self._values_bhpkd = self._with_room(self._values_bhpkd, values_bhkd)
        k = keys_bhkd.shape[2]
        self._keys_bhpkd[:, :, self.length, :k] = keys_bhkd
        self._values_bhpkd[:, :, self.length, :k] = values_bhkd
        self.length += 1
        return self._keys_bhpkd.flatten(2, 3), self._values_bhpkd.flatten(2, 3)

    def fill_gaps(self, gaps: Tensor, movers: Tensor, kept: int) -> None:
        """Drops the finished sentences' rows."""
        assert self._keys_bhpkd is not None
        assert self._values_bhpkd is not None
        self._keys_bhpkd = fill_gaps(self._keys_bhpkd, gaps, movers, kept)
        self._values_bhpkd = fill_gaps(self._values_bhpkd, gaps, movers, kept)

    def _with_room(self, stored: Tensor | None, new_bhkd: Tensor) -> Tensor:
        b, h, _, d = new_bhkd.shape
        if stored is not None and self.length < stored.shape[2]:
            return stored
        more = room_for(self.length + 1) - self.length
        room_bhpkd = new_bhkd.new_zeros(b, h, more, self.slots, d)
        return room_bhpkd if stored is None else torch.cat([stored, room_bhpkd], dim=2)
