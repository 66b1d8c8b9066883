"""Inspect steps by `transloom replay RUN --steps A:B --look --json`, one process at a time.

The server checks that the output of a process is JSON within limits, and sends it to pages
unchanged. It keeps the output of the newest inspections.
"""

import asyncio
import os
import signal
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foundation.file_model import JsonLimits, parse_object
from foundation.untrusted_text import visible
from foundation.wording import counted
from transloom.observe.dashboard.api_models import (
    MAX_INSPECTED_STEPS,
    InspectionResponse,
    NewInspection,
)

LIMITS = JsonLimits(bytes=16_000_000, values=2_000_000)
MAX_KEPT_INSPECTIONS = 4
MESSAGE_CHARACTERS = 2_000
GRACE_SECONDS = 5.0  # time between SIGTERM and SIGKILL
_BLOCK_BYTES = 2**16


def inspection_command(command_line: str) -> tuple[str, ...]:
    """Return the command line that runs `transloom` at the lowest priority, until the server ends.

    The process ends when its standard input is closed. The server holds the other end, so the
    process ends with the server, even if the server is killed.

    Args:
        command_line: the module whose `main` function is the command `transloom`.
    """
    # -P: do not import a package of the current folder that is also called `cluster`.
    return (
        *(sys.executable, "-P", "-c"),
        "from foundation.process_pool import enter_background; enter_background(); "
        f"from {command_line} import main; main()",
    )


class InspectionRefusedError(Exception):
    """Refusal to start an inspection; the message has the reason."""


@dataclass
class StepInspection:
    """Inspection of some steps by a replay, running or ended.

    Attributes:
        id: the run's id.
        content: the report of the replay as JSON; empty until it is done.
    """

    id: str
    first_step: int
    last_step: int
    state: Literal["running", "done", "failed"] = "running"
    message: str = "starting"
    content: bytes = b""

    def answer(self) -> bytes:
        """Return the state and the report as an `InspectionResponse` in JSON."""
        response = InspectionResponse(state=self.state, message=self.message)
        text = response.model_dump_json(exclude_none=True).encode()
        return text[:-1] + b',"look":' + (self.content or b"null") + b"}"

    def news(self) -> NewInspection:
        return NewInspection.model_validate(self, from_attributes=True)


class InspectionManager:
    """Manager of inspections: runs one at a time, and keeps the results of the newest."""

    def __init__(self, news: Callable[[NewInspection], None], command: Sequence[str]) -> None:
        """Create a manager without any inspections.

        Args:
            news: called when an inspection starts and when it ends.
            command: the command `transloom`, see `inspection_command`.
        """
        self._news, self._command = news, tuple(command)
        self._kept: OrderedDict[tuple[str, int, int], StepInspection] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._running: StepInspection | None = None

    def find(self, run: str, first_step: int, last_step: int) -> StepInspection | None:
        return self._kept.get((run, first_step, last_step))

    def start(self, run: str, path: Path, first_step: int, last_step: int) -> StepInspection:
        """Return the inspection of these steps, and start it unless it is already running or done.

        Raises:
            InspectionRefusedError: the range has no steps or too many, or another inspection is
                running.
        """
        steps = last_step - first_step + 1
        if not 1 <= steps <= MAX_INSPECTED_STEPS:
            raise InspectionRefusedError(
                f"the range from step {first_step} to {last_step} has {counted(steps, 'step')}, "
                f"but an inspection needs 1 to {MAX_INSPECTED_STEPS} steps: choose another range"
            )
        key = run, first_step, last_step
        found = self._kept.get(key)
        if found and found.state != "failed":
            return found
        if self._running:
            busy = self._running
            raise InspectionRefusedError(
                f"steps {busy.first_step} to {busy.last_step} of {busy.id} are being inspected: "
                "wait until that inspection is done"
            )
        self._kept[key] = self._running = look = StepInspection(*key)
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT_INSPECTIONS:
            self._kept.popitem(last=False)
        self._task = asyncio.get_running_loop().create_task(self._inspect(look, path))
        return look

    async def close(self) -> None:
        """End the running inspection and its process."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _inspect(self, look: StepInspection, path: Path) -> None:
        self._news(look.news())
        try:
            await self._replay(look, path)
        except (OSError, ValueError) as error:
            look.state, look.message = "failed", str(error)
        except asyncio.CancelledError:
            look.state, look.message = "failed", "the dashboard was stopped"
            raise
        finally:
            self._running = None
            self._news(look.news())

    async def _replay(self, look: StepInspection, path: Path) -> None:
        steps = f"{look.first_step}:{look.last_step}"
        arguments = ("replay", str(path), "--steps", steps, "--look", "--json")
        process = await asyncio.create_subprocess_exec(
            *self._command,
            *arguments,
            stdin=asyncio.subprocess.PIPE,  # the process ends when this pipe is closed
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        progress = asyncio.create_task(self._read_progress(process, look))
        try:
            assert process.stdout is not None
            content = await _read_at_most(process.stdout, LIMITS.bytes)
            await progress
            code = await process.wait()
        finally:
            progress.cancel()
            await _end(process)
        if not content.strip():
            raise ValueError(look.message or f"replay ended with exit code {code}")
        # Check the content, because it becomes part of a response. The exit code is not checked: it
        # is also nonzero if the replay differs from the record.
        parse_object(content, LIMITS)
        look.content, look.state, look.message = content.strip(), "done", ""

    async def _read_progress(
        self, process: asyncio.subprocess.Process, look: StepInspection
    ) -> None:
        """Set the message to the last line of standard error: the progress, or the error."""
        assert process.stderr is not None
        end = b""
        while block := await process.stderr.read(_BLOCK_BYTES):
            end = (end + block)[-4 * MESSAGE_CHARACTERS :]
            lines = end.decode(errors="replace").replace("\r", "\n").strip().split("\n")
            look.message = visible(lines[-1])[-MESSAGE_CHARACTERS:]


async def _read_at_most(stream: asyncio.StreamReader, most: int) -> bytes:
    parts, size = [], 0
    while block := await stream.read(_BLOCK_BYTES):
        size += len(block)
        if size > most:
            raise ValueError(
                f"the report of the replay has more than {most:,} bytes: inspect fewer steps"
            )
        parts.append(block)
    return b"".join(parts)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process and its process group, which includes processes that it has left behind."""
    _signal(process, signal.SIGTERM)
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), GRACE_SECONDS)
    _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
