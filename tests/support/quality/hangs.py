"""End a unit test that hangs within half a minute, even on a busy machine.

A test hangs if neither this process nor a descendant computes or waits for a core, or if they
compute for longer than any unit test. Complete runs are not watched, because they wait for
deadlines, and because the idle processes of Ray are never completely idle. They have pytest's
timeout.
"""

import faulthandler
import signal
import sys
import threading
from types import FrameType
from typing import NamedTuple

import pytest
from pytest_timeout import is_debugging

from support.quality.activity import IdleClock, family

INTERRUPT = signal.SIGRTMIN + 3


class Limits(NamedTuple):
    """Time limits in seconds after which a test is considered hung, and the check interval."""

    idle: float = 20.0
    cpu: float = 30.0
    interval: float = 1.0
    # at the start of each test, because most tests end within a few milliseconds
    unwatched: float = 5.0


class HangWatch:
    """Watch the current test in a thread, and raise in the main thread if it hangs."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._condition = threading.Condition()
        self._test: object = None
        self._reason = ""
        signal.signal(INTERRUPT, self._fail)
        threading.Thread(target=self._watch, daemon=True, name="hang-watch").start()

    def begin(self) -> None:
        """Watch a test from now on."""
        with self._condition:
            self._test = object()
            self._condition.notify()

    def end(self) -> None:
        """Stop watching until the next test begins."""
        self._test = None

    def _watch(self) -> None:
        limits = self._limits
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._test)
                test = self._test
            threading.Event().wait(limits.unwatched)
            if self._test is not test:
                continue
            clock = IdleClock(family)
            while self._test is test:
                threading.Event().wait(limits.interval)
                clock.check()
                if clock.idle_seconds >= limits.idle:
                    self._interrupt(
                        f"no process of this test has been active for {limits.idle:g} s"
                    )
                elif clock.cpu_seconds >= limits.cpu:
                    self._interrupt(f"this test has computed for {limits.cpu:g} s")
                else:
                    continue
                clock = IdleClock(family)  # the test's clean-up may hang, too

    def _interrupt(self, reason: str) -> None:
        self._reason = reason
        signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)

    def _fail(self, number: int, frame: FrameType | None) -> None:
        if self._test is None or is_debugging():
            return  # the test has ended, or is being debugged
        faulthandler.dump_traceback(sys.__stderr__)
        pytest.fail(f"{self._reason}. If it does not hang, make it cheaper or mark it long")
