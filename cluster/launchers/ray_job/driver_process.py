"""The training process of an attempt, whose output goes to the job's log and to Ray's log."""

import os
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from foundation.terminal import forward_output

CHUNK_BYTES = 65_536
LAST_LINE_BYTES = 2_000
OUTPUT_SECONDS = 5.0


class JobLog:
    """Log file of a job, with the number of lines and bytes that all attempts have written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = self.bytes = 0
        self._last = b""  # the last bytes that were written
        self._lock = threading.Lock()
        self._file = path.open("ab")

    def write(self, text: bytes) -> None:
        """Append to the log file and to standard output; on a full disk the text stays buffered."""
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
        """Return the last line that is not empty."""
        with self._lock:
            lines = [line.strip() for line in self._last.decode(errors="replace").split("\n")]
        return next((line for line in reversed(lines) if line), "")


class DriverProcess:
    """Training process that waits for its arguments, and whose output goes to a job's log."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: JobLog) -> None:
        """Start the thread that copies the process's output.

        Args:
            process: process that `preloaded_process.start` has started.
        """
        self._process = process
        self._log = log
        self._reader = threading.Thread(target=self._read, name="output", daemon=True)
        self._reader.start()

    @property
    def process_id(self) -> int:
        return self._process.pid

    def begin(self, argv_line: str) -> None:
        """Send the process its arguments, as one line."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended or closed its input
            self._process.stdin.write(f"{argv_line}\n".encode())
            self._process.stdin.close()

    def drop(self) -> None:
        """Kill the process before it has received its arguments."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(OUTPUT_SECONDS)

    def wait(self, seconds: float) -> int | None:
        """Wait for the process to end.

        Args:
            seconds: time limit of the wait.

        Returns:
            The exit code as a shell reports it, or None if the process is still running.
        """
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(OUTPUT_SECONDS)  # a surviving child of the process may hold the pipe
        return code if code >= 0 else 128 - code

    def _read(self) -> None:
        assert self._process.stdout is not None
        while chunk := os.read(self._process.stdout.fileno(), CHUNK_BYTES):
            self._log.write(chunk)
        self._process.stdout.close()
