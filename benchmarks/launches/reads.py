"""Find the host reads of a pass, with file and line, on a device without values.

On `device="meta"` no tensor has values. The mode below answers each read in place of torch, which
would raise an error, so that one pass finds all reads.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.launches.counter import reads_reported, waits
from benchmarks.launches.steps import FORMS, LOSS, Form

ROOT = Path(__file__).parents[2]
META = torch.device("meta")


class HostRead(NamedTuple):
    """Place at which the host waits for a value."""

    file: Path
    line: int
    function: str
    operation: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}: {self.operation}"

    @property
    def key(self) -> str:
        """Return a text that stays the same if the read moves to another line."""
        return f"{self.file} {self.function}: {self.operation}"


class HostReads(TorchDispatchMode):
    """Recorder of the host reads within the context.

    Attributes:
        found: the reads, each place once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: set[HostRead] = set()

    def record(self, operation: str) -> None:
        """Record a read by the innermost function of this repository that calls it."""
        frame = sys._getframe(1)
        while frame.f_back is not None and not _is_own(frame.f_code.co_filename):
            frame = frame.f_back
        file = Path(frame.f_code.co_filename).relative_to(ROOT)
        self.found.add(HostRead(file, frame.f_lineno, frame.f_code.co_name, operation))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        if waits(name, args):
            self.record(name)
            if name == "_local_scalar_dense":
                return 1
            if name == "nonzero":
                return args[0].new_zeros((args[0].numel(), args[0].dim()), dtype=torch.int64)
        return func(*args, **(kwargs or {}))


def reads_of(form: Form, network: nn.Module) -> set[HostRead]:
    """Return the host reads of a forward and a backward pass of a network on `META`."""
    batch = form.batch(META)
    reads = HostReads()
    with reads, reads_reported(reads.record):
        network(*batch.inputs, LOSS).smoothed.backward()
    return reads.found


def all_reads() -> list[HostRead]:
    """Return the host reads of all forms of networks."""
    found = (reads_of(form, form.build().to(META, torch.bfloat16)) for form in FORMS.values())
    return sorted(set().union(*found))


def _is_own(file: str) -> bool:
    return file.startswith(str(ROOT)) and "site-packages" not in file and file != __file__
