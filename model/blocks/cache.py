"""The memory of incremental decoding: keys and values of the tokens decoded so far.

A decoding step feeds the newest token of every hypothesis. The hypotheses of a sentence (its beam)
lie along the axis that holds positions in training: x is (b, k, m), b sentences with k hypotheses
each. Keys and values are written once, at (position, slot), and never move when hypotheses change
places in the beam: a mask built from each hypothesis' ancestry picks its own past out of all
slots. Sentences that are finished leave; the last ones then move into the gaps.

Room is made for several positions at a time, for more the longer the past is. Attention is also
given the positions that are still empty, as zeros that the mask hides. So products have few
different shapes (`model.blocks.linear` tells why), and take what is stored without a copy.

Shape suffixes as in `model.blocks.attention`, but h heads of keys and values, and k hypotheses
(slots of the beam), p positions.
"""

import torch
from torch import Tensor


def roomy(count: int) -> int:
    """Rounds up to 1, 2, …, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, …: by a quarter at most."""
    step = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step


def room_for(positions: int) -> int:
    """Positions there is room for when `positions` are stored: 4, 8, …, 32, 40, 48, …."""
    return -(-roomy(positions) // 4) * 4


def fill_gaps(tensor: Tensor, gaps: Tensor, movers: Tensor, kept: int, dim: int = 0) -> Tensor:
    """Drops rows: rows `movers` are written over rows `gaps`, then the first `kept` remain."""
    tensor.index_copy_(dim, gaps, tensor.index_select(dim, movers))
    return tensor.narrow(dim, 0, kept)


class SelfAttentionCache:
    """Keys and values of one decoder layer's self-attention, (2, b, h, p, k, d), in place."""

    def __init__(self, slots: int) -> None:
        """Makes an empty cache for `slots` hypotheses of each sentence."""
        self.slots = slots
        self.length = 0
        self._stored_2bhpkd: Tensor | None = None

    def append(self, keys_bhkd: Tensor, values_bhkd: Tensor) -> tuple[Tensor, Tensor]:
        """Stores one position of hypotheses 0…k-1 and returns all keys and all values.

        Both are (b, h, p · slots, d), positions outermost; p counts the positions there is room for
        once this one is stored.
        """
        self._stored_2bhpkd = stored_2bhpkd = self._with_room(keys_bhkd)
        k = keys_bhkd.shape[2]
        for stored_bhpkd, newest_bhkd in zip(stored_2bhpkd, (keys_bhkd, values_bhkd), strict=True):
            stored_bhpkd[:, :, self.length, :k] = newest_bhkd
        self.length += 1
        keys_bhpkd, values_bhpkd = stored_2bhpkd.unbind(0)
        return keys_bhpkd.flatten(2, 3), values_bhpkd.flatten(2, 3)

    def fill_gaps(self, gaps: Tensor, movers: Tensor, kept: int) -> None:
        """Drops the finished sentences' rows."""
        assert self._stored_2bhpkd is not None
        self._stored_2bhpkd = fill_gaps(self._stored_2bhpkd, gaps, movers, kept, dim=1)

    def _with_room(self, newest_bhkd: Tensor) -> Tensor:
        b, h, _, d = newest_bhkd.shape
        stored = self._stored_2bhpkd
        if stored is not None and self.length < stored.shape[3]:
            return stored
        more = room_for(self.length + 1) - self.length
        room_2bhpkd = newest_bhkd.new_zeros(2, b, h, more, self.slots, d)
        return room_2bhpkd if stored is None else torch.cat([stored, room_2bhpkd], dim=3)
