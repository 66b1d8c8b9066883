"""Error counters of a GPU, read through NVIDIA's management library.

XID errors are events: only those that occur inside `with gpu_counters(...)` are seen. Earlier ones
are in the kernel log, which this process may not read.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from cluster.node_check.figures import GpuFigures
from cluster.ray.private import nvml

MAX_EVENTS = 100


@dataclass(frozen=True)
class GpuCounters:
    """Error counters of one GPU, for use in `with gpu_counters(...)`.

    Attributes:
        device: the name of the GPU for messages.
        library: the opened library.
        handle: the library's handle of the GPU.
        events: the set that collects XID errors, or None if the driver has no events.
    """

    device: str
    library: Any
    handle: Any
    events: Any

    def figures(self) -> GpuFigures:
        """Return the counters now, and the XID errors since `gpu_counters` was entered."""
        library = self.library
        errors = self._read(
            library.nvmlDeviceGetTotalEccErrors,
            self.handle,
            library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            library.NVML_VOLATILE_ECC,
        )
        # Corrected, uncorrected, pending and failed remappings of memory rows.
        remapped = self._read(library.nvmlDeviceGetRemappedRows, self.handle)
        return GpuFigures(
            self.device,
            uncorrected_errors=errors,
            failed_remapping=bool(remapped and remapped[3]),
            xid_errors=tuple(self._xid_errors()),
        )

    def _read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of a function of the library; None if the GPU does not support it."""
        try:
            return function(*arguments)
        except self.library.NVMLError:
            return None

    def _xid_errors(self) -> Iterator[int]:
        for _ in range(MAX_EVENTS if self.events is not None else 0):
            event = self._read(self.library.nvmlEventSetWait_v2, self.events, 0)
            if event is None:  # the driver reports a timeout as an error
                return
            yield int(event.eventData)


@contextmanager
def gpu_counters(device: str, uuid: str) -> Iterator[GpuCounters | None]:
    """Open the counters of a GPU, or return None if NVIDIA's driver does not answer.

    Args:
        device: the name of the GPU for messages.
        uuid: identifier of the GPU as torch reports it.
    """
    library, counters = nvml(), None
    with suppress(library.NVMLError), ExitStack() as stack:
        with suppress(library.NVMLError):
            library.nvmlInit()
            stack.callback(library.nvmlShutdown)
            handle = library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
            counters = GpuCounters(device, library, handle, _xid_events(library, handle, stack))
        yield counters


def _xid_events(library: Any, handle: Any, stack: ExitStack) -> Any:
    """Return a set that collects XID errors until `stack` closes; None if there are no events."""
    try:
        events = library.nvmlEventSetCreate()
        stack.callback(library.nvmlEventSetFree, events)
        library.nvmlDeviceRegisterEvents(handle, library.nvmlEventTypeXidCriticalError, events)
    except library.NVMLError:
        return None
    return events
