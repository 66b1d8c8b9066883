"""Count the kernel launches and host waits of a step by part, as a GPU would have them.

A launch is an ATen operation that is no view and allocates nothing only; an operation on lists of
tensors counts as its kernels (`benchmarks.launches.multi_tensor`). A wait is an operation that
returns a value of a tensor to the host, or a result whose size depends on values.

All tensors are on a CPU here. So tensors that would be on the host beside a GPU are marked: those
of `torch.tensor`, `torch.from_numpy` and `Tensor.cpu`, and what is computed from them alone.
"""

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.launches.multi_tensor import is_multi_tensor, kernels_of

PARTS = ("passes", "reduction", "exchange", "norm", "update", "checks")
NO_KERNEL = frozenset(
    (
        *("_unsafe_view", "unsafe_split", "unsafe_chunk", "lift", "is_pinned"),
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
        *("resize_", "set_", "record_stream"),
    )
)
WAITS = frozenset(
    (
        *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select"),
        *("_unique2", "unique_dim", "unique_consecutive"),
    )
)
# Innermost first, the first function of the call stack that one of these patterns matches decides
# the part; without a match, it is the part that runs. A pattern is searched in FILE:FUNCTION.
FUNCTIONS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "passes": (
        (r"torch/autograd/graph\.py|/model/", "passes"),
        (r"exact/checksum|exact/gradient_digest|reduction_check", "checks"),
        (r":(_on_gradient|.*overflow.*|.*inf_or_nan.*)$", "checks"),
        (r"trainer/exact/|trainer/zero/(?!engine|process_wide)|:sum_gradients$", "reduction"),
        (r"deepspeed/runtime/(zero/stage|bf16_optimizer)", "reduction"),
    ),
    "update": (
        (r"exact/checksum|reduction_check|:.*(overflow|inf_or_nan|invalid)", "checks"),
        (r"exact/norm\.py|:.*(norm|clip)", "norm"),
    ),
}


class LaunchCounter(TorchDispatchMode):
    """Counter of the launches and waits within the context, by part.

    Attributes:
        launches: by part and operation.
        waits: by part and operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[tuple[str, str]] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()
        self._part = "passes"
        self._parts: dict[tuple[str, CodeType], str | None] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the operations within the context for a part, or for one in `FUNCTIONS`."""
        before, self._part = self._part, name
        with self, reads_reported(self._read):
            yield
        self._part = before

    def totals(self, counts: Counter[tuple[str, str]]) -> dict[str, int]:
        """Return the sums of `launches` or `waits` by part."""
        sums = dict.fromkeys(PARTS, 0)
        for (part, _), count in counts.items():
            sums[part] += count
        return sums

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        tensors = list(_tensors(args))
        if tensors and all(map(_is_on_host, tensors)):
            for tensor in _tensors([result]):
                _mark(tensor)
            return result
        if not func.is_view and name not in NO_KERNEL:
            kernels = kernels_of(func, args) if is_multi_tensor(name) else 1
            self.launches[self._running_part(), name] += kernels
        if waits(name, args):
            self._read(name)
        return result

    def _read(self, operation: str) -> None:
        self.waits[self._running_part(), operation] += 1

    def _running_part(self) -> str:
        if self._part not in FUNCTIONS:
            return self._part
        frame = sys._getframe(1)
        while frame is not None:
            if part := self._part_of(frame.f_code):
                return part
            frame = frame.f_back  # type: ignore[assignment]
        return self._part

    def _part_of(self, code: CodeType) -> str | None:
        key = self._part, code
        if key not in self._parts:
            where = f"{code.co_filename}:{code.co_name}"
            rules = FUNCTIONS[self._part]
            found = (part for pattern, part in rules if re.search(pattern, where))
            self._parts[key] = next(found, None)
        return self._parts[key]


@contextlib.contextmanager
def reads_reported(report: Callable[[str], None]) -> Iterator[None]:
    """Report the copies to the host that are no ATen operations on a CPU; mark tensors on the host.

    Args:
        report: called with the name of the method.
    """

    def cpu(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not _is_on_host(tensor):
            report("cpu")
        return _mark(tensor.detach())

    def tolist(tensor: Tensor) -> Any:
        if not _is_on_host(tensor):
            report("tolist")
        return torch._C.TensorBase.tolist(tensor)

    def marked(build: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def built(*args: Any, **kwargs: Any) -> Tensor:
            tensor = build(*args, **kwargs)
            return tensor if kwargs.get("device") is not None else _mark(tensor)

        return built

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(Tensor, "cpu", cpu))
        stack.enter_context(mock.patch.object(Tensor, "tolist", tolist))
        for name in ("tensor", "from_numpy"):
            build = marked(getattr(torch, name))
            stack.enter_context(mock.patch.object(torch, name, build))
        yield


def waits(name: str, args: Any) -> bool:
    """Return whether the host waits for the result of an ATen operation with these arguments."""
    if name in WAITS:
        return True
    if name == "copy_":
        return _is_on_host(args[0]) and not _is_on_host(args[1])
    if name in ("index", "index_put_", "_index_put_impl_"):  # a mask becomes indices
        return any(index.dtype is torch.bool for index in args[1] if index is not None)
    return name == "repeat_interleave" and len(args) == 1  # without the size of the result


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _is_on_host(tensor: Tensor) -> bool:
    return getattr(tensor, "on_host", False)


def _mark(tensor: Tensor) -> Tensor:
    tensor.on_host = True  # type: ignore[attr-defined]
    return tensor
