"""`transloom dashboard` as a process: it says its address, answers, and ends when it is told to."""

import http.client
import os
import re
import signal
import subprocess
import sys

import psutil
import pytest
from support.records.lines import train_line
from support.records.run_folders import made_run

from foundation.child_process import LOWEST_PRIORITY
from transloom.cli.dashboard import COMMAND_LINE
from transloom.cli.sweep_runs import TRANSLOOM
from transloom.observe.dashboard.look_process import look_command
from transloom.observe.dashboard.serving import NICENESS

HANG_SECONDS = 300


def test_the_command_serves_until_it_is_told_to_stop(tmp_path):
    made_run(tmp_path / "runs" / "one", train_line(1))
    environment = {**os.environ, "TRANSLOOM_CACHE": str(tmp_path / "cache")}
    command = subprocess.Popen(
        [*TRANSLOOM, "dashboard", str(tmp_path / "runs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    try:
        address = None
        while not address:
            line = command.stdout.readline()
            assert line, "it has ended"
            address = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]{43})$", line)
        assert psutil.Process(command.pid).nice() == min(19, psutil.Process().nice() + NICENESS)
        assert address[2] not in " ".join(psutil.Process(command.pid).cmdline())
        connection = http.client.HTTPConnection("127.0.0.1", int(address[1]), timeout=HANG_SECONDS)
        connection.request("GET", f"/api/runs?token={address[2]}")
        response = connection.getresponse()
        response.read()
        cookie = response.getheader("Set-Cookie").split(";")[0]
        connection.request("GET", response.getheader("Location"), headers={"Cookie": cookie})
        assert b'"name":"one"' in connection.getresponse().read()
        connection.close()
        assert "torch" not in loaded_libraries(command.pid)  # which would take its memory
        command.send_signal(signal.SIGINT)
        assert command.wait(HANG_SECONDS) == 0
        assert "Traceback" not in command.stdout.read()
    finally:
        command.kill()
        command.wait()
        command.stdout.close()


def loaded_libraries(pid):
    return "\n".join(found.path for found in psutil.Process(pid).memory_maps())


@pytest.mark.parametrize("ends_by", ["closing", "kill"])
def test_a_look_ends_with_its_server_however_that_ends(tmp_path, ends_by):
    """The process of a look, with one that it has started in its turn."""
    python, option, code, _ = look_command(COMMAND_LINE)
    waiting = "import subprocess, sys, time\n" + (
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1e6)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(1e6)"
    )
    begin = "from foundation.child_process import enter_background\nenter_background()\n"
    look = (python, option, code, begin + waiting)
    server = (
        "import subprocess, sys\n"
        f"look = subprocess.Popen({look!r}, stdin=subprocess.PIPE, start_new_session=True)\n"
        "sys.stdin.read()\nlook.stdin.close()\nlook.wait()"
    )
    started = subprocess.Popen(
        [sys.executable, "-P", "-c", server], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child = psutil.Process(int(started.stdout.readline()))
    try:
        assert child.nice() == LOWEST_PRIORITY
        if ends_by == "kill":
            started.kill()
        started.stdin.close()
        started.wait(HANG_SECONDS)
        gone, alive = psutil.wait_procs([child], HANG_SECONDS)
        assert not alive
        assert len(gone) == 1
    finally:
        started.stdout.close()
        if child.is_running():
            child.kill()
