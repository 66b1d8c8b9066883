"""Self-attention of a decoder whose heads may share keys and values (Ainslie et al. 2023).

    x ──Linear──▶ queries of h heads, keys and values of g ──rotate──▶ attention() ──Linear──▶ out

Each of g heads of keys and values serves h / g heads of queries. With g = h it is multi-head
attention (Vaswani et al. 2017, §3.2.2), with g = 1 multi-query attention (Shazeer 2019). A cache
holds g heads. Queries, keys and values come from one fused matrix.

Shape suffixes: b batch, h heads of queries, g heads of keys and values, t query length, s key
length, d width of one head, m model width.
"""

import torch
from torch import Tensor, nn

from model.attention import Mask, ScaledDotProductAttention, apart
from model.config import AttentionBackend
from model.decoder_only_config import DecoderOnlyConfig
from model.linear import Linear
from model.rotary import Rotation, rotate
from model.text_cache import TextCache


class GroupedQueryAttention(nn.Module):
    """Every position looks at itself and at what came before it."""

    def __init__(self, config: DecoderOnlyConfig, backend: AttentionBackend | None = None) -> None:
        super().__init__()
        self.heads = config.heads
        self.groups = config.groups
        self.head_width = config.head_width
        self.query_key_value = Linear(
            config.width, (self.heads + 2 * self.groups) * self.head_width, config.bias
        )
        self.attention = ScaledDotProductAttention(config.attention_dropout, backend)
        self.output = Linear(config.width, config.width, config.bias)

    def forward(
        self,
        x_btm: Tensor,
        mask: Mask | None = None,
        rotation: Rotation | None = None,
        cache: TextCache | None = None,
        places_b: Tensor | None = None,
    ) -> Tensor:
        """Returns (b, t, m).

        Args:
            mask: None: attention is causal within each row. A `PackedMask`: causal within each
                sentence. A tensor hides all that a query may not see, what comes after it too.
            rotation: of the positions of x; None: there are none to rotate by.
            cache: stores keys and values of x.
            places_b: None: x are the first tokens of the texts in the cache. Else x (b, 1, m) is a
                token more of each, which has this place, and sees what is in the cache.
        """
        query_bhtd, keys_bgsd, values_bgsd = self._project(x_btm, rotation)
        if cache is not None:
            newest_2bgtd = torch.stack([keys_bgsd, values_bgsd])
            if places_b is None:
                cache.begin(newest_2bgtd)
            else:
                keys_bgsd, values_bgsd = cache.append(newest_2bgtd, places_b)
        mixed_bhtd: Tensor = self.attention(
            apart(query_bhtd),
            self._for_every_query(keys_bgsd),
            self._for_every_query(values_bgsd),
            mask,
            causal=not isinstance(mask, Tensor),
        )
        mixed_btm: Tensor = self.output(mixed_bhtd.transpose(1, 2).flatten(2))
        return mixed_btm

    def _project(self, x_btm: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (b, h, t, d), keys and values (b, g, t, d), rotated."""
        heads_btnd = self.query_key_value(x_btm).unflatten(2, (-1, self.head_width))
        if rotation is None and self.groups == self.heads:  # one copy instead of three
            query_bhtd, keys_bhtd, values_bhtd = apart(
                heads_btnd.unflatten(2, (3, self.heads)).permute(2, 0, 3, 1, 4)
            ).unbind(0)
            return query_bhtd, keys_bhtd, values_bhtd
        turned, values_btgd = heads_btnd.split([self.heads + self.groups, self.groups], dim=2)
        if rotation is not None:
            turned = rotate(turned, rotation)
        query_bthd, keys_btgd = turned.split([self.heads, self.groups], dim=2)
        return query_bthd.transpose(1, 2), keys_btgd.transpose(1, 2), values_btgd.transpose(1, 2)

    def _for_every_query(self, heads_bgsd: Tensor) -> Tensor:
        """Repeats each head of keys or values for its group of queries, (b, h, s, d)."""
        if self.groups == self.heads:
            return apart(heads_bgsd)
        return heads_bgsd.repeat_interleave(self.heads // self.groups, dim=1)
