"""A test that holds a thread at a `Gate` does not hang if an assertion fails."""

from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from support.gate import Gate


def fail_while_a_thread_is_held(held: list[Future[None]]) -> None:
    """Raise an error in a pool while a thread waits at a gate; the pool's end joins this thread."""
    gate = Gate()
    with ThreadPoolExecutor(1) as pool, gate:
        held.append(pool.submit(gate))
        gate.wait_until_reached()
        assert held[0].done(), "failed as planned"


def test_a_failed_assertion_releases_the_thread_at_the_gate():
    held: list[Future[None]] = []
    with pytest.raises(AssertionError, match="failed as planned"):
        fail_while_a_thread_is_held(held)
    assert held[0].done()
