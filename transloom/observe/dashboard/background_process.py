"""Child processes that end with the server, even if the server is killed.

The server holds the other end of a process's standard input. When that is closed,
`foundation.process_pool.enter_background` ends the process.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL


@asynccontextmanager
async def background_process(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command, and end its process and process group at the end of the context.

    The group includes child processes that the process has left behind.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,  # closing it ends the process
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _signal(process, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE_SECONDS)
        _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
