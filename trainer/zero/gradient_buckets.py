"""Buckets of gradients, so that operations of `torch._foreach_*` process many at a time.

On a GPU, a step is bound by the starts of its kernels, and such an operation starts one kernel for
hundreds of gradients. The gradients of a bucket stay in memory until it is full. So on a CPU, where
an operation costs little and memory much, a bucket is small.
"""

from collections.abc import Callable

import torch
from torch import nn

# Largest number of elements of a bucket with several gradients, by the kind of device. The memory
# of a bucket is in `trainer.memory.state_size`.
CAPACITY = {"cpu": 2**16, "cuda": 2**25}


class GradientBuckets:
    """Gradients of a backward pass, which are processed in buckets."""

    def __init__(
        self, process: Callable[[list[nn.Parameter], list[torch.Tensor]], None], capacity: int
    ) -> None:
        """Create an empty bucket.

        Args:
            process: receives the parameters of a bucket and their gradients.
            capacity: the number of elements that a bucket with several gradients can have.
        """
        self._process = process
        self._capacity = capacity
        self._parameters: list[nn.Parameter] = []
        self._gradients: list[torch.Tensor] = []
        self._elements = 0

    def add(self, parameter: nn.Parameter, gradient: torch.Tensor) -> None:
        """Add the gradient of a parameter."""
        if self._elements + gradient.numel() > self._capacity:
            self.flush()
        self._parameters.append(parameter)
        self._gradients.append(gradient)
        self._elements += gradient.numel()

    def flush(self) -> None:
        """Process the last gradients."""
        if self._parameters:
            self._process(self._parameters, self._gradients)
        self._parameters, self._gradients, self._elements = [], [], 0
