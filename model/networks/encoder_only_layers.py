"""The layer of an encoder-only network.

    post  x ─▶ norm(x + dropout(attention(x))) ─▶ norm(x + dropout(feed-forward(x)))   BERT
    pre   x ─▶ x + dropout(attention(norm(x))) ─▶ x + dropout(feed-forward(norm(x)))

Shape suffixes as in `model.blocks.attention`.
"""

from torch import Tensor, nn

from model.blocks.attention import Mask, SelfAttention
from model.blocks.feed_forward import FeedForward
from model.blocks.layers import ResidualSum
from model.blocks.norm import norm_of
from model.config.encoder_only import EncoderOnlyConfig
from model.config.transformer import AttentionBackend


class EncoderOnlyLayer(nn.Module):
    """Self-attention in both directions and feed-forward."""

    def __init__(self, config: EncoderOnlyConfig, backend: AttentionBackend | None = None) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.self_attention = SelfAttention(config, backend)
        self.self_attention_norm = norm_of(config)
        self.feed_forward = FeedForward(
            config.width, config.inner_width, config.activation, bias=True
        )
        self.feed_forward_norm = norm_of(config)
        self.add = ResidualSum(config.dropout)

    def forward(self, x_btm: Tensor, mask: Mask | None = None) -> Tensor:
        """Returns (b, t, m); a mask hides padding and other parts, or tells packed ones apart."""
        y_btm: Tensor
        if self.pre_norm:
            attended_btm = self.self_attention(self.self_attention_norm(x_btm), mask)
            x_btm = self.add(x_btm, attended_btm)
            y_btm = self.add(x_btm, self.feed_forward(self.feed_forward_norm(x_btm)))
        else:
            x_btm = self.self_attention_norm(self.add(x_btm, self.self_attention(x_btm, mask)))
            y_btm = self.feed_forward_norm(self.add(x_btm, self.feed_forward(x_btm)))
        return y_btm
