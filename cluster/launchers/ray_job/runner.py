"""The command of a Ray job: it waits for capacity, then starts and restarts `transloom train`.

::

    WAITING ──its turn, capacity───▶ STARTING ──the metrics file grows──▶ RUNNING
       ▲                                │                                    │
       └──── exit code in cluster.retry_exit_codes, and no request to stop ──┤
                                                                             ▼
                                    SUCCEEDED, FAILED, or STOPPED if a user has asked for it

One job keeps one id over all attempts. Its record and its log are in the run's folder (see
`job_record.py`).
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any

from cluster.errors import EXIT_FAILED, EXIT_PREEMPTED, ClusterError
from cluster.launchers.ray_job.driver_process import DriverProcess, JobLog
from cluster.launchers.ray_job.job_record import (
    RENEW_SECONDS,
    Attempt,
    JobFolder,
    JobRecord,
    JobRequest,
    JobState,
    Runner,
)
from cluster.launchers.ray_job.job_share import JobShare, SharesView
from cluster.launchers.ray_job.preloaded_process import argv_line, start
from cluster.ray.shares import ClusterSnapshot
from cluster.supervision.interval import Interval
from cluster.supervision.invocation import CLAIM_VARIABLE, JOB_VARIABLE, as_variable
from cluster.supervision.retry_budget import RetryBudget
from cluster.supervision.share_target import ShareTarget, share_file
from cluster.supervision.stop_requests import JobStopRequest
from data_pipeline.storage.regular_files import write_atomically
from foundation.periodic_thread import PeriodicThread
from foundation.terminal import print_error
from foundation.wording import counted
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.errors import RunError
from run_store.lease import was_owned_by
from run_store.record.metrics_file import recorded_step
from run_store.start import StopOrder

POLL_SECONDS = 0.5
QUEUE_SECONDS = 2.0
SHARE_SECONDS = 2.0
UPLOAD_SECONDS = 30.0
MAX_REASON_CHARACTERS = 500
# Seconds for which Ray's head may fail to answer before a waiting job fails.
HEAD_TIMEOUT_SECONDS = 120.0
SIGNALLED = 128  # higher exit codes represent signals


class JobRunner:
    """Runner of one job, from its start to its end."""

    def __init__(
        self,
        job_id: str,
        request: JobRequest,
        words: Sequence[str],
        command: Sequence[str],
        view: Callable[[], SharesView],
        ready: "subprocess.Popen[bytes] | None" = None,
    ) -> None:
        """Write the first record of the job.

        Args:
            words: command line of an attempt, without the program.
            command: command that starts a process, which then waits for `words`
                (`preloaded_process.read_argv`).
            view: function that creates the view of the cluster.
            ready: process for the first attempt that already waits for `words`; None to start one.
        """
        self._run = request.run_folder
        self._folder = JobFolder.of(self._run.path, job_id)
        self._words = words
        self._command = command
        self._make_view = view
        self._share = JobShare(job_id, request.rebalance_seconds)
        self._request = request
        self._log = JobLog(self._folder.log)
        self._stop = JobStopRequest(self._run)
        self._ready = DriverProcess(ready, self._log) if ready else None
        self._target = ShareTarget(ranks=0)
        self._order: StopOrder | None = None
        self._is_order_known = False
        self._renewed = 0.0
        self._uploads = Interval(UPLOAD_SECONDS)
        self._record = JobRecord(
            id=job_id,
            request=request,
            state="WAITING",
            waits_for="its turn",
            since=time.time(),
            runner=Runner.of_this_process(),
        )
        self._folder.write(self._record)

    def run(self) -> int:
        """Run the job until its end and return its exit code."""
        self._stop.listen()
        try:
            state, code, message = self._run_attempts()
        except ClusterError as error:
            self._log.write_line(f"error: {error}")
            state, code, message = "FAILED", EXIT_FAILED, str(error)
        self._discard_child()
        self._stop.clear()
        self._write(state=state, exit_code=code, message=message, waits_for=None)
        self._log.close()
        self._upload()
        return code

    def _run_attempts(self) -> tuple[JobState, int, str | None]:
        """Run attempts until the job ends; return its final state, exit code and message."""
        retries = self._request.retries
        budget = RetryBudget(retries + 1, recorded_step(self._run.metrics))
        self._ready = self._ready or self._start_child()  # the child imports modules meanwhile
        view = self._make_view()
        while True:
            self._wait_for_room(view)
            if self._stop.reason:
                return "STOPPED", EXIT_PREEMPTED, self._stop_text(view)
            follow = PeriodicThread(
                "share", SHARE_SECONDS, lambda: self._follow_share(view.snapshot()), join_seconds=0
            )
            with follow:
                code = self._attempt(view)
            step = recorded_step(self._run.metrics)
            budget.reach(step)
            if code == 0:
                return "SUCCEEDED", code, None
            why = self._record.attempts[-1].why
            if self._stop.reason:
                return "STOPPED", code, self._stop_text(view)
            if code not in self._request.retry_exit_codes or not retries:
                return "FAILED", code, self._after_signal(code) or why
            if budget.count_failure():
                return (
                    "FAILED",
                    code,
                    f"{counted(budget.failures, 'attempt')} in a row got no further than step "
                    f"{budget.furthest_step}, and the last one ended with exit code {code} "
                    f"(cluster.retries is {retries}). The last line of its output is: {why}",
                )
            self._log.write_line(
                f"job: the attempt ended with exit code {code} at step {step}; restarting "
                f"({budget.failures} of {retries} retries without a new step)"
            )
            self._write(state="WAITING", waits_for="its turn")

    def _after_signal(self, code: int) -> str | None:
        """Return a message about the signal that killed the driver, or None if no signal did."""
        name = signal_name(code)
        if name is None:
            return None
        cause = ", often sent because memory ran out" if name == "SIGKILL" else ""
        checkpoints = list_checkpoints(self._run.checkpoints)
        command = f"transloom jobs retry {self._record.id}"
        if file := self._request.environment_file:
            command += f" --env-file {quote(file)}"
        newest = (
            f"To continue from the newest checkpoint, {checkpoints[-1]}, run `{command}`"
            if checkpoints
            else f"There is no checkpoint. To start the run over, use `{command}`"
        )
        text = (
            f"The driver was killed by {name} (exit code {code}{cause}) after step "
            f"{self._record.attempts[-1].step}. {newest}. Add {code} to cluster.retry_exit_codes "
            "to retry automatically"
        )
        self._log.write_line(f"error: {text}")
        return text

    def _follow_share(self, snapshot: ClusterSnapshot) -> None:
        """Write the number of ranks that the job should have, if it has changed."""
        target = self._share.target(snapshot, time.monotonic())
        if target != self._target:
            with suppress(OSError):  # the disk is full; the next call tries again
                file = share_file(self._run.path, self._record.id)
                write_atomically(file, target.model_dump_json())
                self._target = target

    def _stop_order(self, view: SharesView) -> StopOrder | None:
        """Return who has stopped the job by a signal; None if that is unknown."""
        if not self._is_order_known:  # the order precedes the signal, so one query suffices
            self._is_order_known = True
            with suppress(ClusterError):
                self._order = view.stop_order(self._record.id)
        return self._order

    def _stop_text(self, view: SharesView) -> str | None:
        order = self._stop_order(view) if self._stop.by_signal else None
        return order.text if order else self._stop.reason

    def _wait_for_room(self, view: SharesView) -> None:
        """Wait until the cluster has room for this job, or a user asks the job to stop.

        Raises:
            ClusterError: the job must wait, but was submitted with --no-wait.
        """
        told, answered = None, time.monotonic()
        while not self._stop.reason:
            try:
                snapshot = view.snapshot()
                waits_for = self._share.waiting_reason(snapshot, time.monotonic())
                answered = time.monotonic()
            except ClusterError as error:
                if time.monotonic() - answered > HEAD_TIMEOUT_SECONDS:
                    raise
                self._write(waits_for=f"an answer from Ray's head: {error}")
                self._sleep(QUEUE_SECONDS)
                continue
            if not waits_for:
                self._follow_share(snapshot)
                self._write(state="STARTING", waits_for=None)
                return
            if not self._request.wait and not self._record.attempts:
                raise ClusterError(
                    f"The job would have to wait for {waits_for}. Submit it without --no-wait, "
                    "lower cluster.ranks, or stop jobs that hold resources"
                )
            if not self._share.has_turn:
                self._discard_child()  # a waiting child would hold memory
            if waits_for != self._record.waits_for:
                self._write(waits_for=waits_for)
            if told is None:
                told = waits_for
                self._log.write_line(f"job: WAITING for {waits_for}")
            self._sleep(QUEUE_SECONDS)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stop.reason:
            self._renew()
            time.sleep(min(POLL_SECONDS, seconds))

    def _attempt(self, view: SharesView) -> int:
        attempt = Attempt(
            started=time.time(), first_line=self._log.lines + 1, first_byte=self._log.bytes
        )
        others = self._record.attempts
        self._write(attempts=(*others, attempt))
        size = self._recorded_bytes()
        child, self._ready = self._ready or self._start_child(), None
        variables = as_variable(self._request.invocation) | {
            JOB_VARIABLE: self._record.id,
            CLAIM_VARIABLE: self._request.claim.model_dump_json(),
        }
        child.begin(argv_line(self._words, self._working_folder(), variables))
        owns_run = False  # the child; until it does, other processes may change the folder
        while (code := child.wait(POLL_SECONDS)) is None:
            owns_run = owns_run or self._is_owner(child)
            if owns_run:
                if self._stop.by_signal:
                    self._stop.forward(self._stop_order(view))
                if self._record.state == "STARTING" and self._recorded_bytes() != size:
                    self._write(state="RUNNING")
            self._renew()
            if (self._share.held, self._target) != (self._record.ranks, self._record.share):
                self._write(ranks=self._share.held, share=self._target)
        # Check once more: the child may have taken ownership of the run and ended before the loop
        # noticed.
        self._is_owner(child)
        ended = attempt.model_copy(
            update={
                "ended": time.time(),
                "exit_code": code,
                "why": self._end_reason(code)[:MAX_REASON_CHARACTERS],
                "last_line": self._log.lines,
                "step": recorded_step(self._run.metrics),
            }
        )
        self._write(attempts=(*others, ended))
        return code

    def _end_reason(self, code: int) -> str:
        """Return why an attempt ended: the signal that killed it, or its last line."""
        name, last = signal_name(code), self._log.last_line()
        return f"killed by {name}; the last line is: {last}" if name else last

    def _is_owner(self, child: DriverProcess) -> bool:
        """Return whether the run's newest owner is the child; if so, record its ownership."""
        owns_run = False
        with suppress(OSError):
            owns_run = was_owned_by(self._run.path, child.process_id)
        if owns_run and not self._record.has_owned_run:
            self._write(has_owned_run=True)
        return owns_run

    def _working_folder(self) -> Path:
        """Return the base of the recipe's relative paths on this node."""
        folder = Path(self._request.folder)
        return folder if folder.is_dir() else self._run.path

    def _start_child(self) -> DriverProcess:
        return DriverProcess(start(self._command, os.environ), self._log)

    def _discard_child(self) -> None:
        if self._ready:
            self._ready.drop()
        self._ready = None

    def _recorded_bytes(self) -> int:
        with suppress(OSError):
            return self._run.metrics.stat().st_size
        return 0

    def _renew(self) -> None:
        if time.monotonic() - self._renewed > RENEW_SECONDS:
            self._renewed = time.monotonic()
            self._folder.renew()
        if self._record.state == "WAITING" and self._uploads.has_passed(time.monotonic()):
            self._upload()

    def _upload(self) -> None:
        """Upload the job's files if its run is in an object store and no driver uploads them."""
        if self._run.url is None:
            return
        from run_store.remote.changes import add_job_files  # imports obstore

        try:
            add_job_files(self._run)
        except (OSError, RunError) as error:
            self._log.write_line(f"warning: the job's files are not in {self._run.url}: {error}")

    def _write(self, **changes: Any) -> None:
        """Change the record. On a full disk the file stays unchanged, and the job continues."""
        if "state" in changes and changes["state"] != self._record.state:
            changes["since"] = time.time()
        self._record = self._record.model_copy(update=changes)
        try:
            self._folder.write(self._record)
        except OSError as error:
            self._log.write_line(f"warning: {self._folder.record_file}: {error.strerror}")


def signal_name(code: int) -> str | None:
    """Return the signal's name, such as SIGKILL, from a shell's exit code; None for other codes."""
    with suppress(ValueError):
        return signal.Signals(code - SIGNALLED).name
    return None


def run(payload: Path, command: Sequence[str], ready: "subprocess.Popen[bytes] | None") -> int:
    """Run the submitted job and return its exit code.

    Args:
        payload: file with the job's id and request.
        command: command that starts a process, which then waits for its arguments.
        ready: process that already waits for its arguments; None to start one later.
    """
    from cluster.launchers.ray_job.job_unpacking import unpack_job

    try:
        arrived = unpack_job(payload)
        runner = JobRunner(
            arrived.job_id, arrived.request, arrived.words, command, arrived.view, ready
        )
    except (ClusterError, OSError) as error:
        print_error(str(error))
        if ready:
            ready.kill()
            ready.wait()
        return EXIT_FAILED
    return runner.run()
