"""Steps of a recipe in plain torch on one process, without DeepSpeed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trainer.exact.grids import largest_magnitudes
from trainer.process.placement import Placement
from trainer.verify_zero.passes import Passes, digest
from trainer.verify_zero.work import Digests, Work


@dataclass(frozen=True)
class Reference:
    """Expected results of the steps, on any ranks.

    Attributes:
        peaks: for each step, the largest absolute value of each parameter's gradient. The grids
            follow from it.
        digests: for each step, the digests of each parameter after the step.
        elements: the number of trained weights.
    """

    peaks: list[dict[str, float]]
    digests: list[dict[str, Digests]]
    elements: int


def reference_of(work: Work, placement: Placement) -> Reference:
    """Compute the steps: rounded gradients are added up, and the optimizer updates fp32 weights."""
    passes = Passes(work, placement)
    trained = list(passes.trained.values())
    masters = [nn.Parameter(parameter.detach().float()) for parameter in trained]
    optimizer = passes.build_optimizer(work.recipe)
    _optimize_instead(optimizer, dict(zip(trained, masters, strict=True)))
    found = Reference([], [], sum(parameter.numel() for parameter in trained))
    for step in range(1, work.steps + 1):
        data = next(passes.steps)
        gradients = []
        for batch in passes.batches(step, data):
            sums = passes.network(*batch.inputs, passes.loss)
            gradients.append(torch.autograd.grad(sums[0] / data.units, trained))
        amax = np.array([[*map(float, largest_magnitudes(list(slot)))] for slot in gradients])
        peaks = dict(zip(passes.trained, amax.max(axis=0).tolist(), strict=True))
        passes.grids.restore(peaks)
        for index, master in enumerate(masters):
            master.grad = _sum_of([slot[index] for slot in gradients], passes, index)
        optimizer.step()
        with torch.no_grad():
            for parameter, master in zip(trained, masters, strict=True):
                parameter.copy_(master)
        found.peaks.append(peaks)
        found.digests.append(
            {
                name: Digests(digest(master), digest(parameter))
                for (name, parameter), master in zip(passes.trained.items(), masters, strict=True)
            }
        )
    return found


def _sum_of(gradients: list[Tensor], passes: Passes, index: int) -> Tensor:
    total = torch.zeros_like(gradients[0], dtype=torch.float32)
    for gradient in gradients:
        passes.grids.round_([index], [gradient])
        total.add_(gradient)
    return total


def _optimize_instead(
    optimizer: torch.optim.Optimizer, instead: dict[nn.Parameter, nn.Parameter]
) -> None:
    for group in optimizer.param_groups:
        group["params"] = [instead[parameter] for parameter in group["params"]]
