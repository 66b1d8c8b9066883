"""Responses of the server to the page; a frozen report contains them as well.

Every response is JSON; the page requests relative paths. The paths below are also the keys of a
frozen report. Unknown values are null.

::

    api/runs                              RunsResponse
    api/runs/ID                           RunResponse
    api/runs/ID/curves?points=&from=&to=  CurvesResponse
    api/runs/ID/nodes                     NodesResponse
    api/runs/ID/time-lapse                TimeLapseResponse
    api/runs/ID/looks/A-B                 InspectionResponse
    POST api/runs/ID/looks                InspectionRequest
    api/follow                            server-sent events: runs (NewRuns), steps (NewSteps),
                                          curves (CurvesChanged), looks (NewInspection)
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from foundation.file_model import Count, FileModel
from trainer.checkpoints.checkpoint_status import CheckpointRow
from trainer.record.metrics_lines import Sample
from trainer.record.run_status import RunStatus
from trainer.runs.folder import RunMetadata
from trainer.runs.log import LogEntry
from trainer.scores import Scores

RUNS = "/api/runs"
FOLLOW = "/api/follow"
# Limit of one inspection: each step is trained again, and the response has all of its sentences.
MAX_INSPECTED_STEPS = 100

Columns = dict[str, list[int | float | None]]


def run_path(run: str) -> str:
    return f"{RUNS}/{run}"


def curves_path(run: str) -> str:
    return f"{RUNS}/{run}/curves"


def nodes_path(run: str) -> str:
    return f"{RUNS}/{run}/nodes"


def time_lapse_path(run: str) -> str:
    return f"{RUNS}/{run}/time-lapse"


def inspection_path(run: str, first_step: int, last_step: int) -> str:
    return f"{RUNS}/{run}/looks/{first_step}-{last_step}"


class RunRow(FileModel):
    """A row of the table.

    Attributes:
        id: identifies the run in the dashboard's addresses; the same whenever the folder is served.
        settings: settings of its recipe, by dotted key.
        loss_unit: unit over which its loss is a mean, such as "target token"; None for the task of
            an extension, which is not loaded here.
    """

    id: str
    name: str
    standing: RunStatus
    settings: dict[str, Any]
    loss_unit: str | None = None


class RunsResponse(FileModel):
    """All runs of the folder.

    Attributes:
        problems: folders that cannot be read, or are not followed.
        bytes_read: number of bytes read from the folders for this response.
    """

    folder: str
    problems: list[str]
    bytes_read: Count
    runs: list[RunRow]


class Mark(FileModel):
    """Event at a step.

    Attributes:
        event: "resumed", "resized", "preempted", "repeated", "replay_mismatch" or "skipped".
        words: description in a sentence.
        details: the other fields of its line.
    """

    step: int
    event: str
    words: str
    details: dict[str, Any]


class ValidationRow(FileModel):
    """Scores of a validation."""

    step: int
    scores: Scores


class RunResponse(FileModel):
    """All information about one run except its curves.

    Attributes:
        complete: True if all events and validations are included; otherwise they are still being
            collected.
        samples: samples of the newest validation.
        cleaning: the manifest's cleaning report, by corpus.
        environment: versions, commit and numerics, as far as they are known.
        commands: commands that reproduce the run.
        vitals: contents of vitals.json.
    """

    id: str
    name: str
    standing: RunStatus
    settings: dict[str, Any]
    complete: bool
    card: RunMetadata | None
    checkpoints: list[CheckpointRow]
    events: list[Mark]
    validations: list[ValidationRow]
    samples: list[Sample]
    log: list[LogEntry]
    cleaning: dict[str, Any] | None
    environment: dict[str, Any]
    commands: list[str]
    vitals: dict[str, Any] | None


class CurvesResponse(FileModel):
    """Curves for a picture, see `transloom.observe.curves.curves.Curves`."""

    thinned: bool
    complete: bool
    steps_recorded: Count
    recorded_bytes: Count
    bytes_read: Count
    problem: str | None
    columns: Columns


class GpuColumns(FileModel):
    """Usage of a GPU of a node, by sample."""

    index: int
    utilization_percent: list[float | None]
    memory_used_bytes: list[int | None]
    memory_bytes: list[int | None]


class NodeColumns(FileModel):
    """Usage of a node, by sample."""

    time: list[float]
    cpu_percent: list[float | None]
    memory_used_bytes: list[int | None]
    memory_bytes: list[int | None]
    gpus: list[GpuColumns]


class NodesResponse(FileModel):
    """CPU, memory and GPUs of each node, by its name."""

    thinned: bool
    problem: str | None = None
    nodes: dict[str, NodeColumns]


class ProbeMoment(FileModel):
    """Translation of a probe sentence after a step.

    Attributes:
        target: the pieces that each decoding step read.
        weights: the mean of all heads' cross-attention, in hundredths: a row for each step, a
            column for each source piece.
        ended: True if the model ended the translation.
    """

    step: Count
    output: str
    ended: bool
    source: list[str]
    target: list[str]
    weights: list[list[int]]


class TimeLapseResponse(FileModel):
    """Translations of each probe sentence over the run, in order."""

    problems: list[str]
    sentences: dict[str, list[ProbeMoment]]


class InspectionRequest(FileModel):
    """Request to inspect a range of steps."""

    first_step: Annotated[Count, Field(alias="from", ge=1)]
    last_step: Annotated[Count, Field(alias="to", ge=1)]


class InspectionResponse(FileModel):
    """Inspection of a range of steps, which are trained again.

    Attributes:
        message: its progress, or the reason of a failure.
        look: see `trainer.replay`; None until it is done.
    """

    state: Literal["running", "done", "failed"]
    message: str
    look: dict[str, Any] | None = None


class NewSteps(FileModel):
    """Event of `api/follow`: lines appended to a record since the last event."""

    id: str
    columns: Columns
    validations: list[ValidationRow]
    events: list[Mark]


class NewRuns(FileModel):
    """Event of `api/follow`: rows that have changed, or are new."""

    runs: list[RunRow]


class CurvesChanged(FileModel):
    """Event of `api/follow`, "curves": curves and marks of a run should be requested again.

    Either its index is complete now, or another record has replaced its record.
    """

    id: str


class NewInspection(FileModel):
    """Event of `api/follow`: an inspection has started or ended."""

    id: str
    first_step: Annotated[int, Field(serialization_alias="from")]
    last_step: Annotated[int, Field(serialization_alias="to")]
    state: Literal["running", "done", "failed"]
    message: str


class Problem(FileModel):
    """Response to a refused request."""

    problem: str
