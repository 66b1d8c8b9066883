"""The position-wise feed-forward network (Vaswani et al. 2017, §3.3)."""

from torch import Tensor, nn
from torch.nn import functional as F

from model.config import ModelConfig
from model.linear import Linear


class FeedForward(nn.Module):
    """FFN(x) = max(0, xW₁ + b₁)W₂ + b₂, at every position alike."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.inner = Linear(config.width, config.feed_forward_width)
        self.outer = Linear(config.feed_forward_width, config.width)

    def forward(self, x_btm: Tensor) -> Tensor:
        """Returns (b, t, width)."""
        y: Tensor = self.outer(F.relu(self.inner(x_btm)))
        return y
