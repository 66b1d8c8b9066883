"""The position-wise feed-forward network (Vaswani et al. 2017, §3.3)."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from model.config import ModelConfig
from model.linear import Linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


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


class ActivatedFeedForward(nn.Module):
    """The same with another function in the place of max(0, x), and biases or none.

    GELU(x) = x · Φ(x) (Hendrycks & Gimpel 2016, §2); gelu_tanh is the approximation given there.
    """

    def __init__(self, width: int, inner_width: int, activation: str, bias: bool) -> None:
        super().__init__()
        self.inner = Linear(width, inner_width, bias)
        self.outer = Linear(inner_width, width, bias)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x_btm: Tensor) -> Tensor:
        """Returns (b, t, width)."""
        y: Tensor = self.outer(self.activation(self.inner(x_btm)))
        return y
