"""State of a run, as all views show it: its `status.json`, and the lease of its owner.

::

    status.json    state, numbers, processes, checkpoints, as the owner wrote them  ─┐
    owners/        the process that trains the run, and whether it lives            ─┴─▶ RunStatus

Views show the state of a run from these files alone. They ignore the file of a former owner. For a
run without a file, they show the name, and the command that writes the file from the record. The
file is data of other users: it is read within limits, and no text, path or URL in it is opened.
"""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from data_pipeline.storage.regular_files import read_regular
from foundation.file_model import JsonLimits, error_summary
from foundation.periodic_thread import ExceptionLog
from foundation.wording import span
from run_store.checkpoints.folder_names import folder_name
from run_store.errors import RunError, RunMismatchError
from run_store.folder import RunFolder
from run_store.lease import LEASE_SECONDS, Ownership, ownership
from run_store.record.run_status_model import Owner, RunStatus

T = TypeVar("T")

LIMITS = JsonLimits(bytes=8_000_000, values=800_000)
# Values of the fields that have a meaning only while a process trains the run.
NOT_TRAINED: dict[str, Any] = {
    **dict.fromkeys(("supervisor_state", "seconds_left", "memory_checkpoint_step")),
    "slow_ranks": [],
    "unfit_nodes": (),
}

_exceptions = ExceptionLog("the list of runs")


class ProblemCollector(list[str]):
    """List of problems that collects the errors of several reads."""

    def try_read(self, what: Path, read: Callable[[], T], default: T) -> T:
        """Return the result of `read`; if it fails, add a problem with `what`, return `default`."""
        try:
            return read()
        except RunError as error:
            self.append(str(error))
        except OSError as error:
            self.append(f"{what} cannot be read: {error.strerror or error}")
        except ValueError as error:
            self.append(f"{what} is damaged: {error_summary(error)}")
        return default


def is_run(path: Path) -> bool:
    """Return whether a folder has at least one of the files that identify a run folder."""
    run = RunFolder(path)
    traces = (run.card_path, run.metrics, run.checkpoints, run.path / "owners")
    try:
        return any(trace.exists() for trace in traces)
    except OSError:  # for example, only the owner of the folder may enter it
        return False


def no_runs_in(folder: Path | str, error: OSError, or_else: str = "") -> RunMismatchError:
    """Return the error that the runs in a folder cannot be listed.

    Args:
        folder: the folder.
        error: the error of the attempt to list them.
        or_else: the alternative argument of a command, such as " or a run".
    """
    return RunMismatchError(
        f"The runs in {folder} cannot be listed: {error.strerror}. Name the folder that holds your "
        f"runs{or_else}. The default is `runs` in the current folder, which the first `transloom "
        "train` creates"
    )


def run_paths(
    folder: Path, or_else: str = "", is_listed: Callable[[Path], bool] = is_run
) -> list[Path]:
    """Return the folders of runs in a folder, in the order of their names.

    Args:
        folder: the folder that holds the runs.
        or_else: see `no_runs_in`.
        is_listed: selects the paths to return.

    Raises:
        RunMismatchError: there is no such folder.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise no_runs_in(folder, error, or_else) from error
    return [path for path in paths if is_listed(path)]


def read_status(run: RunFolder) -> RunStatus | None:
    """Return the content of `status.json`, by any owner.

    Returns:
        The status. None if there is no file, or if it is empty, as after a power loss.

    Raises:
        OSError, ValueError: the file cannot be read.
    """
    try:
        data = read_regular(run.status, LIMITS.bytes)
    except FileNotFoundError:
        return None
    return RunStatus.from_json(data, LIMITS) if data else None


def run_status_of(path: Path) -> RunStatus:
    """Return the current status of the run in a folder.

    An exception during the read becomes a problem of this run, so that other runs are still shown.
    """
    try:
        return _run_status(RunFolder(path))
    except Exception as error:
        problem = f"{path} cannot be read: {error!r}"
        _exceptions.add(error)
        return RunStatus(
            name=path.name or str(path),
            path=str(path),
            state="damaged",
            reason=problem,
            problems=[problem],
        )


def _run_status(run: RunFolder) -> RunStatus:
    path, problems = run.path, ProblemCollector()
    # Read the owner first. If it has left by now, its status file is final.
    held = problems.try_read(path / "owners", lambda: ownership(path), None)
    found = problems.try_read(run.status, lambda: read_status(run), None)
    card = held.card if held else None
    owner = Owner(**dict(card)) if card else None
    lives = held is not None and has_live_lease(held)
    token = owner.token if owner else None
    is_other = found and found.owner and token not in (None, found.owner.token)
    known = found if found and not is_other else RunStatus()
    update: dict[str, Any] = {"name": path.name or str(path), "path": str(path)}
    if lives:
        since = seconds_of(owner.since) if owner else 0.0
        age = time.time() - max(known.step_time or 0.0, since)
        update |= {"state": "training", "reason": None, "step_age_seconds": round(max(0.0, age), 1)}
    else:
        update |= NOT_TRAINED
        missing = _missing_text(run) if known.state == "unknown" else None
        if held and not held.released and known.state in ("training", "stopped", "unknown"):
            update |= {"state": "abandoned", "reason": _abandoned_reason(held)}
            problems += [missing] if missing else []
        elif missing:
            update |= {"state": "damaged" if problems else "unknown", "reason": missing}
        elif known.state == "training":  # a copied run, or the owner could not write it
            update |= {"state": "stopped", "reason": None}
    if held and owner:
        silent_seconds = round(time.time() - held.renewed, 1)
        update["owner"] = owner.model_copy(update={"silent_seconds": silent_seconds})
    if known.checkpoint_step is not None:
        update["checkpoint"] = str(run.checkpoints / folder_name(known.checkpoint_step))
    return known.model_copy(update=update | {"problems": [*known.problems, *problems]})


def _missing_text(run: RunFolder) -> str:
    return (
        f"{run.path} has no {run.status.name} of its last owner that can be read: `transloom "
        f"status {quote(run.location)} --from-record` writes it"
    )


def has_live_lease(held: Ownership) -> bool:
    """Return whether the owner has not left, may be alive, and has renewed its lease in time.

    The time of the renewal may be in the future, because the clock of the file server may be ahead.
    """
    is_recent = abs(time.time() - held.renewed) <= LEASE_SECONDS
    return not held.released and not held.is_dead and is_recent


def _abandoned_reason(held: Ownership) -> str:
    who = f"process {held.card.process} on {held.card.host}" if held.card else "its owner"
    if held.is_dead:
        return f"{who} has ended without releasing the run"
    silent = time.time() - held.renewed
    if silent < 0:
        return f"{who} sent its last heartbeat {span(-silent)} ahead of this machine's clock"
    return f"{who} has sent no heartbeat for {span(silent)}"


def seconds_of(text: str) -> float:
    """Return a time in ISO format in seconds since the epoch; 0 if it is not such a time."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
