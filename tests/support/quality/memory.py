"""The memory that Python allocates, and bounds on it."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


class Peak:
    """The most memory that a block needed at any time; known once it has ended."""

    bytes = 0


@contextmanager
def measured_peak() -> Iterator[Peak]:
    """Measure the block within."""
    peak = Peak()
    tracemalloc.start()
    try:
        yield peak
        peak.bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@contextmanager
def at_most(limit_bytes: int) -> Iterator[None]:
    """Fails when the block within needs more than that at any time."""
    with measured_peak() as peak:
        yield
    assert peak.bytes <= limit_bytes, f"{peak.bytes:,} bytes, expected at most {limit_bytes:,}"
