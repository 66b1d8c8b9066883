"""Ownership of a run: one supervisor at a time, whose predecessors are kept out.

::

    owners/00000007.json                the owner: host, process, since when; touched as it lives
    owners/00000007.released            instead: there was an owner, and it has left
    checkpoints/.work-00000007-3f9a…/   where it and its ranks write before a commit

The highest number owns the run. An owner takes it by creating the next file, which succeeds for one
contender alone, and renews it by touching the file, which a full disk allows. A contender watches
the file. While it is renewed, the contender is refused, with the owner's name. If it is not renewed
for `LEASE_SECONDS` of the contender's own clock, or the owner's process is known to be dead, the
contender takes the next number. The file of the highest number is never removed, so no number is
taken twice: a contender that finds a higher number than the one it took was too slow, and
withdraws.

Fencing: a new owner removes the work folders of the others. Commits and removals of checkpoints
are renames from or to the work folder (see `trainer.checkpoints.commit`), so they fail for a
former owner that was merely paused.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field

from data_pipeline.storage.durable import sync_to_disk, write_durably
from data_pipeline.storage.regular_files import open_regular, read_regular
from foundation.periodic_thread import PeriodicThread
from foundation.strict_json import parse_object
from foundation.file_model import FileModel
from trainer.checkpoints.commit import discard
from trainer.checkpoints.process_identity import start_tick
from trainer.errors import LeaseLostError, RunInUseError

RENEW_SECONDS = 5.0
LEASE_SECONDS = 30.0
POLL_SECONDS = 0.25
RELEASED = ".released"
OWNER_BYTES = 10_000


class OwnerMetadata(FileModel):
    """What an owner's file tells of it."""

    host: str
    process: Annotated[int, Field(gt=0, lt=2**31)]
    started: int | None = None
    place: str | None = None
    since: str


class Ownership(NamedTuple):
    """What a run's folder tells of its newest owner, to whoever only looks.

    Attributes:
        card: None if the file is being written, or was torn.
        released: whether the owner has left.
        is_dead: whether its process is known to have ended.
        renewed: when it gave its last sign of life, in seconds since the epoch, by the file
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
    """Ownership of the run in a folder, from entering the context to leaving it.

    Raises:
        RunInUseError: on entering, another process owns the run.
        OSError: on entering, the folder cannot be written.
    """

    def __init__(self, run: Path, announce: Callable[[str], None] = lambda text: None) -> None:
        """
        Args:
            announce: is told if a former owner's lease must run out first.
        """
        self._run = run
        self._owners = run / "owners"
        self._checkpoints = run / "checkpoints"
        self._announce = announce
        self._renewer = PeriodicThread("lease", RENEW_SECONDS, self._renew)

    def __enter__(self) -> Self:
        self._owners.mkdir(parents=True, exist_ok=True)
        self._checkpoints.mkdir(exist_ok=True)
        self._owner = self._take()
        self._renewer.start()
        self.work = work_folder(self._checkpoints, self._owner.number)
        try:
            self.work.mkdir()
            self._fence_former_owners()
            self.check()  # if it was paused before this, it may have a successor by now
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def check(self) -> None:
        """Check that this process still owns the run.

        Raises:
            LeaseLostError: it does not.
        """
        newest = _newest(self._owners)
        if newest and newest != self._owner:
            raise LeaseLostError(
                f"{self._run} belongs to {_name(newest)} now, which took it over when this "
                f"process had not been heard of for {LEASE_SECONDS:.0f} s. What is committed stands"
            )
        if newest is None or not self.work.is_dir():
            raise LeaseLostError(
                f"{self._owner.file} or {self.work} was removed while this process owned "
                f"{self._run}. What is committed stands; start the same command again"
            )

    def _leave(self) -> None:
        self._renewer.stop()
        discard(self.work)
        with suppress(OSError):  # somebody else owns the run by now, or finds this process dead
            self._owner.file.rename(self._owner.file.with_suffix(RELEASED))

    def _take(self) -> _Owner:
        """Wait until the run is free and take the next number."""
        while True:
            # If owners/ was removed, work folders tell of former owners. They are listed before
            # the owners: a present owner makes its file first, then its work folder, which must
            # not look like that of a former one.
            former = _work_numbers(self._checkpoints)
            newest = _newest(self._owners)
            if newest:
                self._wait_until_abandoned(newest)
            number = max([newest.number if newest else 0, *former]) + 1
            mine = _Owner(number, self._owners / f"{number:08d}.json")
            try:
                mine.file.touch(exist_ok=False)
            except FileExistsError:
                time.sleep(POLL_SECONDS)  # another contender was faster
                continue
            try:
                write_durably(mine.file, json.dumps(_this_process()).encode())
                sync_to_disk(self._owners)
            except OSError:
                mine.file.unlink(missing_ok=True)
                raise
            if _newest(self._owners) == mine:
                return mine
            mine.file.unlink(missing_ok=True)  # others came and went in the meantime

    def _wait_until_abandoned(self, newest: _Owner) -> None:
        """Wait until the owner is known to be gone.

        Raises:
            RunInUseError: it shows a sign of life.
        """
        if newest.file.suffix == RELEASED or _is_dead(_read(newest)):
            return
        seen, since, told = _last_renewed(newest), time.monotonic(), False
        while time.monotonic() - since < LEASE_SECONDS:
            time.sleep(POLL_SECONDS)
            now = _last_renewed(newest)
            if now is None:
                return  # released
            if now != seen:
                raise RunInUseError(
                    f"{self._run} is in use by {_name(newest)}. Stop that process (a training that "
                    "gets SIGTERM leaves a checkpoint), or train another run with --run PATH"
                )
            if not told and time.monotonic() - since > 2 * RENEW_SECONDS:
                told = True
                self._announce(
                    f"{_name(newest)} owned this run and has not been heard of; waiting until its "
                    f"lease of {LEASE_SECONDS:.0f} s has run out"
                )

    def _fence_former_owners(self) -> None:
        """Remove the work folders of former owners only: successors may have come already."""
        for folder in self._checkpoints.glob(".work-*"):
            if folder.name < self.work.name:
                # Renamed first: after that no commit of a former owner can succeed.
                gone = self.work / f"former{folder.name}"
                with suppress(FileNotFoundError):
                    folder.rename(gone)
                discard(gone)
        for owner in _owners_in(self._owners):
            if owner.number < self._owner.number:
                owner.file.unlink(missing_ok=True)

    def _renew(self) -> None:
        with suppress(OSError):  # `check` tells whether somebody has taken over meanwhile
            os.utime(self._owner.file)


def ownership(run: Path) -> Ownership | None:
    """The newest owner of the run in a folder; None if it never had one.

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
        is_dead=_is_dead(known),
        renewed=newest.file.stat().st_mtime,
    )


