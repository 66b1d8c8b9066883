"""All cores at work on a stream of jobs, with a bounded number of them in memory.

Results come in the order of the jobs, so nothing depends on how many processes there are.

Every process has a pipe of its own. In concurrent.futures they share one: a process that is killed
while it writes a large result there leaves all others waiting for the rest, for ever.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from typing import Any, TypeVar

from foundation.child_process import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")

JOBS_PER_PROCESS = 2  # jobs in memory: waiting, at work, or with a result that waits


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def enough_processes(work: int, work_of_one: int) -> int:
    """The processes for so much work: one for each core, or one in all if there is little.

    Args:
        work_of_one: the least work for which starting other processes pays, in units of `work`.
    """
    return 1 if work < work_of_one else cores()


class ProcessPool:
    """Runs functions on jobs, in other processes or, if it has none, in this one."""

    def __init__(self, workers: list["_Worker"]) -> None:
        self._workers = workers

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yields the function's results in the order of the jobs, which are taken as needed.

        Raises:
            Exception: what the function raises, or the pool's own error if a process was killed.
        """
        if not self._workers:
            yield from map(function, jobs)
            return
        numbered = enumerate(jobs)
        results: dict[int, Any] = {}
        idle, busy = list(self._workers), dict[Connection, tuple[_Worker, int]]()
        wanted = 0  # the number of the result that comes next
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
    """A pool for the time of the context, at whose end its processes are killed, whatever they do.

    Args:
        processes: with 1, no other process is started: this one does the work.
        work: what the processes do, in the words of a message, such as "prepared data".
        error: the exception that says that a process which did this work was killed.
    """
    workers: list[_Worker] = []
    # A fork would copy the locks of whatever threads this process has.
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # unblocks the signal when it starts
    # Ctrl-C is for this process alone, which then ends the others.
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
    """The owner's side of one process."""

    def __init__(self, context: SpawnContext, work: str, error: Callable[[str], Exception]) -> None:
        self._work, self._error = work, error
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe ends when the process does
        self._owes_answer = False

    def send(self, function: Callable[[Any], Any], job: Any) -> None:
        if self._owes_answer:  # to a job that was given up when another one failed
            self._answer()
        try:
            self.connection.send((function, job))
        except OSError as error:
            raise self._lost() from error
        self._owes_answer = True

    def receive(self) -> Any:
        """Returns the result of the last job, or raises what the job has raised."""
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
            "likely for want of memory. Run the command again, with fewer --processes if memory "
            "is short."
        )


def _serve(connection: Connection) -> None:
    """Run jobs in a process of the pool until its owner ends."""
    end_with_parent()
    while True:
        function, job = connection.recv()
        try:
            answer = (True, function(job))
        except Exception as error:
            error.add_note(f"In a process of the pool:\n{traceback.format_exc()}")
            answer = (False, error)
        connection.send(answer)
