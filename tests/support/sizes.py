"""Sizes of the intermediate tensors of an operation."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Sizes(TorchDispatchMode):
    """Recorder of tensor sizes in the operations within the context.

    Attributes:
        largest: number of elements of the largest result.
        rows: number of rows of each softmax, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.rows: list[int] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        result = function(*arguments, **(keywords or {}))
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel())
        if function is torch.ops.aten._softmax.default:
            self.rows.append(len(result))
        return result