def was_owned_by(run: Path, process: int) -> bool:
    """Return whether a process on this machine is the run's newest owner, present or former.

    Raises:
        OSError: the folder cannot be read.
    """
    newest = _newest(run / "owners")
    known = _read(newest) if newest else {}
    here = {"host": socket.gethostname(), "place": _host_identity(), "process": process}
    return all(known.get(name) == value for name, value in here.items())


def work_folder(checkpoints: Path, number: int) -> Path:
    """The folder of an owner for what is not yet, or no longer, a checkpoint.

    An owner of a higher number removes it.
    """
    return checkpoints / f".work-{number:08d}-{secrets.token_hex(4)}"


def _owners_in(folder: Path) -> list[_Owner]:
    return [_Owner(int(f.stem), f) for f in folder.iterdir() if f.stem.isdecimal()]


def _newest(owners: Path) -> _Owner | None:
    try:
        return max(_owners_in(owners), default=None)
    except FileNotFoundError:
        return None  # the folder was removed


def _work_numbers(checkpoints: Path) -> list[int]:
    parts = [folder.name.split("-") for folder in checkpoints.glob(".work-*-*")]
    return [int(number) for _, number, *_ in parts if number.isdecimal()]


def _last_renewed(owner: _Owner) -> int | None:
    """When the owner renewed last, by the file server's clock; None if it has released."""
    try:
        with open_regular(owner.file) as opened:  # opening makes NFS ask for the attributes anew
            return os.fstat(opened.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": start_tick(os.getpid()),
        "place": _host_identity(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _host_identity() -> str | None:
    """The place within which a process id means one process; None where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _read(owner: _Owner) -> dict[str, Any]:
    """The content of an owner's file; empty if it is being written, was torn, or is no such file.

    The lease of such an owner runs out as any other: only its name is not known.
    """
    try:
        data = read_regular(owner.file, OWNER_BYTES)
        return OwnerMetadata.model_validate(parse_object(data)).model_dump()
    except (OSError, ValueError):
        return {}


def _is_dead(known: dict[str, Any]) -> bool:
    """Whether the owner's process is known to have ended."""
    if _host_identity() is None or known.get("place") != _host_identity():
        return False
    try:
        os.kill(known["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # a process of another user, of which nothing more may be known
    return start_tick(known["process"]) != known["started"]


def _name(owner: _Owner) -> str:
    known = _read(owner)
    if not known:
        return f"another process, which {owner.file} does not name,"
    return f"process {known['process']} on {known['host']} (since {known['since']})"
