"""Who owns a run: one supervisor at a time, and how its predecessors are kept out.

::

    owners/00000007.json                the owner: host, process, since when; touched as it lives
    checkpoints/.work-00000007-3f9a…/   where it and its ranks write before a commit

The highest number owns the run. It is taken by creating the next file, which succeeds for one
contender alone, and renewed by touching it, which a full disk allows. Somebody who wants the run
watches the file: while it is renewed he is refused by the owner's name; if it is not renewed for
`LEASE_SECONDS` of his own clock, or its process is known to be dead, he takes the next number.

Fencing: a new owner removes the work folders of the others. Commits and removals of checkpoints
are renames from or to the work folder (see `trainer.checkpoints.commit`), so they fail for a
former owner that was merely paused.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil  # type: ignore[import-untyped]

from data_pipeline.dataset.durable import sync_to_disk
from trainer.checkpoints.commit import discard
from trainer.errors import LeaseLostError, RunInUseError

RENEW_SECONDS = 5.0
LEASE_SECONDS = 30.0
POLL_SECONDS = 0.25


class Lease:
    """Ownership of the run in a folder, from entering the context to leaving it.

    Raises:
        RunInUseError: on entering, another process owns the run.
    """

    def __init__(self, run: Path, announce: Callable[[str], None] = lambda text: None) -> None:
        """``announce`` is told if a former owner's lease must run out first."""
        self._run = run
        self._owners = run / "owners"
        self._checkpoints = run / "checkpoints"
        self._announce = announce
        self._over = threading.Event()
        self._renewer = threading.Thread(target=self._keep_renewing, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._owners.mkdir(parents=True, exist_ok=True)
        self._checkpoints.mkdir(exist_ok=True)
        self._number = self._take()
        self._file = self._owners / f"{self._number:08d}.json"
        self._renewed = time.monotonic()
        self.work = self._checkpoints / f".work-{self._number:08d}-{secrets.token_hex(4)}"
        self.work.mkdir()
        self._keep_others_out()
        self._renewer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._renewer.join()
        discard(self.work)
        with suppress(FileNotFoundError):  # somebody else owns the run by now
            self._file.rename(self._file.with_suffix(".released"))

    def check(self) -> None:
        """Raises LeaseLostError if this process owns the run no longer, or cannot be sure."""
        newest = _newest(self._owners)
        if newest and newest.stem != self._file.stem:
            raise LeaseLostError(
                f"{self._run} belongs to {_name(_read(newest))} now, which took it over when this "
                f"process had not been heard of for {LEASE_SECONDS:.0f} s. What is committed stands"
            )
        if not self.work.is_dir() or time.monotonic() - self._renewed > LEASE_SECONDS:
            raise LeaseLostError(
                f"The lease on {self._run} could not be renewed for {LEASE_SECONDS:.0f} s: see "
                "whether its file system answers, then start the same command again"
            )

    def _take(self) -> int:
        """Wait until the run is free and take the next number."""
        while True:
            newest = _newest(self._owners)
            if newest and newest.suffix != ".released":
                self._wait_until_abandoned(newest)
            number = int(newest.stem) + 1 if newest else 1
            try:
                with (self._owners / f"{number:08d}.json").open("x", encoding="utf-8") as file:
                    json.dump(_myself(), file)
            except FileExistsError:
                continue  # another contender was faster
            sync_to_disk(self._owners)
            return number

    def _wait_until_abandoned(self, newest: Path) -> None:
        """Returns once the owner is known to be gone; raises if it shows a sign of life."""
        owner = _read(newest)
        if _is_dead(owner):
            return
        seen, since, told = _touched(newest), time.monotonic(), False
        while time.monotonic() - since < LEASE_SECONDS:
            time.sleep(POLL_SECONDS)
            now = _touched(newest)
            if now is None:
                return  # released
            if now != seen:
                raise RunInUseError(
                    f"{self._run} is being trained by {_name(owner)}. Stop that (SIGTERM leaves a "
                    "checkpoint), or train another run with --run PATH"
                )
            if not told and time.monotonic() - since > 2 * RENEW_SECONDS:
                told = True
                self._announce(
                    f"{_name(owner)} owned this run and has not been heard of; waiting until its "
                    f"lease of {LEASE_SECONDS:.0f} s has run out"
                )

    def _keep_others_out(self) -> None:
        for folder in self._checkpoints.glob(".work-*"):
            if folder != self.work:
                # Renamed first: from then on no commit of a former owner can succeed.
                gone = self.work / f"former{folder.name}"
                with suppress(FileNotFoundError):
                    folder.rename(gone)
                discard(gone)
        for file in self._owners.iterdir():
            if int(file.stem) < self._number:
                file.unlink(missing_ok=True)

    def _keep_renewing(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            with suppress(OSError):  # `check` tells when it has not succeeded for too long
                os.utime(self._file)
                self._renewed = time.monotonic()


def _newest(owners: Path) -> Path | None:
    return max(owners.glob("[0-9]*"), key=lambda file: file.stem, default=None)


def _touched(file: Path) -> int | None:
    """When the owner renewed last, by the file server's clock; None if it has released."""
    try:
        with file.open("rb") as opened:  # opening makes NFS ask for the attributes anew
            return os.fstat(opened.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _myself() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": psutil.Process().create_time(),
        "place": _place(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _place() -> str | None:
    """Within one place a process id means one process; None where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _read(file: Path) -> dict[str, Any]:
    """What is known of an owner; nothing if its file is being written, or was torn."""
    try:
        owner: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return owner


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether the owner's process is known to have ended."""
    if _place() is None or owner.get("place") != _place():
        return False
    try:
        process = psutil.Process(owner["process"])
        return (
            abs(process.create_time() - owner["started"]) > 1
            or process.status() == psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return True


def _name(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner['process']} on {owner['host']} (since {owner['since']})"
