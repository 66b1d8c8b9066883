"""Process that indexes long records in the cache, at the lowest priority.

The server runs it as a separate process, because parsing a million lines would block the server.
The process ends with the server, even if the server is killed.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from foundation.process_pool import enter_background
from trainer.errors import TrainerError
from transloom.observe.curves.curve_index import extend_index
from transloom.observe.dashboard.background_process import background_process

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
        self._records: asyncio.Queue[tuple[str, Path]] = asyncio.Queue()
        self._waiting: set[str] = set()  # runs whose records are queued or being indexed
        self._read: dict[str, int] = {}  # size of each run's record when it was last indexed
        self._failed: set[str] = set()
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
        if run not in self._failed | self._waiting and new >= NEW_BYTES:
            self._waiting.add(run)
            self._records.put_nowait((run, record))

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _work(self) -> None:
        while True:
            run, record = await self._records.get()
            size = _size(record)
            problem = await self._index(record)
            self._waiting.remove(run)
            if problem is None:
                self._read[run] = size
                self._done(run)
            else:
                self.problem = problem
                self._failed.add(run)

    async def _index(self, record: Path) -> str | None:
        """Index a record; return the problem, or None if there is none."""
        async with background_process(*COMMAND, str(record), str(self._cache)) as process:
            # Not communicate(): it closes the standard input, which would end the process.
            assert process.stderr is not None
            problem = (await process.stderr.read(2**16)).decode(errors="replace").strip()
            return problem or "the index was not built" if await process.wait() else None
