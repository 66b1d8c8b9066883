"""The gated feed-forward network SwiGLU (Shazeer 2020, eq. 6)."""

from torch import Tensor, nn
from torch.nn import functional as F

from model.blocks.linear import Linear


class SwiGLU(nn.Module):
    """Feed-forward network (silu(xW) ⊙ xV)W₂ at each position; W and V are stored as one matrix."""

    def __init__(self, width: int, inner_width: int, bias: bool) -> None:
        super().__init__()
        self.gate_and_inner = Linear(width, 2 * inner_width, bias)
        self.outer = Linear(inner_width, width, bias)

    def forward(self, x_btm: Tensor) -> Tensor:
        """Return the output (b, t, width)."""
        gate_bti, inner_bti = self.gate_and_inner(x_btm).chunk(2, dim=-1)
        y_btm: Tensor = self.outer(F.silu(gate_bti) * inner_bti)
        return y_btm
