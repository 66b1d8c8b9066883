"""Bounds on the memory that Python allocates."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most(limit_bytes: int) -> Iterator[None]:
    """Fails when the block within needs more than that at any time."""
    tracemalloc.start()
    try:
        yield
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes <= limit_bytes, f"{peak_bytes:,} bytes, expected at most {limit_bytes:,}"
