"""Exponential moving average of the weights, partitioned in the same way as the other state.

Averaging the iterates of stochastic descent (Polyak and Juditsky 1992) reduces their noise. The
exponential form forgets the early iterates. After each applied step:

    average ← decay · average + (1 - decay) · weights

Each rank averages the fp32 master weights that it owns. So the average takes as little memory as
one of Adam's moments, and can be resharded to another number of ranks like a moment. Validation and
translation use the average in place of the weights. The average of a frozen weight always equals
the weight, so it is not stored.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain

import torch
from torch import nn

from run_store.checkpoints.fragment import EMA, MASTER, Fragment, FragmentReader
from trainer.process.distributed import sum_over_ranks
from trainer.zero.engine import TrainingEngine
from trainer.zero.fragments import owned_fragments


class Ema:
    """Moving average of the weights that this rank owns, on the weights' device.

    The average starts as a copy of the weights.
    """

    def __init__(self, engine: TrainingEngine, decay: float) -> None:
        self._engine = engine
        self._decay = decay
        owned = [
            weights
            for weights in owned_fragments(engine, [MASTER])
            if weights.parameter not in engine.frozen
        ]
        # Views of the master weights, which the optimizer changes in place.
        self._weights = [weights.tensor for weights in owned]
        self._averages = [
            Fragment(EMA, weights.parameter, weights.start, weights.tensor.clone())
            for weights in owned
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the weights after an applied step."""
        for average, weights in zip(self._averages, self._weights, strict=True):
            # Use separate operations, because the last bit of lerp's result depends on where the
            # state is partitioned.
            difference = (weights - average.tensor).mul_(1 - self._decay)
            average.tensor.add_(difference)

    @contextlib.contextmanager
    def inference_model(self) -> Iterator[nn.Module]:
        """Yield a model in eval mode, with the average as its weights.

        A collective: every rank enters the context and gets the whole average, in the engine's
        compute precision. The model's forward pass then needs no other rank.
        """
        owned = defaultdict(list)
        for average in chain(self._averages, self._engine.frozen.fragments()):
            owned[average.parameter].append(average)
        replica = self._engine.replica()
        with torch.no_grad():
            for name, parameter in replica.named_parameters():
                whole = torch.zeros(parameter.numel(), device=parameter.device)
                for average in owned[name]:
                    whole[average.start : average.stop] = average.tensor
                # Each element belongs to one rank, and is zero in the tensors of the other ranks.
                whole = sum_over_ranks(whole, self._engine.placement)
                parameter.copy_(whole.view_as(parameter))
        yield replica.eval()

    def fragments(self) -> Iterator[Fragment]:
        """Yield the average as fragments of kind `ema`; each element belongs to one rank."""
        return iter(self._averages)

    def load(self, read: FragmentReader) -> None:
        """Fill the average from the `ema` fragments of a checkpoint with any partitioning."""
        for average in self._averages:
            read(EMA, average.parameter, average.start, average.tensor)
