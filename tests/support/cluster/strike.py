"""Act on a run while the run waits, so that the action is never late, even on a busy machine."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

from support.cluster.processes import wait_until
from support.faults.moments import MID_STEP, Moment, Orders, Reached


class Strike:
    """Action on a run while one of its processes waits at a chosen point.

    The run is trained within the context, by processes that have `Orders.environment`, as those
    of the session's Ray head. The moment must come before the context ends.
    """

    def __init__(
        self, orders: Orders, moment: Moment, act: Callable[[Reached], object], rank: int = 0
    ) -> None:
        """act: gets the process, which continues afterwards unless it was killed."""
        self._orders = orders
        self._moment, self._rank = moment, rank
        self._act = act
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._struck = False
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._order = self._orders.want(self._moment, self._rank)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._orders.clear()
        if kind is None:
            if self._failure:
                raise self._failure
            assert self._struck, f"the run did not come to {self._moment}"

    def _work(self) -> None:
        while not (reached := self._orders.look(self._order)):
            if self._over.wait(0.02):
                return
        try:
            self._act(reached)
            self._struck = True
        except BaseException as failure:
            self._failure = failure
        finally:
            reached.release()


@contextmanager
def standing_at(orders: Orders, step: int) -> Iterator[int]:
    """Hold rank 0 in the middle of a later step, and yield its process id."""
    order = orders.want(replace(MID_STEP, step=step))
    wait_until(lambda: orders.look(order))
    reached = orders.look(order)
    assert reached
    try:
        yield reached.process_id
    finally:
        reached.release()
