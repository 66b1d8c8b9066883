"""A process ends itself when its supervisor has fallen silent."""

import signal
import subprocess
import sys
import threading
import time

from cluster import watchdog
from cluster.watchdog import SignsOfLife

PROGRAM = """
import sys, time
from cluster.watchdog import Watchdog
watchdog = Watchdog(silence_seconds=2.5)
print("ready", flush=True)
for _ in range(int(sys.argv[1])):
    time.sleep(0.5)
    watchdog.heard()
print("silent", flush=True)
time.sleep(60)
"""


def test_it_lives_as_long_as_it_hears_of_the_supervisor_and_not_longer():
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "10"], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.stdout.readline() == "silent\n"  # after twice the silence allowed
        since = time.monotonic()
        assert process.wait(timeout=30) == -signal.SIGKILL
        assert time.monotonic() - since > 0.5


class Actor:
    """As Ray's handle of one: ``heard`` is called from afar."""

    def __init__(self, error=None):
        self.heard = self
        self.times = 0
        self.often = threading.Event()
        self._error = error

    def remote(self):
        self.times += 1
        if self.times == 3:
            self.often.set()
        if self._error:
            raise self._error


def test_an_actor_that_cannot_be_told_does_not_silence_the_supervisor(monkeypatch):
    monkeypatch.setattr(watchdog, "SIGN_OF_LIFE_SECONDS", 0.01)
    gone, alive = Actor(RuntimeError("the actor is gone")), Actor()
    with SignsOfLife(lambda: [gone, alive]):
        assert alive.often.wait(20)
    assert gone.times >= 3
