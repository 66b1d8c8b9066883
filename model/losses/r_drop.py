"""R-Drop: a loss that makes two passes with different dropout agree (Liang et al. 2021).

    hidden states of both ─▶ [ logits of a few tokens ─▶ both distributions ─▶ loss ] … ─▶ sums

Let p and q be the distributions of a token in the two passes. Its loss is half of the paper's
equation 4, so that its magnitude is comparable to the loss of one pass:

    ½ (CE(p) + CE(q)) + α/4 · (KL(p ‖ q) + KL(q ‖ p))

CE is the label-smoothed cross-entropy of `model.losses.loss`. Since p and q each sum to 1, the sum
of the two divergences is Σ (p - q)(z - y). Here z are the logits of p, and y the logits of q. This
sum needs no logarithm of a probability.

The computation follows `model.losses.loss`: it processes one chunk of tokens after another,
computes the gradients directly from the logits, and never allocates the logits of a whole batch.

Shape suffixes: n target tokens of *one* pass, m = 2n of both, d model width, v vocabulary, c tokens
of one chunk, e = 2c of both passes.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.blocks.linear import product
from model.losses.loss import distributions, scaled_gradients, tokens_per_chunk


class RDropSums(NamedTuple):
    """Sums over target tokens, fp32 scalars, in nats.

    Attributes:
        smoothed: training objective.
        nll: plain negative log-likelihood, the mean of both passes, without a gradient.
        divergence: mean of KL(p ‖ q) and KL(q ‖ p), without a gradient.
    """

    smoothed: Tensor
    nll: Tensor
    divergence: Tensor


@dataclass(frozen=True)
class RDrop:
    """The loss `r_drop_sums` with its settings."""

    label_smoothing: float
    weight: float

    def __call__(self, hidden_md: Tensor, weight_vd: Tensor, target_m: Tensor) -> RDropSums:
        return r_drop_sums(hidden_md, weight_vd, target_m, self.label_smoothing, self.weight)


def r_drop_sums(
    hidden_md: Tensor, weight_vd: Tensor, target_m: Tensor, label_smoothing: float, alpha: float
) -> RDropSums:
    """Return the loss sums of two passes, from their concatenated hidden states without padding.

    Args:
        hidden_md: (2n, d); token i of the second pass is row n + i.
        weight_vd: the output matrix.
        target_m: target ids (2n,): the n ids of one pass, twice.
        label_smoothing: ε, as in `model.losses.loss`.
        alpha: the paper's α, which weighs the divergences.
    """
    sums = _ProjectedRDrop.apply(
        hidden_md, weight_vd, target_m, label_smoothing, alpha, torch.is_grad_enabled()
    )
    return RDropSums(*sums)


class _ProjectedRDrop(torch.autograd.Function):
    """Fused loss that computes its gradients in the forward pass; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_md: Tensor,
        weight_vd: Tensor,
        target_m: Tensor,
        label_smoothing: float,
        alpha: float,
        with_gradients: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        weight_grad_vd = torch.zeros_like(weight_vd, dtype=torch.float32)
        hidden_grad_md = torch.empty_like(hidden_md)
        nll = torch.zeros((), dtype=torch.float32, device=hidden_md.device)
        log_sums = torch.zeros_like(nll)  # sum of the log-denominators of the softmaxes
        divergences = torch.zeros_like(nll)  # sum of both directions
        tokens = len(hidden_md) // 2
        chunk_tokens = tokens_per_chunk(hidden_md, weight_vd) // 2
        for start in range(0, tokens, chunk_tokens):
            stop = min(start + chunk_tokens, tokens)
            halves = slice(start, stop), slice(tokens + start, tokens + stop)
            hidden_ed = torch.cat([hidden_md[half] for half in halves])
            right = torch.cat([target_m[half] for half in halves]).unsqueeze(1)
            logits_ev, p_ev, log_sum_e = distributions(hidden_ed, weight_vd)
            log_sums += log_sum_e.sum()
            nll += (log_sum_e - logits_ev.gather(1, right).squeeze(1)).sum()

            p_cv, q_cv = p_ev.chunk(2)
            apart_cv, grad_q_cv = logits_ev.chunk(2)
            apart_cv -= grad_q_cv  # the logits are no longer needed
            by_p_c1, by_q_c1 = (
                torch.mul(each_cv, apart_cv, out=grad_q_cv).sum(dim=1, keepdim=True)
                for each_cv in (p_cv, q_cv)
            )
            divergences += (by_p_c1 - by_q_c1).sum()
            if with_gradients:
                # Compute the sum of two gradients. The gradient of the cross-entropies lacks the
                # part of label smoothing that all entries have in common, which is subtracted after
                # the loop. The gradient of the divergences with respect to z is p - q + p (z - y -
                # Σ p (z - y)). The gradient with respect to y has p and q exchanged, and z and y
                # exchanged. The sum overwrites the logits, and each line is one pass over the
                # logits.
                quarter = alpha / 4
                grad_p_cv = apart_cv.mul_(quarter)
                torch.sub(0.5 + quarter + quarter * by_q_c1, grad_p_cv, out=grad_q_cv)
                grad_p_cv += 0.5 + quarter - quarter * by_p_c1
                grad_p_cv.mul_(p_cv).sub_(q_cv, alpha=quarter)
                grad_q_cv.mul_(q_cv).sub_(p_cv, alpha=quarter)
                grad_ev = logits_ev
                grad_ev.scatter_(1, right, grad_ev.gather(1, right) - (1 - label_smoothing) / 2)
                grad_ev = grad_ev.to(weight_vd.dtype)
                hidden_grad_ed = product(grad_ev, weight_vd.T)
                for half, grad_cd in zip(halves, hidden_grad_ed.chunk(2), strict=True):
                    hidden_grad_md[half] = grad_cd
                weight_grad_vd += product(grad_ev.T, hidden_ed.T)
        hidden_sum_d = hidden_md.sum(dim=0, dtype=torch.float32)
        weight_sum_d = weight_vd.sum(dim=0, dtype=torch.float32)
        share = label_smoothing / len(weight_vd) / 2  # each entry's part of the target distribution
        if with_gradients:
            hidden_grad_md -= (share * weight_sum_d).to(hidden_md.dtype)
            weight_grad_vd -= share * hidden_sum_d
        ctx.save_for_backward(hidden_grad_md, weight_grad_vd)
        nll, divergence = nll / 2, divergences / 2
        ctx.mark_non_differentiable(nll, divergence)
        smoothed = (1 - label_smoothing) * nll + label_smoothing / 2 * log_sums
        smoothed = smoothed - share * (hidden_sum_d @ weight_sum_d) + alpha / 2 * divergence
        return smoothed, nll, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, smoothed_grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        return *scaled_gradients(ctx, smoothed_grad), None, None, None, None
