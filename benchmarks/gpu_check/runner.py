"""Run stages as child processes with time limits; a failed row does not stop the other rows.

    plan ─▶ rows without a result ─▶ [ child process ─▶ report ─▶ results file ] … ─▶ summary

A row fails if it raises an exception, if its process dies, or if it exceeds its time limit. The
stage then continues with the next row in another child. Rows for which no time was left stay "not
run", and the next run repeats them. The module needs only Python.
"""

import json
import os
import secrets
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks.gpu_check.plan import STAGE_SECONDS, PlannedRow, Stage
from benchmarks.gpu_check.results import Results, Row

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0  # time to import torch and DeepSpeed from a cold disk
OURS = ("cluster", "data_pipeline", "foundation", "model", "run_store", "trainer", "transloom")
MARK = "TRANSLOOM_GPU_CHECK"  # environment variable that identifies the processes of a child
LOG_TAIL = 400
POLL_SECONDS = 1.0
DEATH_SECONDS = 10.0


@dataclass(frozen=True)
class Runner:
    """Runner of stages, with the settings of a run.

    Attributes:
        python: the Python that runs the children.
        folder: folder for runs, datasets and links; outside the checkout.
        results_file: the file that is replaced after each row.
        say: called with each line of progress.
        stage_seconds: time limit of each stage; the limits of rows grow in proportion to it.
        ends: end of the time for all stages together, on the monotonic clock.
    """

    python: Path
    folder: Path
    results: Results
    results_file: Path
    say: Callable[[str], None]
    stage_seconds: float
    ends: float

    def run(self, stages: Sequence[Stage]) -> None:
        """Run the rows that have no result yet."""
        for stage in stages:
            todo = [row for row in stage.rows if f"{stage.name}/{row.key}" not in self.results.rows]
            if not todo:
                self.say(f"{stage.name}: all {len(stage.rows)} rows have results")
                continue
            if time.monotonic() >= self.ends:
                self.say(f"{stage.name}: not run, because the time limit of the run is over")
                continue
            self.say(f"{stage.name}: {len(todo)} of {len(stage.rows)} rows to run")
            self._run_stage(stage, todo)

    def _run_stage(self, stage: Stage, todo: list[PlannedRow]) -> None:
        stage_ends = time.monotonic() + self.stage_seconds
        while todo and time.monotonic() < min(stage_ends, self.ends):
            child, before = _Child(self, stage, todo, stage_ends), len(todo)
            for row in child.rows():
                self._keep(stage, row)
                todo = [planned for planned in todo if planned.key != row.key]
            if len(todo) == before and time.monotonic() < min(stage_ends, self.ends):
                reason = child.why_no_start()
                for planned in todo:
                    self._keep(stage, Row(stage.name, planned.key, "failed", detail=reason))
                return
        if todo:
            self.say(f"{stage.name}: {len(todo)} rows not run, because the time limit is over")

    def _keep(self, stage: Stage, row: Row) -> None:
        self.results.add([row])
        self.results.write(self.results_file)
        number = [planned.key for planned in stage.rows].index(row.key) + 1
        path = next(planned.path for planned in stage.rows if planned.key == row.key)
        told = [f"{stage.name} {number}/{len(stage.rows)}  {row.result:8}{path}"]
        told.append(row.shown_figure())
        told.append(row.detail.splitlines()[0] if row.detail and row.result != "passed" else "")
        self.say("  ".join(filter(None, told)) + f"  [{row.seconds:.1f} s]")


