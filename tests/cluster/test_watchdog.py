"""A process ends itself when its supervisor has fallen silent."""

import signal
import subprocess
import sys
import time

PROGRAM = """
import sys, time
from cluster.watchdog import Watchdog
watchdog = Watchdog(silence_seconds=1.0)
print("ready", flush=True)
for _ in range(int(sys.argv[1])):
    time.sleep(0.5)
    watchdog.heard()
print("silent", flush=True)
time.sleep(60)
"""


def test_it_lives_as_long_as_it_hears_of_the_supervisor_and_not_longer():
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "4"], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.stdout.readline() == "silent\n"  # after twice the silence allowed
        since = time.monotonic()
        assert process.wait(timeout=30) == -signal.SIGKILL
        assert time.monotonic() - since > 0.5
