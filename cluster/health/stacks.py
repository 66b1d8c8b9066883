"""Collect the stacks of all ranks when one of them hangs, before the ranks are killed.

    rank     prepares a dump of its Python stack into memory        `enable_stack_dumps`
    agent    requests the dump on its node, and the native stack    `stacks_of`
             from py-spy, if it is installed there
    driver   saves the stacks that arrive in time                   `save_stacks`

    runs/NAME/stacks/2026-01-31T12-00-00/rank-0.txt
    runs/NAME/stacks/2026-01-31T12-00-00/rank-0.collectives.json    see `cluster.health.collectives`

A rank that runs can dump its stack without the GIL and without a responsive thread. For a stopped
rank, only its process state is available, unless py-spy is installed.
"""

import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from cluster.errors import RankHungError

if TYPE_CHECKING:
    from run_store.folder import RunFolder  # agents do not need this import

SIGNAL = signal.SIGUSR2
DUMP_SECONDS = 3.0
PY_SPY_SECONDS = 8.0
COLLECT_SECONDS = PY_SPY_SECONDS + 4.0  # timeout, including the transfer of request and answer
POLL_SECONDS = 0.05
MAX_CHARACTERS = 200_000
MAX_SAVED_HANGS = 5
_NAME = "transloom-stacks"


def enable_stack_dumps() -> None:
    """Make this process write the Python stacks of all threads when it receives `SIGNAL`.

    The stacks go into an in-memory file, which disappears with the process.
    """
    file = os.memfd_create(_NAME)
    faulthandler.register(SIGNAL, file=file, all_threads=True)


def stacks_of(processes: list[int]) -> list[str]:
    """Return the state and the stacks of local processes, collected in parallel."""
    with ThreadPoolExecutor(max_workers=max(1, len(processes))) as threads:
        return list(threads.map(_stacks_of, processes))


def save_stacks(
    run: "RunFolder",
    stacks: Mapping[int, str],
    notice: Callable[[str], None],
    records: Mapping[int, bytes] = MappingProxyType({}),
) -> Path | None:
    """Write each rank's stacks, and its record of collectives if it sent one, into the run folder.

    Returns:
        Their directory, or None on failure.
    """
    folder = run.stacks / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for rank, text in stacks.items():
            (folder / f"rank-{rank}.txt").write_text(text, encoding="utf-8")
        for rank, record in records.items():
            (folder / f"rank-{rank}.collectives.json").write_bytes(record)
        for former in sorted(run.stacks.iterdir())[:-MAX_SAVED_HANGS]:
            shutil.rmtree(former)
    except OSError as error:
        notice(f"the stacks of the ranks could not be saved in {folder}: {error}")
        return None
    return folder


def _stacks_of(process: int) -> str:
    stacks = [_python_stacks(process), _native_stacks(process)]
    parts = [_state(process), *stacks]
    return "\n\n".join(part[:MAX_CHARACTERS] for part in parts) + "\n"


def _state(process: int) -> str:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError as error:
        return f"process {process}: {error.strerror}"
    state = next(line for line in status.splitlines() if line.startswith("State:"))
    return f"process {process}, {state[6:].strip()}"


def _python_stacks(process: int) -> str:
    """Return faulthandler's dump of a process. A dump is complete when it stops growing."""
    try:
        dump = next(f for f in Path(f"/proc/{process}/fd").iterdir() if _NAME in _target(f))
        before = dump.stat().st_size
        os.kill(process, SIGNAL)
        size, deadline = before, time.monotonic() + DUMP_SECONDS
        while time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            if before < size == dump.stat().st_size:
                break
            size = dump.stat().st_size
        text = dump.read_bytes()[before:].decode(errors="replace")
    except (OSError, StopIteration) as error:
        return f"No Python stack: {error or 'the process did not enable stack dumps'}"
    return f"Python\n\n{text}" if text else "No Python stack: the process is not running."


def _target(descriptor: Path) -> str:
    with suppress(OSError):  # the descriptor has been closed in the meantime
        return str(descriptor.readlink())
    return ""


def _native_stacks(process: int) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("py-spy", path=path)
    if program is None:
        return "No native stack: py-spy is not installed here; run `pip install py-spy`."
    problem, deadline = "", time.monotonic() + PY_SPY_SECONDS
    for option in ("--native", "--nonblocking"):  # a stopped process permits only --nonblocking
        command = [program, "dump", option, "--pid", str(process)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=deadline - time.monotonic(),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"No native stack: {error}"
        if done.returncode == 0:
            return f"py-spy {option}\n\n{done.stdout}"
        problem = problem or done.stderr.partition("Stack backtrace")[0].strip()
    return f"No native stack: {problem}"


def attach_stacks(
    failure: Exception,
    run: "RunFolder",
    collect: Callable[[], Mapping[int, str]],
    notice: Callable[[str], None],
    records: Mapping[int, bytes] = MappingProxyType({}),
) -> Exception:
    """Return a group's failure; for a hang, save the stacks and name their folder in the message.

    Args:
        collect: function that returns the stacks by rank.
        records: the ranks' records of collectives, which are saved next to the stacks.
    """
    if not isinstance(failure, RankHungError):
        return failure
    folder = save_stacks(run, collect(), notice, records)
    if folder is None:
        return failure
    return RankHungError(f"{failure}. The stacks of all ranks are in {folder}")
