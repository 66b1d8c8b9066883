"""Rank processes that stay alive between tests, since importing DeepSpeed takes seconds.

A job is an importable function ``job(placement, *arguments)``; the pool runs it on all of its
ranks, which are one process group, and returns their results. The ranks of all pools are forked
from one process that has imported it.
"""

import gc
import itertools
import multiprocessing
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from trainer.rank.placement import Placement

# What a rank waits in a collective. One that has more to do than the others does it on a busy
# machine too.
A_JOB_OF_THE_OTHER_RANKS = timedelta(minutes=10)
IMPORTED = ["trainer.build.rank", "torch._dynamo"]  # which ZeRO-3 imports
LAST_WORDS_SECONDS = 20.0  # of ranks that fail because another one has
JOBS_UNTIL_CLEANING = 10
# DeepSpeed never releases a stage 3 engine and its process group. Its three threads wake up 100
# times a second, between jobs too. A rank with more threads than this is replaced, which takes
# 20 ms of CPU time; a fresh rank has 9, and one with 200 takes ten times as long for a step.
MOST_THREADS = 24


def preloaded_context() -> Any:
    """Return a multiprocessing context whose processes fork from one that has imported the trainer.

    They have the environment and the standard streams of that process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)  # without effect once its first process has started
    return context


class RankPool:
    def __init__(
        self, world_size: int, method: Literal["forkserver", "spawn"] = "forkserver"
    ) -> None:
        """method: "spawn" for ranks whose libraries are to read the environment as it is now."""
        self._world_size = world_size
        self._context: Any = (
            preloaded_context() if method == "forkserver" else multiprocessing.get_context(method)
        )
        self._start()

    def run(self, job: Callable[..., Any], *arguments: Any) -> list[Any]:
        for pipe in self._pipes:
            pipe.send((job, arguments))
        answers: dict[int, Any] = {}
        failures: dict[int, str] = {}
        most_threads = 0
        while pending := [pipe for rank, pipe in enumerate(self._pipes) if rank not in answers]:
            ready = wait(pending, timeout=LAST_WORDS_SECONDS if failures else None)
            if not ready:  # ranks that wait for one that has failed
                break
            for pipe in ready:
                rank = self._pipes.index(pipe)
                ok, answers[rank], threads = _answer(pipe)
                most_threads = max(most_threads, threads)
                if not ok:
                    failures[rank] = answers[rank]
        if failures or most_threads > MOST_THREADS:
            self.close()
            self._start()
        assert not failures, "\n".join(f"Rank {rank}: {text}" for rank, text in failures.items())
        return [answers[rank] for rank in range(self._world_size)]

    def close(self) -> None:
        """At once: there is nothing that they would have to bring to an end."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()

    def _start(self) -> None:
        rendezvous = f"tcp://127.0.0.1:{free_port()}"
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(self._world_size):
            placement = Placement(
                rank=rank,
                world_size=self._world_size,
                local_world_size=self._world_size,
                rendezvous=rendezvous,
            )
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(placement, theirs), daemon=True)
            process.start()
            theirs.close()  # or nobody would notice that the process has ended
            self._pipes.append(ours)
            self._processes.append(process)


def _answer(pipe: Connection) -> tuple[bool, Any, int]:
    try:
        answer: tuple[bool, Any, int] = pipe.recv()
    except EOFError:
        return False, "the process has ended", 0
    return answer


def _threads() -> int:
    """Of this process, those that no Python knows of included."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(placement: Placement, pipe: Connection) -> None:
    from trainer.rank.distributed import process_group

    gc.freeze()  # DeepSpeed collects garbage for each engine, and would look at all of torch
    with process_group(placement, A_JOB_OF_THE_OTHER_RANKS):
        for number in itertools.count(1):
            job, arguments = pipe.recv()
            try:
                ok, result = True, job(placement, *arguments)
            except Exception:
                ok, result = False, traceback.format_exc()
            if number % JOBS_UNTIL_CLEANING == 0:  # engines, and their process groups' threads
                gc.collect()
            pipe.send((ok, result, _threads()))
