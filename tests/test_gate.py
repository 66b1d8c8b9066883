"""A test that holds a thread fails when an assertion does, and does not hang."""

from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from support.gate import Gate


def fail_while_a_thread_is_held(held: list[Future[None]]) -> None:
    """Raise within a pool, whose end waits for its threads."""
    gate = Gate()
    with ThreadPoolExecutor(1) as pool, gate:
        held.append(pool.submit(gate))
        gate.wait_until_reached()
        assert held[0].done(), "failed as planned"


def test_a_failed_assertion_lets_go_what_was_held():
    held: list[Future[None]] = []
    with pytest.raises(AssertionError, match="failed as planned"):
        fail_while_a_thread_is_held(held)
    assert held[0].done()
