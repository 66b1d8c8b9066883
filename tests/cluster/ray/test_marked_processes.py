import os
import subprocess
import sys

from support.cluster.processes import is_alive

from cluster.ray.marked_processes import MARK, MarkedProcesses

# Starts another process and exits without ending it.
PARENT = """
import subprocess, sys
sleep = [sys.executable, "-c", "import time; time.sleep(1000)"]
print(subprocess.Popen(sleep, stdout=subprocess.DEVNULL).pid)
"""


def orphan_of(marked: MarkedProcesses) -> int:
    with marked.marking():
        parent = subprocess.run([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, check=True)
    return int(parent.stdout)


def test_orphans_are_found_by_their_mark_and_killed():
    ours, theirs = MarkedProcesses(), MarkedProcesses()
    orphan, other = orphan_of(ours), orphan_of(theirs)
    try:
        assert [process.pid for process in ours.alive()] == [orphan]
        ours.kill()
        assert not is_alive(orphan)
        assert ours.alive() == []
        assert is_alive(other)
    finally:
        theirs.kill()


def test_marking_restores_the_environment_afterwards(monkeypatch):
    monkeypatch.setenv(MARK, "of a parent")
    before = dict(os.environ)
    with MarkedProcesses().marking():
        assert os.environ[MARK] != "of a parent"
    assert dict(os.environ) == before
