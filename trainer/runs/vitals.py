"""vitals.json: what the processes of a run are doing, for whoever looks at the run.

Its owner writes it every few seconds, whole each time. It is a picture of the moment `time`, and
stays as it is when the owner dies: `are_current` tells whether it still holds.
"""

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from data_pipeline.storage.regular_files import read_regular
from foundation.strict_json import JsonLimits, parse_object
from foundation.file_model import Count, FileModel
from trainer.runs.folder import RunFolder

LIMITS = JsonLimits(bytes=8_000_000, values=800_000)
MAX_PROCESSES = 50_000
MAX_RESTARTS = 20
MAX_CHARACTERS = 500  # of a cause, which may be the message of any library

Phase = Literal["start", "data", "step", "validation", "save", "done"]

Seconds = Annotated[float, Field(ge=0)]


class RankVitals(FileModel):
    """A rank.

    Attributes:
        node: its node's name in messages.
        phase, step: what it is at, by its own last report.
        silent_seconds: since its last sign of life.
    """

    rank: Count
    node: str
    phase: Phase
    step: Count
    silent_seconds: Seconds


class DataWorkerVitals(FileModel):
    """A data worker.

    Attributes:
        node: None until it has answered for the first time, as windows_read.
        alive: whether it has answered lately.
        windows_read: since its process was started.
        silent_seconds: since its last sign of life.
    """

    number: Count
    node: str | None = None
    alive: bool
    windows_read: Count | None = None
    silent_seconds: Seconds


class Restart(FileModel):
    """A start of the ranks after the run's first.

    Attributes:
        time: when, in seconds since the epoch.
        cause: why the ranks before it had ended, in words.
    """

    time: Seconds
    cause: Annotated[str, Field(max_length=MAX_CHARACTERS)]


class Vitals(FileModel):
    """What the processes of a run were doing at a moment.

    Attributes:
        time: the moment, in seconds since the epoch by the owner's clock.
        attempt: how many times this owner has started ranks.
        over: whether the owner has left; what follows was so just before.
        ranks: none while the run waits for room.
        checkpoint_being_written: its step.
        restarts: the newest ones, oldest first.
    """

    format_version: Literal[1] = 1
    time: Seconds
    attempt: Count = 0
    over: bool = False
    ranks: Annotated[tuple[RankVitals, ...], Field(max_length=MAX_PROCESSES)] = ()
    data_workers: Annotated[tuple[DataWorkerVitals, ...], Field(max_length=MAX_PROCESSES)] = ()
    checkpoint_being_written: Count | None = None
    restarts: Annotated[tuple[Restart, ...], Field(max_length=MAX_RESTARTS)] = ()


def write_vitals(run: RunFolder, vitals: Vitals) -> None:
    """Write the file whole or not at all; called by the run's owner.

    Nothing depends on it: it is not written through to the disk, and a full one leaves it as it is.
    """
    unfinished = run.vitals.with_name(run.vitals.name + ".unfinished")
    with suppress(OSError):
        unfinished.write_text(vitals.model_dump_json() + "\n", encoding="utf-8")
        unfinished.replace(run.vitals)


def read_vitals(run: RunFolder) -> Vitals | None:
    """What `write_vitals` has kept; None if there is nothing, or a loss of power has emptied it.

    Raises:
        OSError, ValueError: there is something, and it cannot be read.
    """
    try:
        data = read_regular(run.vitals, LIMITS.bytes)
    except FileNotFoundError:
        return None
    return Vitals.model_validate(parse_object(data, LIMITS)) if data else None


def are_current(vitals: Vitals, owner_since: str) -> bool:
    """Whether the vitals are those of the run's present owner, and it has not left.

    Whether that owner lives, its lease tells (`trainer.record.run_status`): ask this of a run that
    is trained.

    Args:
        owner_since: when the owner began, as its card says; its own clock told both times.
    """
    try:
        since = datetime.fromisoformat(owner_since).timestamp()
    except (ValueError, OverflowError, OSError):
        return False
    return not vitals.over and vitals.time >= since
