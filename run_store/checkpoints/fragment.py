"""Fragment of the training state: consecutive elements of one flattened parameter's state.

There are these kinds of state: the fp32 master weights (`master`), each moment of the optimizer
(`exp_avg`, …), and the moving average of the weights (`ema`), which `trainer.state.ema` keeps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

MASTER = "master"
EMA = "ema"
STEP = "step"  # name of the number of updates, which torch stores with the moments


@dataclass(frozen=True)
class Fragment:
    """View of the elements `start` to `stop` (exclusive) of a flattened parameter's state."""

    kind: str
    parameter: str
    start: int
    tensor: torch.Tensor

    @property
    def stop(self) -> int:
        return self.start + self.tensor.numel()


# A function (kind, parameter, start, target) that fills a flat fp32 tensor with the elements of a
# parameter's state from `start` on. The target may be on any device.
FragmentReader = Callable[[str, str, int, torch.Tensor], None]