class _Child:
    """Process that runs rows of a stage, and the state of its current row."""

    def __init__(
        self, runner: Runner, stage: Stage, todo: Sequence[PlannedRow], stage_ends: float
    ) -> None:
        self._runner = runner
        self._stage = stage
        self._todo = {row.key: row for row in todo}
        self._stage_ends = stage_ends
        self._machine: dict[str, str] = {}
        self._log = runner.results_file.with_suffix(".logs") / f"{stage.name}.txt"
        self._log_begins = 0  # position at which the output of this process begins
        self._begun: str | None = None  # the row in progress
        self._since = time.monotonic()  # start of the row in progress or, between rows, of the wait

    def rows(self) -> Iterator[Row]:
        """Yield rows as they end, until the process ends or is killed.

        A row in progress then fails. If the time of the stage or of the whole run is over, it stays
        "not run" instead, because that says nothing about its code path.
        """
        with self._process() as (process, report):
            for message in self._messages(process, report):
                self._since = time.monotonic()
                if "machine" in message:
                    self._machine = message["machine"]
                elif "begins" in message:
                    self._begun = message["begins"]
                elif "row" in message:
                    self._begun = None
                    yield replace(Row(**message["row"]), **self._machine)
            now = time.monotonic()
            if self._begun is not None and now < min(self._stage_ends, self._runner.ends):
                yield Row(
                    self._stage.name,
                    self._begun,
                    "failed",
                    detail=self._why_cut(process, now, self._begun),
                    seconds=round(now - self._since, 2),
                    **self._machine,
                )

    def why_no_start(self) -> str:
        """Return a message that no row began, with the last line that the process printed."""
        return f"the stage did not start: {self._last_words() or 'no output'}"

    def _last_words(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_begins)
            lines = log.read().decode(errors="replace").strip()[-LOG_TAIL:].splitlines()
        return lines[-1] if lines else ""

    def _deadline(self) -> float:
        seconds = START_SECONDS if self._begun is None else self._limit(self._begun)
        return min(self._since + seconds, self._stage_ends, self._runner.ends)

    def _limit(self, key: str) -> float:
        """Return the time limit of a row in seconds, in proportion to the time limit of stages."""
        return self._todo[key].seconds * self._runner.stage_seconds / STAGE_SECONDS

    def _why_cut(self, process: "subprocess.Popen[bytes]", now: float, key: str) -> str:
        if now >= self._since + self._limit(key):
            return f"killed at the time limit of the row, {self._limit(key):g} s"
        code = process.wait(DEATH_SECONDS)
        died = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"its process ended with {died}. {self._last_words()}".strip()

    def _messages(
        self, process: "subprocess.Popen[bytes]", report: BinaryIO
    ) -> Iterator[dict[str, Any]]:
        """Yield the messages of the process until it ends, or a deadline passes."""
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(report, selectors.EVENT_READ)
            while (left := self._deadline() - time.monotonic()) > 0:
                ended = process.poll() is not None
                if not selector.select(0 if ended else min(left, POLL_SECONDS)):
                    if ended:  # a forked process may keep the pipe open after the child has ended
                        return
                    continue
                data = os.read(report.fileno(), 65536)
                if not data:
                    # The process is about to end, or prints why it could not start.
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(DEATH_SECONDS)
                    return
                *lines, buffer = (buffer + data).split(b"\n")
                yield from map(json.loads, lines)

    @contextmanager
    def _process(self) -> Iterator[tuple["subprocess.Popen[bytes]", BinaryIO]]:
        """Start the process; at the end, kill it and all processes that it has started."""
        runner, stage = self._runner, self._stage
        folder = runner.folder / stage.name
        folder.mkdir(parents=True, exist_ok=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        mark = secrets.token_hex(8)
        reader, writer = os.pipe()
        command = [str(runner.python), "-m", "benchmarks.gpu_check.child", stage.name]
        command += [str(stage.module), runner.results.device, str(folder), str(writer), *self._todo]
        environment = {
            **os.environ,
            **import_path(runner.python, runner.folder),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",  # write no files into the checkout
            **({"OMP_NUM_THREADS": "1"} if runner.results.device == "cpu" else {}),
            "DS_ACCELERATOR": runner.results.device,  # DeepSpeed reads this at its import
            MARK: mark,
            "SPT_NOENV": "1",  # otherwise Ray's agents overwrite the mark with their process title
        }
        with os.fdopen(reader, "rb", buffering=0) as report, self._log.open("ab") as log:
            self._log_begins = log.tell()
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[writer],
                start_new_session=True,
            )
            os.close(writer)
            try:
                yield process, report
            finally:
                kill_marked(f"{MARK}={mark}")
                with suppress(subprocess.TimeoutExpired):
                    process.wait(DEATH_SECONDS)


def kill_marked(mark: str) -> None:
    """Kill every process that has the mark in its environment, until none is left.

    A process that a driver blocks in the kernel cannot be killed; the function gives up after some
    seconds.
    """
    wanted, ends = mark.encode(), time.monotonic() + DEATH_SECONDS
    while time.monotonic() < ends and (
        pids := [pid for pid in _processes() if wanted in _environment(pid)]
    ):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # Our killed child stays a zombie, with an empty environment, until the caller waits for it.
        time.sleep(0.02)


def _processes() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # the process has ended, or belongs to another user
        return []


def import_path(python: Path, folder: Path) -> dict[str, str]:
    """Return the environment variables with which a child imports the stages.

    The import path contains one folder, which has only links. No folder of the checkout or of the
    run can therefore be imported as a package. If the interpreter has no transloom, the folder also
    links to our own packages.
    """
    links = folder / "imports"
    links.mkdir(parents=True, exist_ok=True)
    wanted = {"benchmarks": ROOT / "benchmarks", "support": ROOT / "tests" / "support"}
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('trainer') is None)"
    if subprocess.run([str(python), "-c", probe], cwd=links).returncode:
        wanted |= {name: ROOT / name for name in OURS}
    for name, target in wanted.items():
        with suppress(FileExistsError):
            (links / name).symlink_to(target, target_is_directory=True)
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(links), before]))}


def work_folder() -> "tempfile.TemporaryDirectory[str]":
    """Create a temporary folder for runs, with a short path because Ray keeps sockets below it."""
    return tempfile.TemporaryDirectory(prefix="gpuc-", ignore_cleanup_errors=True)
