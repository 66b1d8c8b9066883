"""Cache for incremental decoding: keys and values of the tokens so far.

    beam search   x (b, k, m): the newest token of each hypothesis, all at the same position
    texts         x (b, t, m): prompts, padded at the end; then x (b, 1, m): a token of each text

The hypotheses of a sentence (its beam) are on the axis that holds positions in training. Keys and
values are written once, at (position, slot), and never move when hypotheses are reordered in the
beam. A mask built from each hypothesis' ancestry selects its past from all slots. The rows of
finished sentences are removed; the last rows then move into the gaps.

Texts differ in length, so each newest token has its own position. The padding of a shorter prompt
stays, hidden by the mask, until tokens overwrite it. Finished texts are removed.

Capacity grows by several positions at a time, and by more positions for longer pasts. Attention
also receives the empty positions, as zeros that the mask hides. So matrix products have few
different shapes (see `model.blocks.linear`), and read the stored tensors without a copy.

Shape suffixes: b sentences or texts, g heads of keys and values, t tokens of the longest prompt, k
hypotheses of each sentence (slots of the beam), n tokens of a row stored at once, p positions, d
width of one head.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def round_up_capacity(count: int) -> int:
    """Round up to 1, 2, …, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, …, by at most a quarter."""
    step = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step


def capacity_for(positions: int) -> int:
    """Return the capacity for this number of positions: 4, 8, …, 32, 40, 48, …."""
    return -(-round_up_capacity(positions) // 4) * 4


def compact_rows(tensor: Tensor, gaps: Tensor, movers: Tensor, kept: int, dim: int = 0) -> Tensor:
    """Drop rows: copy rows `movers` over rows `gaps`, then keep the first `kept`."""
    tensor.index_copy_(dim, gaps, tensor.index_select(dim, movers))
    return tensor.narrow(dim, 0, kept)


class KeyValueCache:
    """Keys and values of one layer's self-attention, (2, b, g, p, k, d), updated in place.

    Attributes:
        length: number of stored positions of every hypothesis.
    """

    def __init__(self, slots: int | None = None) -> None:
        """Create an empty cache.

        Args:
            slots: hypotheses of each sentence, or None if rows are texts that begin with prompts.
        """
        self.length = 0
        self._slots = slots
        self._places_b: Tensor | None = None
        self._stored_2bgpkd: Tensor | None = None

    def append(self, keys_bgnd: Tensor, values_bgnd: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of the prompts or of one decoding step.

        In beam search, a step stores one position of the hypotheses 0…n-1. With texts, it stores
        one token of each text.

        Returns:
            The keys and values to attend to. For prompts, these are the given keys and values;
            otherwise all stored ones, (b, g, p · k, d), where p counts allocated positions, and the
            slots of a position are adjacent.
        """
        newest_2bgnd = torch.stack([keys_bgnd, values_bgnd])
        b, g, n, d = keys_bgnd.shape
        if self._stored_2bgpkd is None:
            if self._slots is None:
                self._stored_2bgpkd = newest_2bgnd.unsqueeze(4)
                return keys_bgnd, values_bgnd
            self._stored_2bgpkd = keys_bgnd.new_zeros(2, b, g, 0, self._slots, d)
        if self._slots is None:
            assert self._places_b is not None, "a text has one prompt"
            rows_b = torch.arange(b, device=keys_bgnd.device)
            # If indices apply to axes that are not adjacent, torch puts the indexed axis first.
            self._stored_2bgpkd[:, rows_b, :, self._places_b] = newest_2bgnd.transpose(0, 1)
        else:
            self._grow(self.length + 1)
            self._stored_2bgpkd[:, :, :, self.length, :n] = newest_2bgnd
            self.length += 1
        keys_bgpkd, values_bgpkd = self._stored_2bgpkd.unbind(0)
        return keys_bgpkd.flatten(2, 3), values_bgpkd.flatten(2, 3)

    def set_next_positions(self, places_b: Tensor, longest: int) -> int:
        """Set the position of each text's next token, and return the number of allocated positions.

        Args:
            longest: number of tokens of the longest text, including its next token, as an int on
                the host.
        """
        self._places_b = places_b
        return self._grow(longest)

    def compact_rows(self, gaps: Tensor, movers: Tensor, kept: int) -> None:
        """Drop the rows of finished sentences; see the function `compact_rows`."""
        assert self._stored_2bgpkd is not None
        self._stored_2bgpkd = compact_rows(self._stored_2bgpkd, gaps, movers, kept, dim=1)

    def keep(self, rows: Tensor) -> None:
        """Keep only the texts in these rows."""
        assert self._stored_2bgpkd is not None
        self._stored_2bgpkd = self._stored_2bgpkd.index_select(1, rows)

    def _grow(self, positions: int) -> int:
        stored_2bgpkd = self._stored_2bgpkd
        assert stored_2bgpkd is not None, "a text begins with its prompt"
        room = stored_2bgpkd.shape[3]
        if room >= positions:
            return room
        more = capacity_for(positions) - room
        self._stored_2bgpkd = F.pad(stored_2bgpkd, (0, 0, 0, 0, 0, more))
        return room + more
