"""Process that acquires, uses and releases the ownership of runs on request."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from run_store import lease as lease_module
from run_store.checkpoints.commit import partial_folder
from run_store.checkpoints.retention import prune
from run_store.checkpoints.state_file import FileRecord, state_file_name, write_state_file
from run_store.lease import Lease
from support.quality.planting import plant
from support.records.checkpoints import KEEP_ONE, commit_state, make_header


class Contender:
    """Contender process: call `ask` to send a request, and `answer` to wait for its result.

    The result is None, or the name and the message of the exception that was raised.
    """

    def __init__(self, lease_seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, lease_seconds), daemon=True)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    def ask(self, question: str, *arguments: Any) -> None:
        self._pipe.send((question, arguments))

    def answer(self) -> tuple[str, str] | None:
        assert self._pipe.poll(120), "no answer"
        answer: tuple[str, str] | None = self._pipe.recv()
        return answer

    def told(self, question: str, *arguments: Any) -> tuple[str, str] | None:
        self.ask(question, *arguments)
        return self.answer()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


class _Owner:
    """Requests that the process handles."""

    def __init__(self) -> None:
        self._lease: Lease | None = None
        self._file: FileRecord | None = None

    def take(self, run: Path) -> None:
        self._run = run
        lease = Lease(run)
        lease.__enter__()
        self._lease = lease

    def leave(self) -> None:
        if self._lease:
            self._lease.__exit__(None, None, None)
        self._lease = None

    def check(self) -> None:
        assert self._lease
        self._lease.check()

    def write(self, step: int) -> None:
        """Write the state file of the only rank of a checkpoint."""
        assert self._lease
        partial = partial_folder(self._lease.work, step, "a")
        partial.mkdir()
        elements = memoryview(bytes(16))
        path = partial / state_file_name(0, 1)
        self._file = write_state_file(path, {"master:w:0": 4}, [elements])

    def commit(self, step: int) -> None:
        """Commit a checkpoint without checking the ownership.

        This is what a supervisor does that was paused directly after its check.
        """
        assert self._lease
        assert self._file
        commit_state(self._lease.work, make_header(step), [self._file])

    def prune(self) -> None:
        assert self._lease
        prune(self._run / "checkpoints", self._lease.work, KEEP_ONE)


def _serve(pipe: Connection, lease_seconds: float) -> None:
    plant(lease_module, LEASE_SECONDS=lease_seconds, RENEW_SECONDS=0.05, POLL_SECONDS=0.01)
    owner = _Owner()
    while True:
        question, arguments = pipe.recv()
        method: Callable[..., None] = getattr(owner, question)
        try:
            method(*arguments)
            pipe.send(None)
        except Exception as error:
            pipe.send((type(error).__name__, str(error)))
