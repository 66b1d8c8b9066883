"""A process pool gives the same results as one process, and no process outlives its owner."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.cluster.processes import HANG_SECONDS, children, is_alive, wait_until
from support.ranks import pool_jobs
from support.ranks.pool_jobs import (
    DELIVERED,
    end_at_five,
    end_while_writing,
    enlarge,
    given_up,
    negate,
    own_pid,
    refuse_five,
)

from data_pipeline.errors import CorpusError, DatasetFileError
from foundation.process_pool import JOBS_PER_PROCESS, ProcessPool, process_pool

MORE_THAN_A_PIPE_HOLDS = 100_000
KILLED = r"A process that counted was killed \(exit code -9\)"


def new_pool(processes: int) -> AbstractContextManager[ProcessPool]:
    return process_pool(processes, "counted", ChildProcessError)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = children()
    yield
    assert set(children()) <= set(before)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_results_come_in_the_order_of_the_jobs(processes: int) -> None:
    data = [b"x" * MORE_THAN_A_PIPE_HOLDS] * 9
    with new_pool(processes) as pool:
        assert list(pool.map(negate, range(50))) == [-number for number in range(50)]
        assert list(pool.map(negate, iter(()))) == []
        assert list(pool.map(enlarge, data)) == [3 * part for part in data]


def test_a_pool_of_one_process_runs_jobs_in_the_calling_process() -> None:
    with new_pool(1) as pool:
        assert set(pool.map(own_pid, range(3))) == {os.getpid()}
    with new_pool(2) as pool:
        assert os.getpid() not in set(pool.map(own_pid, range(3)))


@pytest.mark.parametrize("processes", [1, 2])
def test_the_pool_reads_few_jobs_ahead_of_results(processes: int) -> None:
    taken = 0

    def jobs() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    with new_pool(processes) as pool:
        for received, _ in enumerate(pool.map(negate, jobs()), 1):
            assert taken - received < JOBS_PER_PROCESS * processes


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_a_job_is_raised_unchanged(processes: int) -> None:
    with pytest.raises(DatasetFileError) as caught, new_pool(processes) as pool:
        list(pool.map(refuse_five, range(20)))
    error = caught.value
    assert (error.file, error.expected, error.found) == ("five", "six", "seven")


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_pool_can_be_used_again_after_an_error(processes: int) -> None:
    """Late results of the first jobs must not be returned for later jobs."""
    with new_pool(processes) as pool:
        for _ in range(3):
            with pytest.raises(DatasetFileError):
                list(pool.map(refuse_five, range(20)))
            assert list(pool.map(negate, range(50))) == [-number for number in range(50)]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_the_iterator_of_jobs_is_raised(processes: int) -> None:
    def jobs() -> Iterator[int]:
        yield 1
        raise CorpusError("no second job")

    with pytest.raises(CorpusError, match="no second job"), new_pool(processes) as pool:
        list(pool.map(negate, jobs()))


@pytest.mark.parametrize("job", [end_at_five, end_while_writing])
def test_a_killed_process_is_reported(job: object) -> None:
    with (
        pytest.raises(ChildProcessError, match=r"that counted was killed \(exit code -9\)"),
        new_pool(2) as pool,
    ):
        list(pool.map(job, range(20)))


def test_closing_a_pool_does_not_wait_for_abandoned_jobs(tmp_path: Path) -> None:
    """The abandoned jobs would sleep for an hour."""
    with pytest.raises(KeyboardInterrupt), new_pool(2) as pool:
        list(pool.map(pool_jobs.sleep, given_up(tmp_path)))
    assert len(list(tmp_path.iterdir())) >= 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_if_their_owner_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    owner = subprocess.Popen([sys.executable, pool_jobs.__file__, str(tmp_path)])
    pids = pids_of_busy_pool(tmp_path)
    owner.send_signal(how)
    owner.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_ctrl_c_ends_all_processes_with_a_single_traceback(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, pool_jobs.__file__, str(tmp_path)],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    pids = pids_of_busy_pool(tmp_path)
    os.killpg(owner.pid, signal.SIGINT)
    _, errors = owner.communicate(timeout=HANG_SECONDS)
    assert errors.decode().count("Traceback") == 1
    assert b"SpawnProcess" not in errors  # the pool's processes print no traceback
    assert not any(is_alive(pid) for pid in pids)


def pids_of_busy_pool(folder: Path) -> list[int]:
    """Wait until two processes work and a third has delivered its result; return all pids."""
    wait_until(lambda: len(list(folder.iterdir())) == 4)
    return [int(path.name) for path in folder.iterdir() if path.name != DELIVERED]
