"""Count the kernel launches and host waits of a step by part, as a GPU would have them.

A launch is an ATen operation that is no view and does more than allocate; an operation on lists of
tensors counts as its kernels (`benchmarks.launches.multi_tensor`). A wait is an operation that
returns a value of a tensor to the host, or a result whose size depends on values.

All tensors are on a CPU here. Those that would be on the host beside a GPU are marked: the results
of `torch.tensor`, `torch.from_numpy` and `Tensor.cpu`, and what is computed from them alone.
"""

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.launches.multi_tensor import kernels_of

ROOT = Path(__file__).parents[2]
PARTS = ("passes", "reduction", "exchange", "norm", "update", "checks")
NO_KERNELS = re.compile(r"_unsafe_view|unsafe_split|lift|is_pinned|(new_)?empty.*|resize_|set_")
WAITS = re.compile(r"_local_scalar_dense|is_nonzero|equal|nonzero|masked_select|_?unique.*")
# The first match decides the part of an operation, from the innermost function of the call stack to
# the outermost. Without a match, it is the part that runs. A pattern is searched in FILE:FUNCTION.
FUNCTIONS = {
    "passes": {
        r"torch/autograd/graph\.py|/model/": "passes",
        r"exact/(checksum|gradient_digest)|reduction_check|magnitudes|overflow|_nan$": "checks",
        r"trainer/exact/|trainer/zero/(?!engine|process_wide)|:sum_gradients$": "reduction",
        r"deepspeed/runtime/(zero/stage|bf16_optimizer)": "reduction",
        r"/step_exchange\.py": "exchange",
    },
    "update": {
        r"exact/checksum|reduction_check|:.*(overflow|_nan$|invalid)": "checks",
        r"exact/norm\.py|:.*(norm|clip|_squares)": "norm",
    },
}


class Place(NamedTuple):
    """Line of this repository at which the host waits for a value."""

    file: str
    function: str
    line: int
    operation: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}: {self.operation}"

    @property
    def key(self) -> str:
        """Text that stays the same if the function moves to another line."""
        return f"{self.file} {self.function}"

    @classmethod
    def of(cls, frames: Iterator[tuple[FrameType, int]], operation: str) -> "Place":
        """Return the place of the first frame that runs code of this repository."""
        for frame, line in frames:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(ROOT) and ".venv" not in path.parts and path != Path(__file__):
                name = frame.f_code.co_name
                return cls(str(path.relative_to(ROOT)), name, line, operation)
        raise AssertionError(f"{operation} was called from no code of {ROOT}")


class LaunchCounter(TorchDispatchMode):
    """Counter of the launches and waits within its contexts.

    Attributes:
        launches: the launches by part.
        waits: the waits by part and place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.waits: Counter[tuple[str, Place]] = Counter()
        self._part = ""
        self._parts: dict[tuple[str, CodeType], str | None] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the context's operations for a part, unless `FUNCTIONS` assigns another part."""
        self._part = name
        with self, _copies_to_host(self._wait):
            yield

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        tensors = list(_tensors(args))
        if tensors and all(map(_is_on_host, tensors)):
            for tensor in _tensors([result]):
                _mark(tensor)
            return result
        if not func.is_view and not NO_KERNELS.fullmatch(name):
            on_lists = name.startswith(("_foreach_", "_fused_adam"))
            self.launches[self._running_part()] += kernels_of(func, args) if on_lists else 1
        if _waits(name, args, kwargs or {}):
            self._wait(name)
        return result

    def _wait(self, operation: str) -> None:
        self.waits[self._running_part(), Place.of(_call_stack(), operation)] += 1

    def _running_part(self) -> str:
        if self._part in FUNCTIONS:
            for frame, _ in _call_stack():
                key = self._part, frame.f_code
                if key not in self._parts:
                    where = f"{frame.f_code.co_filename}:{frame.f_code.co_name}"
                    rules = FUNCTIONS[self._part].items()
                    matches = (part for pattern, part in rules if re.search(pattern, where))
                    self._parts[key] = next(matches, None)
                if part := self._parts[key]:
                    return part
        return self._part


@contextlib.contextmanager
def _copies_to_host(report: Callable[[str], None]) -> Iterator[None]:
    """Report the methods that copy to the host without an ATen operation; mark tensors on the host.

    Args:
        report: called with the name of the method.
    """

    def reported(name: str, convert: Callable[..., Any]) -> Any:
        def converted(tensor: Tensor) -> Any:
            if not _is_on_host(tensor):
                report(name)
            return convert(tensor)

        return mock.patch.object(Tensor, name, converted)

    def marked(name: str) -> Any:
        build = getattr(torch, name)

        def built(*args: Any, **kwargs: Any) -> Tensor:
            tensor = build(*args, **kwargs)
            return tensor if kwargs.get("device") else _mark(tensor)

        return mock.patch.object(torch, name, built)

    with (
        reported("cpu", lambda tensor: _mark(tensor.detach())),
        reported("tolist", Tensor.tolist),
        marked("tensor"),
        marked("from_numpy"),
    ):
        yield


def _waits(name: str, args: Any, kwargs: Any) -> bool:
    if name == "copy_":
        return _is_on_host(args[0]) and not _is_on_host(args[1])
    # a mask is converted to indices, whose number depends on values
    if name in ("index", "index_put_", "_index_put_impl_"):
        return any(index.dtype is torch.bool for index in args[1] if index is not None)
    return bool(WAITS.fullmatch(name)) or (name == "repeat_interleave" and not kwargs)


def _call_stack() -> Iterator[tuple[FrameType, int]]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame, frame.f_lineno
        frame = frame.f_back


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
