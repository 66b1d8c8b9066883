"""Watchdog that prevents processes of a run from outliving its supervisor.

Ray ends the actors of a driver that has died. However, Ray does not end them if the driver is
suspended, or is lost together with the head. The processes therefore expect heartbeats from the
supervisor. A process without heartbeats kills itself before the supervisor's lease on the run can
pass to another process.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from cluster.health.suspend_aware_clock import SuspendAwareClock
from foundation.periodic_thread import PeriodicThread
from run_store.lease import LEASE_SECONDS

HEARTBEAT_TIMEOUT_SECONDS = LEASE_SECONDS - 10.0
HEARTBEAT_SECONDS = 2.0
POLL_SECONDS = 0.5


class Watchdog:
    """Thread that kills this process if its supervisor sends no heartbeat for too long."""

    def __init__(
        self,
        timeout_seconds: float = HEARTBEAT_TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the thread.

        Args:
            timeout_seconds: the longest time between two heartbeats.
            clock: returns the time in seconds.
            pause: sleeps for a number of seconds.
            at_end: called before the process is killed; must not block.
        """
        self._timeout_seconds = timeout_seconds
        self._clock = SuspendAwareClock(clock)
        self._pause = pause
        self._at_end = at_end
        self._heartbeat_came = False
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def heartbeat(self) -> None:
        self._heartbeat_came = True

    def _watch(self) -> None:
        now = since = self._clock.poll()
        while now - since < self._timeout_seconds:
            self._pause(POLL_SECONDS)
            now = self._clock.poll()
            if self._heartbeat_came:
                self._heartbeat_came, since = False, now
        try:
            self._at_end()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)


class HeartbeatSender(PeriodicThread):
    """Supervisor thread that periodically sends a heartbeat to every actor."""

    def __init__(self, actors: Callable[[], Iterable[Any]]) -> None:
        """Initialize the thread.

        Args:
            actors: called before each round; returns actors that have a method `heartbeat`.
        """
        super().__init__("heartbeats", HEARTBEAT_SECONDS, self._send)
        self._actors = actors

    def _send(self) -> None:
        for actor in self._actors():
            with suppress(Exception):  # a dead actor must not stop the heartbeats to the others
                actor.heartbeat.remote()
