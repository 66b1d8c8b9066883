"""Cross-entropy with a z-loss (Chowdhery et al. 2022, "PaLM", §5), a loss that a recipe may name.

    extensions: [z_loss]
    trainer: {loss: z_loss, loss_options: {weight: 0.0001}}

With Z the sum of the exponentials of a token's logits, the loss of each target is

    -log p(target) + weight · (log Z)²

which keeps log Z, and with it the logits, near 0. The record also gets the mean of (log Z)².
"""

from typing import TYPE_CHECKING

from foundation.section import identity
from trainer.registries.losses import LOSSES, LossKind

if TYPE_CHECKING:
    from model.losses.loss import Loss


class ZLoss(LossKind):
    """Cross-entropy that keeps logits small."""

    weight: float = identity(1e-4, "Of (log Z)², beside the cross-entropy.", gt=0)

    def build(self) -> "Loss":
        from collections import namedtuple

        import torch
        from torch.nn import functional as F

        sums = namedtuple("Sums", "loss nll z_squared")
        weight = self.weight

        def z_loss(hidden_nd: torch.Tensor, weight_vd: torch.Tensor, target_n: torch.Tensor):
            logits_nv = (hidden_nd @ weight_vd.T).float()
            log_z_n = logits_nv.logsumexp(dim=1)
            nll = F.cross_entropy(logits_nv, target_n, reduction="sum")
            z_squared = (log_z_n**2).sum()
            return sums(nll + weight * z_squared, nll.detach(), z_squared.detach())

        return z_loss


LOSSES.register("z_loss", ZLoss)
