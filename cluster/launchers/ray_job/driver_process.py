"""The process of an attempt, and its output: into the job's log, and into that of Ray."""

import os
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from cluster.terminal import forward_output

CHUNK_BYTES = 65_536
LAST_LINE_BYTES = 2_000
OUTPUT_SECONDS = 5.0


class JobLog:
    """A job's log file, with the number of its lines and bytes, over all attempts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = self.bytes = 0
        self._last = b""  # the end of the text
        self._lock = threading.Lock()
        self._file = path.open("ab")

    def write(self, text: bytes) -> None:
        """Append, here and on standard output. On a full disk the text has to wait."""
        with self._lock:
            self.lines += text.count(b"\n")
            self.bytes += len(text)
            self._last = (self._last + text)[-LAST_LINE_BYTES:]
            with suppress(OSError):
                forward_output(text)
            with suppress(OSError):
                self._file.write(text)
                self._file.flush()

    def write_line(self, text: str) -> None:
        self.write(f"{text}\n".encode())

    def close(self) -> None:
        with self._lock, suppress(OSError):
            self._file.close()

    def last_line(self) -> str:
        """The last line that is not empty."""
        with self._lock:
            lines = [line.strip() for line in self._last.decode(errors="replace").split("\n")]
        return next((line for line in reversed(lines) if line), "")


class DriverProcess:
    """A process that gets ready, begins when it has its order, and whose output goes to a log."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: JobLog) -> None:
        """
        Args:
            process: from `training_process.start`.
        """
        self._process = process
        self._log = log
        self._reader = threading.Thread(target=self._read, name="output", daemon=True)
        self._reader.start()

    @property
    def process_id(self) -> int:
        return self._process.pid

    def begin(self, argv_line: str) -> None:
        """Give it its order, a line."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, or does not care
            self._process.stdin.write(f"{argv_line}\n".encode())
            self._process.stdin.close()

    def drop(self) -> None:
        """End it before it has begun."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(OUTPUT_SECONDS)

    def wait(self, seconds: float) -> int | None:
        """The exit code as a shell has it; None if it still runs after so long."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(OUTPUT_SECONDS)  # a process that it has left behind may hold the pipe
        return code if code >= 0 else 128 - code

    def _read(self) -> None:
        assert self._process.stdout is not None
        while chunk := os.read(self._process.stdout.fileno(), CHUNK_BYTES):
            self._log.write(chunk)
        self._process.stdout.close()
