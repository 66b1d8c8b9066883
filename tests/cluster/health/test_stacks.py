"""Stacks of hung ranks, and where they are saved."""

import os
import re
import signal
import subprocess
import sys

import psutil
import pytest
from support.cluster.processes import wait_until

from cluster.errors import RankHungError, RankLostError
from cluster.health import stacks
from cluster.health.stacks import attach_stacks, save_stacks, stacks_of
from run_store.folder import RunFolder

HANGS = """
import ctypes
from cluster.health.stacks import enable_stack_dumps

def holds_the_interpreter_lock():
    print("here", flush=True)
    while True:  # a signal wakes it up
        ctypes.PyDLL(None).sleep(600)

enable_stack_dumps()
holds_the_interpreter_lock()
"""
PREPARED_FOR_NOTHING = "import time; print('here', flush=True); time.sleep(600)"


@pytest.fixture
def start():
    """Return a function that starts a program and waits until it prints `here`."""
    started = []

    def start(program: str) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"here\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_process_that_holds_the_interpreter_lock_shows_its_stack(start):
    one, another = start(HANGS), start(HANGS)
    for process, text in zip((one, another), stacks_of([one.pid, another.pid]), strict=True):
        assert text.startswith(f"process {process.pid}, ")
        assert "in holds_the_interpreter_lock" in text
    again = stacks_of([one.pid])[0]
    assert again.count("in holds_the_interpreter_lock") == 1  # the earlier dump is not repeated


def test_a_stopped_process_is_reported_with_its_state(start, monkeypatch):
    monkeypatch.setattr(stacks, "DUMP_SECONDS", 0.2)
    process = start(HANGS)
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    (text,) = stacks_of([process.pid])
    assert "(stopped)" in text
    assert "No Python stack: the process is not running" in text


def test_a_process_without_a_dump_handler_gets_no_signal(start):
    """The signal would kill the process."""
    process = start(PREPARED_FOR_NOTHING)
    (text,) = stacks_of([process.pid])
    assert "No Python stack" in text
    assert process.poll() is None


def test_a_process_that_has_ended_is_reported(start):
    process = start(PREPARED_FOR_NOTHING)
    process.kill()
    process.wait()
    (text,) = stacks_of([process.pid])
    assert text.startswith(f"process {process.pid}: No such")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo dump of $4 by $2", "dump of {pid} by --native"),
        ('test $2 = --nonblocking && echo "dump by $2"', "dump by --nonblocking"),
        ("echo no permission >&2; exit 1", "No native stack: no permission"),
        ("exec sleep 600", "No native stack: .* timed out"),
    ],
)
def test_py_spy_dumps_native_stacks_if_it_is_installed(tmp_path, monkeypatch, script, says):
    if says.endswith("timed out"):
        monkeypatch.setattr(stacks, "PY_SPY_SECONDS", 0.2)
    program = tmp_path / "py-spy"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    pid = os.getpid()
    text = stacks._native_stacks(pid)
    assert re.search(says.format(pid=pid), text)


def test_only_the_stacks_of_the_newest_hangs_are_kept(tmp_path):
    run = RunFolder(tmp_path)
    for year in range(2001, 2010):
        (run.stacks / f"{year}-01-01T00-00-00").mkdir(parents=True)
    folder = save_stacks(run, {0: "here\n", 1: "there\n"}, pytest.fail)
    assert (folder / "rank-1.txt").read_text() == "there\n"
    kept = sorted(path.name for path in run.stacks.iterdir())
    assert len(kept) == stacks.MAX_SAVED_HANGS
    assert kept[-1] == folder.name
    assert kept[0].startswith("2006")


def test_stacks_that_cannot_be_saved_cause_a_notice_and_no_error(tmp_path):
    run, notices = RunFolder(tmp_path), []
    run.stacks.write_text("in the way")
    assert save_stacks(run, {0: "here"}, notices.append) is None
    assert "could not be saved" in notices[0]


def test_a_hang_error_names_the_folder_of_its_stacks(tmp_path):
    run = RunFolder(tmp_path)
    hang = RankHungError("Rank 1 hangs")
    told = attach_stacks(hang, run, lambda: {0: "waits", 1: "loops"}, pytest.fail)
    (folder,) = run.stacks.iterdir()
    assert isinstance(told, RankHungError)
    assert str(told) == f"Rank 1 hangs. The stacks of all ranks are in {folder}"
    assert (folder / "rank-1.txt").read_text() == "loops"


def test_no_stacks_are_requested_when_a_rank_has_died(tmp_path):
    run = RunFolder(tmp_path)
    death = RankLostError("Rank 1 has died")
    assert attach_stacks(death, run, lambda: pytest.fail("asked"), pytest.fail) is death
    assert not run.stacks.exists()
