"""Ownership of a run by one supervisor at a time, with fencing of former owners.

::

    owners/00000007.json                the owner: host, process, start time
    owners/00000007.released            the same file, renamed when the owner has left
    checkpoints/.work-00000007-3f9a…/   work folder: owner and ranks write here before a commit

The process with the highest number owns the run. A process becomes the owner by creating the next
file, which succeeds for only one contender. The owner periodically renews its ownership by updating
the modification time of its file, which works even on a full disk.

A contender watches the owner's file. If the owner renews it, the contender raises an error that
names the owner. The contender takes the next number in two cases: the owner does not renew its file
for `LEASE_SECONDS` by the contender's clock, or the owner's process is known to be dead. The file
of the highest number is never removed, so no number is used twice. If a contender finds a higher
number than its own after creating its file, it was too slow, and withdraws.

Fencing: a new owner removes the work folders of all former owners. Commits and removals of
checkpoints are renames from or to the work folder (see `run_store.checkpoints.commit`), so they
fail for a former owner that was merely paused.
"""

import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field

from data_pipeline.storage.regular_files import (
    open_regular,
    read_regular,
    sync_to_disk,
    write_durably,
)
from foundation.file_model import FileModel
from foundation.periodic_thread import PeriodicThread
from run_store.errors import LeaseLostError, RunInUseError
from run_store.process_identity import host_identity, start_tick

WORK = ".work-"  # beginning of a work folder's name
RENEW_SECONDS = 5.0
LEASE_SECONDS = 30.0
POLL_SECONDS = 0.25
RELEASED = ".released"
OWNER_BYTES = 10_000


class OwnerMetadata(FileModel):
    """Content of an owner's file.

    `process` is the process id, and `started` is its start time according to `start_tick`. `place`
    is the result of `host_identity`. `since` is the time at which the process became the owner, in
    UTC. `token` distinguishes the owners that train, even if they are of the same process. A status
    of the run is valid if it has this token. If `token` is None, any status is valid.
    """

    host: str
    process: Annotated[int, Field(gt=0, lt=2**31)]
    started: int | None = None
    place: str | None = None
    since: str
    token: Annotated[str, Field(max_length=64)] | None = None


class Ownership(NamedTuple):
    """Newest owner of a run, as seen by a process that does not own the run.

    Attributes:
        card: the content of the owner's file; None if the file is being written or is damaged.
        released: whether the owner has left.
        is_dead: whether the owner's process is known to have ended.
        renewed: time of the last renewal of the lease, in seconds since the epoch by the file
            server's clock.
    """

    card: OwnerMetadata | None
    released: bool
    is_dead: bool
    renewed: float


class _Owner(NamedTuple):
    number: int
    file: Path


