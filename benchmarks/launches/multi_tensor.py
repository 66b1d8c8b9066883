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
MAX_TENSORS = (770, 448, 336, 252, 210)  # limits by the number of lists, from 1
MAX_TENSORS_WITH_SCALARS = (672, *MAX_TENSORS[1:])  # limits if each tensor has a scalar
REDUCTIONS = ("norm", "max", "powsum")
NORMS = (1, 2, math.inf)  # orders of norms that the fast route computes
# Operations whose fast route takes integers, too.
TAKE_INTEGERS = ("add", "sub", "mul", "copy", "zero", "neg", "abs", "max")


def kernels_of(func: Any, args: Sequence[Any]) -> int:
    """Return the number of kernels that an operation on lists of tensors starts.

    Args:
        func: the operation, such as `torch.ops.aten._foreach_add_.List`.
        args: its positional arguments.
    """
    name = func._schema.name.split("::")[1]
    lists = [arg for arg in args if isinstance(arg, list) and arg and isinstance(arg[0], Tensor)]
    sizes = [tensor.numel() for tensor in lists[0]]
    if name.startswith("_fused_"):  # parameters, gradients, two moments, perhaps their maxima
        return apply_kernels(sizes, MAX_TENSORS[4 if args[4] else 3])
    operation = name.removeprefix("_foreach_").removesuffix("_")
    if not takes_fast_route(operation, lists, args):
        return len(sizes)
    if operation in REDUCTIONS:  # partial results are set to zero before, and combined after
        return apply_kernels(sizes, MAX_TENSORS[0]) + 2
    limits = MAX_TENSORS_WITH_SCALARS if func._overloadname == "ScalarList" else MAX_TENSORS
    return apply_kernels(sizes, limits[len(lists) - name.endswith("_")])


def apply_kernels(sizes: Iterable[int], max_tensors: int) -> int:
    """Return the number of kernels that `multi_tensor_apply` starts.

    Args:
        sizes: the number of elements of each tensor.
        max_tensors: the maximum number of tensors of a kernel.
    """
    kernels = tensors = blocks = 0
    for size in filter(None, sizes):
        tensors += 1
        for left in reversed(range(-(-size // CHUNK_ELEMENTS))):
            blocks += 1
            if blocks == MAX_BLOCKS or (not left and tensors == max_tensors):
                kernels, blocks, tensors = kernels + 1, 0, int(left > 0)
    return kernels + (blocks > 0)


def takes_fast_route(operation: str, lists: Sequence[list[Tensor]], args: Sequence[Any]) -> bool:
    """Return whether one kernel can compute several tensors: by types, layouts and scalars."""
    first = lists[0][0]
    if not first.is_floating_point() and operation not in TAKE_INTEGERS:
        return False
    if operation == "norm" and len(args) > 1 and args[1] not in NORMS:
        return False
    for tensors in lists:
        dtype = tensors[0].dtype if operation == "copy" else first.dtype
        for tensor, other in zip(tensors, lists[0], strict=True):
            if (tensor.dtype, *_layout(tensor)) != (dtype, *_layout(other)) or not _is_dense(
                tensor
            ):
                return False
    values = [each for arg in args for each in (arg if isinstance(arg, list) else [arg])]
    scalars = [torch.result_type(first, each) for each in values if isinstance(each, (int, float))]
    scalars += [arg.dtype for arg in args if isinstance(arg, Tensor)]
    return all(dtype == first.dtype for dtype in scalars)


def _layout(tensor: Tensor) -> tuple[torch.Size, list[int]]:
    """Return the shape, and the strides of the axes that have any effect."""
    sizes_and_strides = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.shape, [stride for size, stride in sizes_and_strides if size != 1]


def _is_dense(tensor: Tensor) -> bool:
    """Return whether the elements fill a range of memory without overlaps."""
    order = sorted(range(tensor.dim()), key=lambda axis: -tensor.stride(axis))
    return tensor.permute(order).is_contiguous()
