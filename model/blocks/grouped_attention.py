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

from model.blocks.attention import Mask, ScaledDotProductAttention
from model.blocks.heads import for_every_query, split_heads
from model.blocks.linear import Linear
from model.blocks.rotary import Rotation
from model.blocks.text_cache import TextCache
from model.config.decoder_only import DecoderOnlyConfig
from model.config.transformer import AttentionBackend


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
        query_bhtd, keys_bgsd, values_bgsd = split_heads(
            self.query_key_value(x_btm), self.heads, self.groups, self.head_width, rotation
        )
        if cache is not None:
            newest_2bgtd = torch.stack([keys_bgsd, values_bgsd])
            if places_b is None:
                cache.begin(newest_2bgtd)
            else:
                keys_bgsd, values_bgsd = cache.append(newest_2bgtd, places_b)
        mixed_bhtd: Tensor = self.attention(
            query_bhtd,
            for_every_query(keys_bgsd, self.heads),
            for_every_query(values_bgsd, self.heads),
            mask,
            not isinstance(mask, Tensor),  # causal; by place, so that a hook sees it
        )
        mixed_btm: Tensor = self.output(mixed_bhtd.transpose(1, 2).flatten(2))
        return mixed_btm
