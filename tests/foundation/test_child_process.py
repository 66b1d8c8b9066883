"""A background process has the lowest priority, and ends with its owner.

tests/foundation/test_process_pool.py tests children of `multiprocessing`.
"""

import subprocess
import sys

import psutil
import pytest

from foundation.process_pool import LOWEST_PRIORITY

HANG_SECONDS = 300

# A background process that starts a child and prints the child's id.
BACKGROUND = """
import subprocess, sys, time
from foundation.process_pool import enter_background
enter_background()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1e6)"])
print(child.pid, flush=True)
time.sleep(1e6)
"""
OWNER = """
import subprocess, sys
command = [sys.executable, "-P", "-c", sys.argv[1]]
background = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
sys.stdin.read()
background.stdin.close()
background.wait()
"""


@pytest.mark.parametrize("ends_by", ["closing", "kill"])
def test_a_background_process_and_its_children_end_with_the_owner(ends_by: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-P", "-c", OWNER, BACKGROUND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    child = psutil.Process(int(owner.stdout.readline()))
    try:
        assert child.nice() == LOWEST_PRIORITY
        if ends_by == "kill":
            owner.kill()
        owner.stdin.close()
        owner.wait(HANG_SECONDS)
        gone, alive = psutil.wait_procs([child], HANG_SECONDS)
        assert not alive
        assert len(gone) == 1
    finally:
        owner.stdout.close()
        if child.is_running():
            child.kill()
