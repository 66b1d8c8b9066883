"""State of a run's processes, a part of its status."""

from typing import Annotated, Literal

from pydantic import Field

from foundation.file_model import Count, FileModel

MAX_PROCESSES = 50_000
MAX_RESTARTS = 20
MAX_UNFIT_NODES = 100
MAX_CHARACTERS = 500  # maximum length of a restart's cause, which may be a library's message

Phase = Literal["start", "data", "step", "validation", "save", "done"]
SupervisorState = Literal[
    "starting_ray", "waiting_for_capacity", "checking_nodes", "starting_ranks", "training", "ending"
]

Seconds = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]


class RankVitals(FileModel):
    """State of a rank.

    Attributes:
        rank: the number of the rank.
        node: the name of the rank's node in messages.
        phase: the phase in the rank's last report.
        step: the step in the rank's last report.
        silent_seconds: seconds since the rank's last heartbeat.
    """

    rank: Count
    node: str
    phase: Phase
    step: Count
    silent_seconds: Seconds


class DataWorkerVitals(FileModel):
    """State of a data worker.

    Attributes:
        number: the number of the data worker.
        node: the name of the worker's node in messages; None until the worker's first answer.
        alive: whether the worker has answered recently.
        windows_read: windows read since the worker's process started; None until its first answer.
        silent_seconds: seconds since the worker's last heartbeat.
    """

    number: Count
    node: str | None = None
    alive: bool
    windows_read: Count | None = None
    silent_seconds: Seconds


class Restart(FileModel):
    """Start of the ranks after the run's first start.

    Attributes:
        time: the time in seconds since the epoch.
        cause: description of the cause that ended the previous ranks.
    """

    time: Seconds
    cause: Text


class Vitals(FileModel):
    """Snapshot of the state of a run's processes.

    Attributes:
        time: the time of the snapshot, in seconds since the epoch by the owner's clock.
        attempt: how many times this owner has started ranks.
        over: whether the owner has left; the other fields then describe the state before it left.
        ranks: the ranks; empty while the run waits for resources.
        data_workers: the data workers.
        checkpoint_being_written: the step of the checkpoint that is being written, or None.
        memory_checkpoint: the newest step whose state is complete in the memory of the nodes, or
            None.
        restarts: the newest restarts, oldest first.
        unfit_nodes: nodes that the run does not use, each with the reason and its figures.
        supervisor: the state of the supervisor; None while ranks train, and after the owner has
            left.
    """

    time: Seconds
    attempt: Count = 0
    over: bool = False
    ranks: Annotated[tuple[RankVitals, ...], Field(max_length=MAX_PROCESSES)] = ()
    data_workers: Annotated[tuple[DataWorkerVitals, ...], Field(max_length=MAX_PROCESSES)] = ()
    checkpoint_being_written: Count | None = None
    memory_checkpoint: Count | None = None
    restarts: Annotated[tuple[Restart, ...], Field(max_length=MAX_RESTARTS)] = ()
    unfit_nodes: Annotated[tuple[Text, ...], Field(max_length=MAX_UNFIT_NODES)] = ()
    supervisor: SupervisorState | None = None

    @property
    def supervisor_state(self) -> SupervisorState | None:
        """Name of the supervisor's state; None if it is unknown."""
        if self.supervisor:
            return self.supervisor
        return "training" if self.ranks else None
