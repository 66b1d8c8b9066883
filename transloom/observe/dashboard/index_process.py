"""Process that indexes long records in the cache, at the lowest priority.

The server runs it as a separate process, because parsing a million lines would block the server.
The process ends with the server, even if the server is killed.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from foundation.child_process import enter_background
from trainer.errors import TrainerError
from transloom.observe.curves.curve_index import extend_index

# Number of bytes by which a record must have grown before its index is extended. Bytes that are not
# indexed yet are read from the record for each request.
NEW_BYTES = 2**18
COMMAND = (
    sys.executable,
    "-P",
    "-c",
    "from transloom.observe.dashboard.index_process import main; main()",
)


def main() -> None:
    """Extend the index of a record; the arguments are the record and the cache directory."""
    enter_background()
    record, cache = map(Path, sys.argv[1:])
    try:
        extend_index(record, cache)
    except (OSError, TrainerError) as error:
        sys.exit(str(error))


def _size(record: Path) -> int:
    try:
        return record.stat().st_size
    except OSError:
        return 0


class Indexer:
    """Queue of records, which are indexed one after another.

    Attributes:
        problem: reason why the last failed record could not be indexed; None without a failure.
    """

    def __init__(self, cache: Path, done: Callable[[str], None]) -> None:
        """Start the queue.

        Args:
            done: called with the id of each run whose index has reached the end of its record.
        """
        self._cache, self._done = cache, done
        self._waiting: dict[str, Path] = {}
        self._read: dict[str, int] = {}  # size of each run's record when it was last indexed
        self._failed: set[str] = set()
        self._wakes = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._work())
        self.problem: str | None = None

    def want(self, run: str, record: Path, *, is_other: bool = False) -> None:
        """Queue a record if it has enough new lines.

        Args:
            run: the run's id.
            is_other: True if another file has replaced the record. All lines are then new.
        """
        if is_other:
            self._read.pop(run, None)
        new = _size(record) - self._read.get(run, -NEW_BYTES)
        if run not in self._failed and new >= NEW_BYTES:
            self._waiting.setdefault(run, record)
            self._wakes.set()

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _work(self) -> None:
        while True:
            await self._wakes.wait()
            self._wakes.clear()
            while self._waiting:
                run, record = next(iter(self._waiting.items()))
                size = _size(record)
                problem = await self._index(record)
                self._waiting.pop(run, None)
                if problem is None:
                    self._read[run] = size
                    self._done(run)
                else:
                    self.problem = problem
                    self._failed.add(run)

    async def _index(self, record: Path) -> str | None:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *(str(record), str(self._cache)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            # Not communicate(): it closes the standard input, which would end the process.
            assert process.stderr is not None
            said = (await process.stderr.read(2**16)).decode(errors="replace").strip()
            return said or "the index was not built" if await process.wait() else None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
