"""Measure and limit the memory that Python allocates."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


class Peak:
    """Maximum memory of a block, in bytes; known when the block has ended."""

    bytes = 0


@contextmanager
def measured_peak() -> Iterator[Peak]:
    """Measure the maximum memory of the block."""
    peak = Peak()
    tracemalloc.start()
    try:
        yield peak
        peak.bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@contextmanager
def at_most(limit_bytes: int) -> Iterator[None]:
    """Fail if the block needs more memory than the limit at any time."""
    with measured_peak() as peak:
        yield
    assert peak.bytes <= limit_bytes, f"{peak.bytes:,} bytes, expected at most {limit_bytes:,}"
