"""Keys and values of texts that grow by a token at a time, each from a length of its own.

    prompts, padded at the end ─▶ begin ─▶ [ append a token of each text ─▶ keep some texts ] …

The newest token of a text is stored at its own place, over padding or what was empty. What lies
behind it, in a batch of unequal lengths, a mask has to hide. Room is made for several tokens at a
time (`model.blocks.cache.room_for` tells why).

Shape suffixes as in `model.blocks.grouped_attention`, and p places.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.blocks.cache import room_for


class TextCache:
    """Keys and values of one layer, (2, b, g, p, d), in place."""

    def __init__(self) -> None:
        self._stored_2bgpd: Tensor | None = None

    def begin(self, keys_and_values_2bgtd: Tensor) -> None:
        """Stores the first t tokens of each text, padding included."""
        assert self._stored_2bgpd is None, "a cache begins once"
        self._stored_2bgpd = keys_and_values_2bgtd

    def make_room(self, places: int) -> int:
        """Makes room for this many tokens of each text, and returns how many there is room for."""
        stored = self._stored_2bgpd
        assert stored is not None, "a cache begins before it grows"
        if stored.shape[3] < places:
            more = room_for(places) - stored.shape[3]
            stored = self._stored_2bgpd = F.pad(stored, (0, 0, 0, more))
        return stored.shape[3]

    def append(self, keys_and_values_2bg1d: Tensor, places_b: Tensor) -> tuple[Tensor, Tensor]:
        """Stores a token of each text at its place, for which `make_room` has made room.

        Returns:
            All keys and all values, both (b, g, p, d), those behind the newest ones included.
        """
        stored = self._stored_2bgpd
        assert stored is not None, "a cache begins before it grows"
        rows_b = torch.arange(len(places_b), device=places_b.device)
        # Where numbers index some axes and colons lie between, torch puts the numbered axis first.
        stored[:, rows_b, :, places_b] = keys_and_values_2bg1d.squeeze(3).transpose(0, 1)
        keys_bgpd, values_bgpd = stored.unbind(0)
        return keys_bgpd, values_bgpd

    def keep(self, rows: Tensor) -> None:
        """Drops all texts but these rows."""
        assert self._stored_2bgpd is not None
        self._stored_2bgpd = self._stored_2bgpd.index_select(1, rows)
