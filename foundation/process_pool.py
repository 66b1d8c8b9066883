"""Process pool that runs a stream of jobs on all cores, with a bounded number in memory.

Results are in the order of the jobs, so they do not depend on the number of processes.

Every process has a separate pipe. In concurrent.futures, all processes share one pipe. If a process
is killed while it writes a large result to this pipe, all other processes wait forever for the rest
of the result.

If a parent is killed, its children keep running. So each child watches a pipe that closes when its
parent ends:

    multiprocessing  the sentinel of the parent process              end_with_parent
    subprocess       standard input, which the parent keeps open     enter_background
"""

import io
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from typing import Any, TypeVar

LOWEST_PRIORITY = 19
JOBS_PER_PROCESS = 2  # maximum jobs in memory: waiting, running, or finished but not yielded


def end_with_parent() -> None:
    """End this process of `multiprocessing` when its parent ends, even in the middle of a job."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    _call_after(lambda: wait([parent.sentinel]), lambda: os._exit(1))


def enter_background() -> None:
    """Take the lowest CPU priority, and kill this process group when standard input ends.

    The parent starts the process in a new session, with a pipe as its standard input.
    """
    os.nice(LOWEST_PRIORITY)
    owner = io.FileIO(os.dup(sys.stdin.fileno()))
    _call_after(owner.read, lambda: os.killpg(os.getpgrp(), signal.SIGKILL))


def _call_after(wait_for_end: Callable[[], object], call: Callable[[], object]) -> None:
    def watch() -> None:
        wait_for_end()
        call()

    threading.Thread(target=watch, name="owner's end", daemon=True).start()


Job = TypeVar("Job")
Result = TypeVar("Result")


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def enough_processes(work: int, work_of_one: int) -> int:
    """Return the number of processes for some work: one per core, or only one for little work.

    Args:
        work_of_one: minimum work for which several processes are worthwhile, in the unit of `work`.
    """
    return 1 if work < work_of_one else cores()


class ProcessPool:
    """Pool that runs a function on jobs, in its processes, or in this process if it has none."""

    def __init__(self, workers: list["_Worker"]) -> None:
        self._workers = workers

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield the function's results in the order of the jobs, which are consumed as needed.

        Raises:
            Exception: any exception of the function, or the pool's error if a process was killed.
        """
        if not self._workers:
            yield from map(function, jobs)
            return
        numbered = enumerate(jobs)
        results: dict[int, Any] = {}
        idle, busy = list(self._workers), dict[Connection, tuple[_Worker, int]]()
        wanted = 0  # number of the next result to yield
        upcoming = next(numbered, None)
        while upcoming or busy or results:
            ahead = JOBS_PER_PROCESS * len(self._workers) - 1
            while upcoming and idle and upcoming[0] < wanted + ahead:
                worker = idle.pop()
                worker.send(function, upcoming[1])
                busy[worker.connection] = (worker, upcoming[0])
                upcoming = next(numbered, None)
            if wanted in results:
                yield results.pop(wanted)
                wanted += 1
                continue
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                worker, number = busy.pop(connection)
                results[number] = worker.receive()
                idle.append(worker)


@contextmanager
def process_pool(
    processes: int, work: str, error: Callable[[str], Exception]
) -> Iterator[ProcessPool]:
    """Return a context with a pool, whose processes are killed at the end, even if they are busy.

    Args:
        processes: number of processes; with 1, this process does the work itself.
        work: past-tense phrase such as "prepared data", for the message about a killed process.
        error: function that returns the exception for a killed process, given the message.
    """
    workers: list[_Worker] = []
    # A fork would copy locks held by other threads of this process.
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # first, because its start unblocks SIGINT
    # Only this process handles Ctrl-C, and then ends the others.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        try:
            workers += [
                _Worker(context, work, error) for _ in range(processes if processes > 1 else 0)
            ]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield ProcessPool(workers)
    finally:
        for worker in workers:
            worker.kill()


class _Worker:
    """The parent's handle of one process."""

    def __init__(self, context: SpawnContext, work: str, error: Callable[[str], Exception]) -> None:
        self._work, self._error = work, error
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()  # lets the pipe close when the process ends
        self._owes_answer = False

    def send(self, function: Callable[[Any], Any], job: Any) -> None:
        if self._owes_answer:  # its job was abandoned, because another job failed
            self._answer()
        try:
            self.connection.send((function, job))
        except OSError as error:
            raise self._lost() from error
        self._owes_answer = True

    def receive(self) -> Any:
        """Return the result of the last job, or raise its exception."""
        succeeded, result = self._answer()
        if not succeeded:
            raise result
        return result

    def _answer(self) -> Any:
        try:
            answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        self._owes_answer = False
        return answer

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self.connection.close()

    def _lost(self) -> Exception:
        self._process.join()
        return self._error(
            f"A process that {self._work} was killed (exit code {self._process.exitcode}), most "
            "likely because memory ran out. Run the command again, with fewer --processes if "
            "memory is short."
        )


def _serve(connection: Connection) -> None:
    """Run jobs in a process of the pool, until its parent ends."""
    end_with_parent()
    while True:
        function, job = connection.recv()
        try:
            answer = (True, function(job))
        except Exception as error:
            error.add_note(f"In a process of the pool:\n{traceback.format_exc()}")
            answer = (False, error)
        connection.send(answer)
