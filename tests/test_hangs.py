"""The hang watch ends tests that hang, but not tests that are only slow."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from support.cluster.processes import wait_until
from support.quality import hangs
from support.quality.activity import IdleClock
from support.quality.hangs import HangWatch, Limits


@pytest.fixture
def watch(monkeypatch):
    monkeypatch.setattr(hangs.faulthandler, "dump_traceback", lambda file: None)
    of_this_session = signal.getsignal(hangs.INTERRUPT)
    watch = HangWatch(Limits(idle=1.0, cpu=3.0, interval=0.1, unwatched=0.1))
    yield watch
    watch.end()
    signal.signal(hangs.INTERRUPT, of_this_session)


def compute_for_ever():
    while True:
        pass


def test_a_test_that_waits_without_activity_is_ended(watch):
    watch.begin()
    with pytest.raises(pytest.fail.Exception, match="active for 1 s"):
        threading.Event().wait(30)


def test_a_test_that_waits_for_a_sleeping_child_is_ended(watch):
    with subprocess.Popen(["sleep", "30"]) as child:
        watch.begin()
        with pytest.raises(pytest.fail.Exception, match="active for 1 s"):
            child.wait()
        watch.end()
        child.kill()


def test_a_test_in_an_endless_loop_is_ended(watch):
    watch.begin()
    with pytest.raises(pytest.fail.Exception, match="computed for 3 s"):
        compute_for_ever()


def test_a_test_that_waits_for_a_computing_child_is_not_ended(watch):
    loop = "import time; end = time.process_time() + 1.5\nwhile time.process_time() < end: pass"
    watch.begin()
    subprocess.run([sys.executable, "-c", loop], check=True)


def test_finished_tests_are_not_watched(watch):
    for _ in range(5):
        watch.begin()
        time.sleep(0.3)
        watch.end()


def test_a_process_that_waits_for_a_core_is_not_idle():
    """Four endless loops share one core, so each of them often waits for it."""
    loop = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nwhile True: pass"
    loops = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(4)]
    try:
        clock = IdleClock(lambda: [loops[0].pid])
        wait_until(lambda: clock.check() or clock.cpu_seconds > 0.2)  # the process has started
        for _ in range(12):
            time.sleep(0.1)
            clock.check()
            assert clock.idle_seconds < 1
    finally:
        for process in loops:
            process.kill()
            process.wait()
