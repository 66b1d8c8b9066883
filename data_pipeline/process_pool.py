"""All cores at work on a stream of jobs, with a bounded number of them in memory.

Results come in the order of the jobs, so nothing depends on how many processes there are.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from data_pipeline.errors import DatasetError

Job = TypeVar("Job")
Result = TypeVar("Result")

JOBS_PER_PROCESS = 2  # in flight: one at work, one waiting


# Starting processes takes longer than working through so little.
BYTES_FOR_ONE_PROCESS = 4_000_000


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def enough_processes(total_bytes: int) -> int:
    """One for each core, or only one for little work."""
    return 1 if total_bytes < BYTES_FOR_ONE_PROCESS else cores()


class ProcessPool:
    """Runs a function on jobs, in other processes or, if there is to be one only, in this one."""

    def __init__(self, executor: ProcessPoolExecutor | None, processes: int) -> None:
        self._executor = executor
        self._processes = processes

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """The function's results in the order of the jobs, which are taken as needed.

        Raises what the function raises, and DatasetError if a process was killed.
        """
        if self._executor is None:
            yield from map(function, jobs)
            return
        running: deque[Future[Result]] = deque()
        try:
            for job in jobs:
                running.append(self._submit(function, job))
                if len(running) >= JOBS_PER_PROCESS * self._processes:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except BrokenProcessPool as error:
            raise DatasetError(
                f"One of {self._processes} processes was killed while it prepared data, most "
                "likely for want of memory. Nothing was published. Run the command again, with "
                "fewer --processes if memory is short."
            ) from error

    def _submit(self, function: Callable[[Job], Result], job: Job) -> Future[Result]:
        """Processes are started here, and are to be deaf to Ctrl-C before they know how to be."""
        assert self._executor is not None
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._executor.submit(function, job)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def process_pool(processes: int) -> Iterator[ProcessPool]:
    """A pool for the time of the context. An exception ends its processes in the midst of jobs."""
    if processes == 1:
        yield ProcessPool(None, 1)
        return
    # A fork would copy the locks of whatever threads this process has.
    context = multiprocessing.get_context("spawn")
    watched, held = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_end_when_closed, initargs=(watched,)
    )
    try:
        yield ProcessPool(executor, processes)
    except BaseException:
        held.close()  # a job may take minutes, and nobody waits for it any more
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        held.close()
        watched.close()


def _end_when_closed(watched: Connection) -> None:
    """Lets a process of the pool end as soon as nobody holds the other end of the pipe.

    Its owner closes that end, or was killed.
    """

    def watch() -> None:
        wait([watched])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
