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
    """Gradients of a backward pass, which the caller gets in buckets and which are then freed."""

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

    def add(self, parameter: nn.Parameter) -> None:
        """Take the gradient of a parameter, which backward has computed."""
        assert parameter.grad is not None
        if self._elements + parameter.numel() > self._capacity:
            self.flush()
        self._parameters.append(parameter)
        self._gradients.append(parameter.grad)
        self._elements += parameter.numel()
        parameter.grad = None  # otherwise DeepSpeed would add it to its sums

    def flush(self) -> None:
        """Process the last gradients of a pass."""
        if self._parameters:
            self._process(self._parameters, self._gradients)
        self._parameters, self._gradients, self._elements = [], [], 0


def as_fp32(gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return flat copies in fp32, which are parts of one vector."""
    sizes = [gradient.numel() for gradient in gradients]
    vector = torch.empty(sum(sizes), dtype=torch.float32, device=gradients[0].device)
    copies = list(vector.split(sizes))
    torch._foreach_copy_(copies, [gradient.view(-1) for gradient in gradients])
    return copies
