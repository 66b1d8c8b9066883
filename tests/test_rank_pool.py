"""The pool of rank processes for tests, which must remain usable after a failed test."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.processes import is_alive, wait_until
from support.ranks import rank_pool
from support.ranks.rank_pool import RankPool

from trainer.process.placement import Placement


def rank_of(placement: Placement) -> int:
    return placement.rank


def hang_on_rank_1(placement: Placement) -> None:
    if placement.rank == 1:
        time.sleep(3600)


def compute_for_ever_on_rank_1(placement: Placement) -> None:
    while placement.rank == 1:
        pass


def rendezvous_of(placement: Placement) -> str | None:
    return placement.rendezvous


def process_id(placement: Placement) -> int:
    return os.getpid()


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    started = RankPool(2)
    yield started
    started.close()


def test_a_job_that_hangs_is_ended_with_the_stacks_of_its_ranks(
    pool: RankPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.run(rank_of)  # start the ranks, which import this file
    monkeypatch.setattr(rank_pool, "IDLE_SECONDS", 2.0)

    with pytest.raises(AssertionError, match=r"Rank 1: no result, and idle for 2 s") as error:
        pool.run(hang_on_rank_1)

    assert "in hang_on_rank_1" in str(error.value)
    assert "Rank 0" not in str(error.value)
    assert pool.run(rank_of) == [0, 1]


def test_a_job_that_computes_for_too_long_is_ended(pool: RankPool) -> None:
    pool.run(rank_of)

    with pytest.raises(AssertionError, match=r"Rank 1: no result after 1 s of CPU time") as error:
        pool.run(compute_for_ever_on_rank_1, cpu_seconds=1.0)

    assert "in compute_for_ever_on_rank_1" in str(error.value)
    assert pool.run(rank_of) == [0, 1]


def test_the_pool_is_usable_after_an_interrupted_wait(
    pool: RankPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rank_pool, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.run(hang_on_rank_1)

    assert pool.run(rank_of) == [0, 1]


def test_ranks_that_ended_between_jobs_are_replaced(pool: RankPool) -> None:
    killed = pool.run(process_id)
    for process in killed:
        os.kill(process, signal.SIGKILL)
        wait_until(lambda ended=process: not is_alive(ended))

    with pytest.raises(AssertionError, match="Rank 0: the process has ended"):
        pool.run(rank_of)

    assert pool.run(rank_of) == [0, 1]


def test_the_ranks_of_a_pool_rendezvous_by_a_private_file(pool: RankPool) -> None:
    """Each start uses a new file in the pool's private folder instead of a port."""
    folder = Path(pool._folder.name)
    assert folder.stat().st_mode & 0o777 == 0o700
    first, second = pool.run(rendezvous_of)
    assert first == second
    assert Path(first.removeprefix("file://")).parent == folder
    pool._restart()
    assert pool.run(rendezvous_of)[0] != first