class Lease:
    """Ownership of the run in a folder, as a context manager.

    Attributes:
        owner: the content of this process's owner file.
        work: the work folder.

    Raises:
        RunInUseError: on entering, another process owns the run.
        OSError: on entering, the folder cannot be written.
    """

    def __init__(
        self,
        run: Path,
        announce: Callable[[str], None] = lambda text: None,
        *,
        trains: bool = True,
    ) -> None:
        """Prepare a lease; entering the context acquires it.

        Args:
            run: the run folder.
            announce: receives a message if this process must wait until a former owner's lease
                expires.
            trains: whether this process trains the run, and so writes its status; otherwise the
                status of the former owner stays valid.
        """
        self._run = run
        self._trains = trains
        self._owners = run / "owners"
        self._checkpoints = run / "checkpoints"
        self._announce = announce
        self._renewer = PeriodicThread("lease", RENEW_SECONDS, self._renew, give_up=self._give_up)
        self._failure: Exception | None = None  # error that ended the renewals
        self._further_checks: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        self._owners.mkdir(parents=True, exist_ok=True)
        self._checkpoints.mkdir(exist_ok=True)
        self._owner = self._take()
        self._renewer.start()
        self.work = work_folder(self._checkpoints, self._owner.number)
        try:
            self.work.mkdir()
            self._fence_former_owners()
            self.check()  # if this process was paused, another one may own the run now
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def require(self, check: Callable[[], None]) -> None:
        """Make `check` also call this function, which raises an error if the run is lost."""
        self._further_checks.append(check)

    def check(self) -> None:
        """Check that this process still owns the run.

        Raises:
            LeaseLostError: this process no longer owns the run.
        """
        for check in self._further_checks:
            check()
        if self._failure:
            raise LeaseLostError(
                f"The lease of {self._run} cannot be renewed: {self._failure!r}. Committed "
                "checkpoints remain valid; start the same command again"
            )
        newest = _newest(self._owners)
        if newest and newest != self._owner:
            raise LeaseLostError(
                f"{self._run} is now owned by {_name(newest)}, because this process did not renew "
                f"its lease for {LEASE_SECONDS:.0f} s. Committed checkpoints remain valid"
            )
        if newest is None or not self.work.is_dir():
            raise LeaseLostError(
                f"{self._owner.file} or {self.work} was removed while this process owned "
                f"{self._run}. Committed checkpoints remain valid; start the same command again"
            )

    def _leave(self) -> None:
        self._renewer.stop()
        discard(self.work)
        # Another process owns the run now, or will detect that this process has ended.
        with suppress(OSError):
            self._owner.file.rename(self._owner.file.with_suffix(RELEASED))

    def _take(self) -> _Owner:
        """Wait until the run is free and take the next number."""
        while True:
            # If owners/ was removed, only work folders reveal former owners. List them before the
            # owners: a current owner creates its file before its work folder, so its work folder
            # cannot be mistaken for that of a former owner.
            former = _work_numbers(self._checkpoints)
            newest = _newest(self._owners)
            if newest:
                self._wait_until_abandoned(newest)
            number = max([newest.number if newest else 0, *former]) + 1
            mine = _Owner(number, self._owners / f"{number:08d}.json")
            try:
                mine.file.touch(exist_ok=False)
            except FileExistsError:
                time.sleep(POLL_SECONDS)  # another contender has created the file
                continue
            try:
                self.owner = OwnerMetadata.model_validate(this_process())
                if not self._trains:
                    token = _read(newest).get("token") if newest else None
                    self.owner = self.owner.model_copy(update={"token": token})
                write_durably(mine.file, self.owner.model_dump_json().encode())
                sync_to_disk(self._owners)
            except OSError:
                mine.file.unlink(missing_ok=True)
                raise
            if _newest(self._owners) == mine:
                return mine
            mine.file.unlink(missing_ok=True)  # other processes have owned the run in the meantime

    def _wait_until_abandoned(self, newest: _Owner) -> None:
        """Wait until the owner has released the run, is dead, or has let its lease expire.

        Raises:
            RunInUseError: the owner renewed its lease.
        """
        if newest.file.suffix == RELEASED or is_dead(_read(newest)):
            return
        wait_for_expiry(
            lambda: _last_renewed(newest),
            str(self._run),
            lambda: _name(newest),
            self._announce,
            POLL_SECONDS,
        )

    def _fence_former_owners(self) -> None:
        """Remove the work folders of former owners.

        The work folder of a successor is kept. A successor exists if this process was paused for
        longer than its lease.
        """
        for folder in self._checkpoints.glob(f"{WORK}*"):
            if folder.name < self.work.name:
                # Rename first: after that no commit of a former owner can succeed.
                gone = self.work / f"former{folder.name}"
                with suppress(FileNotFoundError):
                    folder.rename(gone)
                discard(gone)
        for owner in _owners_in(self._owners):
            if owner.number < self._owner.number:
                owner.file.unlink(missing_ok=True)

    def _give_up(self, error: Exception) -> None:
        self._failure = error

    def _renew(self) -> None:
        with suppress(OSError):  # `check` detects whether another process took over meanwhile
            os.utime(self._owner.file)


