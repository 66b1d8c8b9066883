"""Kernel counts of operations on lists of tensors, compared with torch's header and known sizes."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.launches import multi_tensor
from benchmarks.launches.multi_tensor import CHUNK_ELEMENTS, MAX_BLOCKS, apply_kernels, kernels_of

ATEN = torch.ops.aten
HEADER = "include/ATen/native/cuda/MultiTensorApply.cuh"


def test_the_limits_of_a_kernel_are_those_of_the_installed_torch():
    header = (Path(torch.__file__).parent / HEADER).read_text()
    for_cuda_13 = header.partition("CUDART_VERSION >= 13000")[2].partition("#else")[0]

    def numbers(name: str) -> list[int]:
        match = re.search(rf"{name}\[5\] =\s*{{([^}}]+)}}", for_cuda_13)
        assert match is not None
        return [int(number) for number in match[1].split(",")]

    assert numbers("depth_to_max_tensors") == list(multi_tensor.MAX_TENSORS)
    assert numbers("depth_to_max_blocks") == [MAX_BLOCKS] * 5
    scalars = list(multi_tensor.MAX_TENSORS_WITH_SCALARS)
    assert numbers("depth_to_max_tensors_scalarlist") == scalars
    assert f"kChunkSize = {CHUNK_ELEMENTS};" in header


@pytest.mark.parametrize(
    ("sizes", "kernels"),
    [
        ([1] * 448, 1),
        ([1] * 449, 2),
        ([0] * 5, 0),
        ([CHUNK_ELEMENTS * MAX_BLOCKS], 1),
        ([CHUNK_ELEMENTS * MAX_BLOCKS + 1], 2),
        ([CHUNK_ELEMENTS * MAX_BLOCKS - 1, 1], 2),
    ],
)
def test_a_new_kernel_starts_when_tensors_or_blocks_are_full(sizes, kernels):
    assert apply_kernels(sizes, 448) == kernels


def halves(count: int, dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
    return [torch.zeros(4, 6, dtype=dtype) for _ in range(count)]


def test_one_kernel_for_a_list_requires_equal_types_and_layouts():
    bf16, fp32 = halves(9), halves(9, torch.float32)
    transposed = [torch.zeros(6, 4, dtype=torch.bfloat16).t() for _ in range(9)]
    assert kernels_of(ATEN._foreach_add_.List, (bf16, halves(9))) == 1
    assert kernels_of(ATEN._foreach_add_.List, (fp32, bf16)) == 9
    assert kernels_of(ATEN._foreach_copy_.default, (fp32, bf16)) == 1
    assert kernels_of(ATEN._foreach_copy_.default, (fp32, transposed)) == 9
    assert kernels_of(ATEN._foreach_mul_.Scalar, (halves(9, torch.int64), 0.5)) == 9
    assert kernels_of(ATEN._foreach_norm.Scalar, (bf16, 3)) == 9
    assert kernels_of(ATEN._foreach_norm.Scalar, (bf16, 2)) == 3  # zeros, norms, their sums


def test_the_fused_optimizer_is_counted_with_four_lists_and_the_steps():
    calls = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append((func, args))
            return func(*args, **(kwargs or {}))

    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(253)]
    for parameter in parameters:
        parameter.grad = torch.ones(2)
    optimizer = torch.optim.AdamW(parameters, fused=True)
    with Recorder():
        optimizer.step()
    (adamw,) = (call for call in calls if "_fused_adamw_" in str(call[0]))
    assert kernels_of(*adamw) == 2
