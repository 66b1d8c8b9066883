"""Rank processes that stay alive between tests, since importing DeepSpeed takes seconds.

A job is an importable function ``job(placement, *arguments)``. The pool runs it on all of its
ranks, which are one process group, and returns their results. The ranks of all pools are forked
from one process that has imported DeepSpeed.
"""

import ctypes
import faulthandler
import gc
import multiprocessing
import os
import secrets
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from support.quality.activity import IdleClock, family
from trainer.process.placement import Placement

# A job that hangs is ended after these times, so that one deadlock does not become a timeout of
# pytest in each test with these ranks. A job hangs if it neither computes nor waits for a core, or
# if it computes without an end.
IDLE_SECONDS = 20.0
JOB_CPU_SECONDS = 120.0
CHECK_SECONDS = 1.0
# Timeout of a collective. On a busy machine, a rank with more work may be late.
A_JOB_OF_THE_OTHER_RANKS = timedelta(minutes=10)
STACKS_SIGNAL = signal.SIGUSR1
PR_SET_PDEATHSIG = 1  # option of prctl(2): the signal that a process gets when its parent ends
IMPORTED = ["trainer.assembly.run", "torch._dynamo"]  # the second module is imported by ZeRO-3
# time for the messages of ranks that fail because another rank has failed
LAST_WORDS_SECONDS = 20.0
# DeepSpeed never releases a stage 3 engine and its process group. Its three threads wake up 100
# times a second, between jobs too. A rank with more threads than this is replaced, which takes
# 20 ms of CPU time; a fresh rank has 9, and one with 200 takes ten times as long for a step.
MOST_THREADS = 24


def preloaded_context() -> Any:
    """Return a context whose processes fork from a process that has imported the trainer.

    They have the environment and the standard streams of that process.
    """
    context = multiprocessing.get_context("forkserver")
    # has no effect after the start of the context's first process
    context.set_forkserver_preload(IMPORTED)
    return context


class RankPool:
    def __init__(
        self, world_size: int, method: Literal["forkserver", "spawn"] = "forkserver"
    ) -> None:
        """method: "spawn" for ranks whose libraries must read the current environment."""
        self._world_size = world_size
        self._folder = tempfile.TemporaryDirectory()  # contains the stacks of ranks, by process id
        self._context: Any = (
            preloaded_context() if method == "forkserver" else multiprocessing.get_context(method)
        )
        self._start()

    def run(
        self, job: Callable[..., Any], *arguments: Any, cpu_seconds: float = JOB_CPU_SECONDS
    ) -> list[Any]:
        """Run a job, and return its results by rank.

        cpu_seconds: maximum CPU time of the job, of all ranks together.

        Raises:
            AssertionError: the job has failed on a rank, or hangs. The next job gets new ranks, as
                after any other interruption of the wait.
        """
        try:
            self._send(signal.SIGCONT)
            answers = self._run(job, arguments, cpu_seconds)
        except BaseException:
            self._restart()
            raise
        if max(answer.threads for answer in answers) > MOST_THREADS:
            self._restart()
        self._send(signal.SIGSTOP)  # otherwise gloo's threads would wake up 100 times a second
        return [answer.result for answer in answers]

    def _run(
        self, job: Callable[..., Any], arguments: tuple[Any, ...], cpu_seconds: float
    ) -> list["_Answer"]:
        for pipe in self._pipes:
            with suppress(BrokenPipeError):  # reading the pipe detects that the process has ended
                pipe.send((job, arguments))
        answers: dict[int, _Answer] = {}
        # Descendants are included, because a rank may wait for the compiler.
        clock = IdleClock(lambda: [one for rank in self._processes for one in family(rank.pid)])
        deadline = float("inf")  # set when a rank has failed
        failures: dict[int, str] = {}
        hangs = ""
        while pending := [pipe for rank, pipe in enumerate(self._pipes) if rank not in answers]:
            seconds = min(CHECK_SECONDS, max(0.0, deadline - time.monotonic()))
            ready = cast("list[Connection]", wait(pending, seconds))
            if not ready:
                clock.check()
                hangs = _hang(clock, cpu_seconds)
                if hangs or time.monotonic() >= deadline:
                    break
            for pipe in ready:
                rank = self._pipes.index(pipe)
                answers[rank] = _receive(pipe)
                if not answers[rank].ok:
                    failures[rank] = answers[rank].result
                    deadline = min(deadline, time.monotonic() + LAST_WORDS_SECONDS)
        if not failures and len(answers) < self._world_size:
            failures = {
                rank: f"no result{hangs}\n{self._stacks(rank)}"
                for rank in range(self._world_size)
                if rank not in answers
            }
        assert not failures, "\n".join(f"Rank {rank}: {text}" for rank, text in failures.items())
        return [answers[rank] for rank in range(self._world_size)]

    def _stacks(self, rank: int) -> str:
        """Return the stacks of a rank's threads."""
        process = self._processes[rank]
        os.kill(process.pid, STACKS_SIGNAL)
        file = Path(self._folder.name) / str(process.pid)
        for _ in range(200):
            time.sleep(0.1)
            if file.exists() and (text := file.read_text()):
                return text
        return "(no stacks)"

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)

    def _restart(self) -> None:
        self._end()
        self._start()

    def close(self) -> None:
        self._end()
        self._folder.cleanup()

    def _end(self) -> None:
        """Kill the ranks immediately, because they have nothing to complete."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()

    def _start(self) -> None:
        # A file, as in the product: another process could use a port before rank 0 listens.
        rendezvous = f"file://{self._folder.name}/rendezvous-{secrets.token_hex(8)}"
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
            process = self._context.Process(
                target=_serve, args=(placement, theirs, Path(self._folder.name)), daemon=True
            )
            process.start()
            theirs.close()  # otherwise reading would not detect that the process has ended
            self._pipes.append(ours)
            self._processes.append(process)


def _hang(clock: IdleClock, cpu_seconds: float) -> str:
    """Return a description of how the ranks hang, or an empty text if they do not."""
    if clock.idle_seconds >= IDLE_SECONDS:
        return f", and idle for {IDLE_SECONDS:g} s"
    if clock.cpu_seconds >= cpu_seconds:
        return f" after {cpu_seconds:g} s of CPU time"
    return ""


class _Answer(NamedTuple):
    """Result of a job on one rank, or the text of its error, and the rank's number of threads."""

    ok: bool
    result: Any
    threads: int


def _receive(pipe: Connection) -> _Answer:
    try:
        return _Answer(*pipe.recv())
    except (EOFError, ConnectionResetError):
        return _Answer(False, "the process has ended", 0)


def _threads() -> int:
    """Count the threads of this process, including those that Python does not know of."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _serve(placement: Placement, pipe: Connection, folder: Path) -> None:
    from trainer.process.distributed import process_group

    # a stopped process does not notice the end of a pipe
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    stacks = (folder / str(os.getpid())).open("w")
    faulthandler.register(STACKS_SIGNAL, stacks)
    # DeepSpeed collects garbage for each engine; freeze torch's objects, which are slow to search
    gc.freeze()
    with process_group(placement, A_JOB_OF_THE_OTHER_RANKS):
        while True:
            job, arguments = pipe.recv()
            try:
                ok, result = True, job(placement, *arguments)
            except Exception:
                ok, result = False, traceback.format_exc()
            # Engines of a job, with the threads of their process groups. When an engine is freed,
            # torch's functions are restored, which must not happen during a later job.
            gc.collect()
            pipe.send((ok, result, _threads()))
