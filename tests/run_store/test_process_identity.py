"""A process is identified by its id and start time."""

import os
import subprocess
import sys
from pathlib import Path

from run_store.process_identity import start_tick


def test_start_tick_counts_ticks_since_boot():
    tick = start_tick(os.getpid())
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 < tick <= uptime * os.sysconf("SC_CLK_TCK")
    assert start_tick(os.getpid()) == tick


def test_a_process_that_has_ended_has_no_start_tick():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert start_tick(ended.pid) is None  # a zombie until `wait` is called
    ended.wait()
    assert start_tick(ended.pid) is None
