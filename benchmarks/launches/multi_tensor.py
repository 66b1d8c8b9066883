"""Count the kernels that CUDA starts for an operation on lists of tensors, without a GPU.

On the fast route, `multi_tensor_apply` starts a kernel whenever the table of tensors or the table
of blocks in its arguments is full; a block is a chunk of 65,536 elements. On the slow route, each
tensor has a kernel. The limits are those of `ATen/native/cuda/MultiTensorApply.cuh` in torch 2.13
for CUDA 13, which the lock installs; the conditions are those of `ATen/native/ForeachUtils.h`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 65536
MAX_BLOCKS = 2240
MAX_TENSORS = (770, 448, 336, 252, 210)  # by the number of lists, from 1
MAX_TENSORS_WITH_SCALARS = (672, 448, 336, 252, 210)  # if each tensor has a scalar
REDUCTIONS = ("norm", "max", "powsum")
# Operations of which the fast route also takes integers.
TAKE_INTEGERS = ("add", "sub", "mul", "copy", "zero", "neg", "abs", "max")
NORMS = (1, 2, math.inf)  # orders of norms that the fast route computes


def is_multi_tensor(name: str) -> bool:
    """Return whether an ATen operation, such as `_foreach_add_`, takes lists of tensors."""
    return name.startswith(("_foreach_", "_fused_adam"))


def kernels_of(func: Any, args: Sequence[Any]) -> int:
    """Return the number of kernels that an operation on lists of tensors starts.

    Args:
        func: the operation, such as `torch.ops.aten._foreach_add_.List`.
        args: its positional arguments.
    """
    name, overload = func._schema.name.split("::")[1], func._overloadname
    lists = [arg for arg in args if isinstance(arg, (list, tuple)) and _holds_tensors(arg)]
    sizes = [tensor.numel() for tensor in lists[0]]
    if name.startswith("_fused_adam"):  # parameters, gradients, two moments, and maxima of the last
        return apply_kernels(sizes, MAX_TENSORS[4 if args[4] else 3])
    operation = name.removeprefix("_foreach_").removesuffix("_")
    if not takes_fast_route(operation, lists, args):
        return len(sizes)
    if operation in REDUCTIONS:  # the partial results are set to zero, and combined at the end
        return apply_kernels(sizes, MAX_TENSORS[0]) + 2
    depth = len(lists) if name.endswith("_") else len(lists) + 1
    limits = MAX_TENSORS_WITH_SCALARS if overload == "ScalarList" else MAX_TENSORS
    return apply_kernels(sizes, limits[depth - 1])


def apply_kernels(sizes: Iterable[int], max_tensors: int) -> int:
    """Return the number of kernels that `multi_tensor_apply` starts.

    Args:
        sizes: the number of elements of each tensor.
        max_tensors: the maximum number of tensors of a kernel.
    """
    kernels = tensors = blocks = 0
    for size in filter(None, sizes):
        tensors += 1
        chunks = -(-size // CHUNK_ELEMENTS)
        for chunk in range(1, chunks + 1):
            blocks += 1
            ends = chunk == chunks
            if blocks == MAX_BLOCKS or (ends and tensors == max_tensors):
                kernels, blocks, tensors = kernels + 1, 0, 0 if ends else 1
    return kernels + (blocks > 0)


def takes_fast_route(
    operation: str, lists: Sequence[Sequence[Tensor]], args: Sequence[Any]
) -> bool:
    """Return whether one kernel can compute several tensors: by types, layouts and scalars."""
    first = lists[0][0]
    for tensors in lists:
        for tensor, other in zip(tensors, lists[0], strict=True):
            same = tensors[0] if operation == "copy" else first
            if tensor.dtype != same.dtype or tensor.shape != other.shape or not _is_dense(tensor):
                return False
            if _strides(tensor) != _strides(other):
                return False
    if not (first.is_floating_point() or operation in TAKE_INTEGERS):
        return False
    if operation == "norm":
        return (args[1] if len(args) > 1 else 2) in NORMS
    scalars = [arg for arg in args if isinstance(arg, (int, float)) and not isinstance(arg, bool)]
    scalars += [each for arg in args if isinstance(arg, (list, tuple)) for each in _numbers_of(arg)]
    if any(torch.result_type(first, scalar) != first.dtype for scalar in scalars):
        return False
    return all(arg.dtype == first.dtype for arg in args if isinstance(arg, Tensor))


def _holds_tensors(values: Sequence[Any]) -> bool:
    return bool(values) and isinstance(values[0], Tensor)


def _numbers_of(values: Sequence[Any]) -> list[float]:
    return [each for each in values if isinstance(each, (int, float))]


def _strides(tensor: Tensor) -> list[int]:
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1]


def _is_dense(tensor: Tensor) -> bool:
    """Return whether the elements fill a range of memory without overlaps."""
    order = sorted(range(tensor.dim()), key=lambda axis: -tensor.stride(axis))
    return tensor.permute(order).is_contiguous()
