"""The layer of a decoder-only network, pre-norm (Xiong et al. 2020; Radford et al. 2019, §2.3).

    x ─▶ x + dropout(attention(norm(x))) ─▶ x + dropout(feed-forward(norm(x)))

Shape suffixes as in `model.blocks.grouped_attention`.
"""

from torch import Tensor, nn

from model.blocks.attention import Mask
from model.blocks.feed_forward import feed_forward_named
from model.blocks.grouped_attention import GroupedQueryAttention
from model.blocks.layers import ResidualSum
from model.blocks.norm import norm_of
from model.blocks.rotary import Rotation
from model.blocks.text_cache import TextCache
from model.config.decoder_only import DecoderOnlyConfig
from model.config.transformer import AttentionBackend


class DecoderOnlyLayer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config: DecoderOnlyConfig, backend: AttentionBackend | None = None) -> None:
        super().__init__()
        self.self_attention_norm = norm_of(config)
        self.self_attention = GroupedQueryAttention(config, backend)
        self.feed_forward_norm = norm_of(config)
        self.feed_forward = feed_forward_named(
            config.activation, config.width, config.inner_width, config.bias
        )
        self.add = ResidualSum(config.dropout)

    def forward(
        self,
        x_btm: Tensor,
        mask: Mask | None = None,
        rotation: Rotation | None = None,
        cache: TextCache | None = None,
        places_b: Tensor | None = None,
    ) -> Tensor:
        """Returns (b, t, m); arguments are those of `GroupedQueryAttention`."""
        normed_btm = self.self_attention_norm(x_btm)
        attended_btm = self.self_attention(normed_btm, mask, rotation, cache, places_b)
        x_btm = self.add(x_btm, attended_btm)
        y_btm: Tensor = self.add(x_btm, self.feed_forward(self.feed_forward_norm(x_btm)))
        return y_btm
