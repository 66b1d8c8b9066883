"""Counters of a GPU, read through NVIDIA's management library: errors and throttling.

XID errors are events: only those that occur while the context lasts are seen. Earlier ones are in
the kernel log, which this process may not read.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster.node_check.figures import GpuFigures
from cluster.ray.private import nvml

# Device file of NVIDIA's driver. If it does not exist, no NVIDIA library is loaded.
NVIDIA_CONTROL = Path("/dev/nvidiactl")
MAX_EVENTS = 100
# Reasons that mean a problem of the machine. A power cap or an idle GPU is normal.
THROTTLING = {
    "nvmlClocksThrottleReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksThrottleReasonSwThermalSlowdown": "software thermal slowdown",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "hardware thermal slowdown",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "power brake",
}


class GpuCounters:
    """Counters of one GPU while its context lasts; `figures` is None without NVIDIA's driver."""

    def __init__(self, device: str, library: Any, handle: Any, events: Any) -> None:
        """Keep the handles of an opened library.

        Args:
            device: the GPU in messages.
            events: the set that collects XID errors, or None if the driver has no events.
        """
        self._device = device
        self._library = library
        self._handle = handle
        self._events = events

    def figures(self) -> GpuFigures:
        """Return the counters now, and the XID errors since the context was entered."""
        library, handle = self._library, self._handle
        errors = self._read(
            lambda: library.nvmlDeviceGetTotalEccErrors(
                handle,
                library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                library.NVML_VOLATILE_ECC,
            )
        )
        # Corrected, uncorrected, pending and failed remappings of memory rows.
        remapped = self._read(lambda: library.nvmlDeviceGetRemappedRows(handle))
        bits = self._read(lambda: library.nvmlDeviceGetCurrentClocksThrottleReasons(handle)) or 0
        return GpuFigures(
            self._device,
            uncorrected_errors=errors,
            failed_remapping=bool(remapped and remapped[3]),
            throttling=tuple(
                text for name, text in THROTTLING.items() if bits & getattr(library, name)
            ),
            xid_errors=tuple(self._xid_errors()),
        )

    def _read(self, read: Callable[[], Any]) -> Any:
        """Return a value of the driver, or None if this GPU does not support it."""
        try:
            return read()
        except self._library.NVMLError:
            return None

    def _xid_errors(self) -> Iterator[int]:
        for _ in range(MAX_EVENTS if self._events is not None else 0):
            event = self._read(lambda: self._library.nvmlEventSetWait_v2(self._events, 0))
            if event is None:  # the driver reports a timeout as an error
                return
            yield int(event.eventData)


@contextmanager
def gpu_counters(
    device: str, uuid: str | None, control: Path = NVIDIA_CONTROL
) -> Iterator[GpuCounters | None]:
    """Open the counters of a GPU, or return None if NVIDIA's driver does not answer.

    Args:
        device: the GPU in messages.
        uuid: identifier of the GPU as torch reports it; None for the first GPU.
    """
    if not control.exists():
        yield None
        return
    library = nvml()
    try:
        library.nvmlInit()
    except library.NVMLError:
        yield None
        return
    events = None
    try:
        try:
            handle = _handle(library, uuid)
        except library.NVMLError:
            yield None
            return
        registered = False
        with suppress(library.NVMLError):
            events = library.nvmlEventSetCreate()
            library.nvmlDeviceRegisterEvents(handle, library.nvmlEventTypeXidCriticalError, events)
            registered = True
        yield GpuCounters(device, library, handle, events if registered else None)
    finally:
        with suppress(library.NVMLError):
            if events is not None:
                library.nvmlEventSetFree(events)
        with suppress(library.NVMLError):
            library.nvmlShutdown()


def _handle(library: Any, uuid: str | None) -> Any:
    if uuid is None:
        return library.nvmlDeviceGetHandleByIndex(0)
    return library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
