"""A process ends itself if its supervisor sends no heartbeats."""

import signal
import threading
from itertools import count

from support.command import started_python

from cluster.health import watchdog
from cluster.health.watchdog import HeartbeatSender, Watchdog

# The program prints a line at each check; its clock advances by half a second for each line of its
# input.
PROGRAM = """
import threading
from cluster.health.watchdog import Watchdog
seconds = 0.0
def pause(wanted):
    global seconds
    print("looks", flush=True)
    seconds += wanted
    if input() == "heard":
        watchdog.heartbeat()
made = threading.Event()
watchdog = Watchdog(2.5, clock=lambda: seconds, pause=lambda wanted: made.wait() and pause(wanted))
made.set()
threading.Event().wait()
"""


def test_a_process_ends_itself_when_heartbeats_stop_and_not_earlier():
    with started_python(PROGRAM) as process:
        try:
            for news in ["heard"] * 10 + ["silent"] * 4 + ["heard"] + ["silent"] * 5:
                assert process.stdout.readline() == "looks\n"
                print(news, file=process.stdin, flush=True)
            assert process.stdout.readline() == ""  # the process has ended
            assert process.wait() == -signal.SIGKILL
        finally:
            process.kill()


class Actor:
    """Stand-in for Ray's handle of an actor, whose ``heartbeat`` is called remotely."""

    def __init__(self, error=None):
        self.heartbeat = self
        self.times = 0
        self.often = threading.Event()
        self._error = error

    def remote(self):
        self.times += 1
        if self.times == 3:
            self.often.set()
        if self._error:
            raise self._error


def test_an_unreachable_actor_does_not_stop_heartbeats_to_other_actors(monkeypatch):
    monkeypatch.setattr(watchdog, "HEARTBEAT_SECONDS", 0.01)
    gone, alive = Actor(RuntimeError("the actor is gone")), Actor()
    with HeartbeatSender(lambda: [gone, alive]):
        assert alive.often.wait(60)
    assert gone.times >= 3


def test_an_error_in_the_watchdog_s_last_action_does_not_keep_the_process_alive(monkeypatch):
    killed, errors = threading.Event(), []
    monkeypatch.setattr(watchdog.os, "kill", lambda pid, signal: killed.set())
    monkeypatch.setattr(threading, "excepthook", lambda error: errors.append(error.exc_value))

    def fail():
        raise OSError("the disk is full")

    Watchdog(timeout_seconds=1.0, clock=count().__next__, pause=lambda _: None, at_end=fail)
    assert killed.wait(30)