def wait_for_expiry(
    renewal: Callable[[], object | None],
    run: str,
    owner: Callable[[], str],
    announce: Callable[[str], None],
    poll_seconds: float,
) -> None:
    """Wait until the owner of a run has left, or has let its lease expire.

    Args:
        renewal: returns a value that changes whenever the owner renews its lease, or None if the
            owner has left.
        run: the path or URL of the run, for messages.
        owner: returns a description of the owner's process and host, for messages.
        announce: receives a message if the owner does not renew its lease.
        poll_seconds: time between two calls of `renewal`.

    Raises:
        RunInUseError: the owner has renewed its lease.
    """
    seen, since, told = renewal(), time.monotonic(), False
    while seen is not None and time.monotonic() - since < LEASE_SECONDS:
        time.sleep(poll_seconds)
        now = renewal()
        if now not in (None, seen):
            raise in_use_error(run, owner())
        seen = now
        if seen is not None and not told and time.monotonic() - since > 2 * RENEW_SECONDS:
            told = True
            announce(
                f"{owner()} owns this run, but does not renew its lease; waiting until the "
                f"lease of {LEASE_SECONDS:.0f} s has expired"
            )


def in_use_error(run: str, owner: str) -> RunInUseError:
    """Return the error of a run at a path or URL that another process owns."""
    return RunInUseError(
        f"{run} is in use by {owner}. Stop that process (on SIGTERM, a training saves a checkpoint "
        "and ends), or train another run with --run PATH"
    )


def ownership(run: Path) -> Ownership | None:
    """Return the newest owner of the run in a folder, or None if the run never had an owner.

    Raises:
        OSError: the folder cannot be read.
    """
    newest = _newest(run / "owners")
    if newest is None:
        return None
    known = _read(newest)
    return Ownership(
        card=OwnerMetadata.model_validate(known) if known else None,
        released=newest.file.suffix == RELEASED,
        is_dead=is_dead(known),
        renewed=newest.file.stat().st_mtime,
    )


def was_owned_by(run: Path, process: int) -> bool:
    """Return whether a process of this machine is, or last was, the owner of a run.

    Raises:
        OSError: the folder cannot be read.
    """
    newest = _newest(run / "owners")
    known = _read(newest) if newest else {}
    here = {"host": socket.gethostname(), "place": host_identity(), "process": process}
    return all(known.get(name) == value for name, value in here.items())


def work_folder(checkpoints: Path, number: int) -> Path:
    """Return a new path for a work folder, which holds checkpoints being written or removed.

    A later owner with a higher number removes the folder.
    """
    return checkpoints / f"{WORK}{number:08d}-{secrets.token_hex(4)}"


def _owners_in(folder: Path) -> list[_Owner]:
    return [_Owner(int(f.stem), f) for f in folder.iterdir() if f.stem.isdecimal()]


def _newest(owners: Path) -> _Owner | None:
    try:
        return max(_owners_in(owners), default=None)
    except FileNotFoundError:
        return None  # the folder was removed


def _work_numbers(checkpoints: Path) -> list[int]:
    parts = [folder.name.split("-") for folder in checkpoints.glob(f"{WORK}*-*")]
    return [int(number) for _, number, *_ in parts if number.isdecimal()]


def _last_renewed(owner: _Owner) -> int | None:
    """Return the time of the last renewal in ns by the file server's clock, or None if released."""
    try:
        with open_regular(owner.file) as opened:  # opening makes NFS refresh the attributes
            return os.fstat(opened.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": start_tick(os.getpid()),
        "place": host_identity(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "token": secrets.token_hex(8),
    }


def _read(owner: _Owner) -> dict[str, Any]:
    """Return the content of an owner's file, or an empty dict if it is incomplete or invalid.

    The lease of an owner with an invalid file expires like any other, but messages cannot name the
    owner.
    """
    try:
        data = read_regular(owner.file, OWNER_BYTES)
        return OwnerMetadata.from_json(data).model_dump()
    except (OSError, ValueError):
        return {}


def is_dead(known: dict[str, Any]) -> bool:
    """Return whether the owner's process is known to have ended."""
    if host_identity() is None or known.get("place") != host_identity():
        return False
    try:
        os.kill(known["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # another user's process has this id and may be the owner
    return start_tick(known["process"]) != known["started"]


def _name(owner: _Owner) -> str:
    known = _read(owner)
    if not known:
        return f"an unknown process (see {owner.file})"
    return f"process {known['process']} on {known['host']} (since {known['since']})"


def discard(folder: Path) -> None:
    """Remove a folder as far as possible, ignoring errors; the next owner removes the rest."""
    shutil.rmtree(folder, ignore_errors=True)
