"""`transloom dashboard` as a process: address, responses, and stop by a signal."""

import http.client
import os
import re
import signal
import subprocess

import psutil
from support.records.lines import train_line
from support.records.run_folders import made_run

from transloom.cli.sweep_runs import TRANSLOOM
from transloom.observe.dashboard.serving import NICENESS

HANG_SECONDS = 300


def test_the_dashboard_serves_until_it_is_interrupted(tmp_path):
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
        assert "torch" not in loaded_libraries(command.pid)  # torch would use memory
        command.send_signal(signal.SIGINT)
        assert command.wait(HANG_SECONDS) == 0
        assert "Traceback" not in command.stdout.read()
    finally:
        command.kill()
        command.wait()
        command.stdout.close()


def loaded_libraries(pid):
    return "\n".join(found.path for found in psutil.Process(pid).memory_maps())
