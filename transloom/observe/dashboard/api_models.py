"""Responses of the dashboard server to its page; `transloom report` freezes them in a file.

Every response is JSON; the page requests relative paths. The paths below are also the keys of a
frozen report. Unknown values are null. In paths and field names, "look" means the inspection of
some steps.

::

    api/facts                             FactsResponse
    api/runs                              RunsResponse
    api/runs/ID                           RunResponse
    api/runs/ID/curves?points=&from=&to=  transloom.observe.curves.curves.Curves
    api/runs/ID/nodes                     NodesResponse
    api/runs/ID/time-lapse                TimeLapseResponse
    api/runs/ID/looks/A-B                 InspectionResponse, for the steps A to B
    POST api/runs/ID/looks                InspectionResponse to an InspectionRequest
    api/follow                            server-sent events: runs (NewRuns), steps (NewSteps),
                                          curves (CurvesChanged), looks (NewInspection)
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from foundation.file_model import Count, FileModel
from run_store.folder import RunMetadata
from run_store.record.facts import EVENT_KINDS, FACTS, EventKind, Fact
from run_store.record.line_blocks import ScoredStep
from run_store.record.log import LogEntry
from run_store.record.metrics_lines import Sample
from run_store.record.run_status_model import RunStatus

FACTS_PATH = "/api/facts"
RUNS = "/api/runs"
# Maximum number of steps of an inspection: each step is trained again, and the response has all of
# its sentences.
MAX_INSPECTED_STEPS = 100


def run_path(run: str, *part: str) -> str:
    """Return the path of the response about a run, or about a part of it, such as "curves"."""
    return "/".join([RUNS, run, *part])


class FactsResponse(FileModel):
    """Facts of runs and kinds of their events; see `run_store.record.facts`."""

    facts: tuple[Fact, ...] = FACTS
    events: tuple[EventKind, ...] = tuple(EVENT_KINDS.values())


class RunRow(FileModel):
    """Row of the table of runs.

    Attributes:
        id: identifies the run in the dashboard's URLs; a restarted server uses the same id.
        standing: the run's status.
    """

    id: str
    name: str
    standing: RunStatus


class RunsResponse(FileModel):
    """All runs of the folder.

    Attributes:
        problems: messages about folders that cannot be read, and about links that are not followed.
    """

    folder: str
    problems: list[str]
    runs: list[RunRow]


class Mark(FileModel):
    """Event at a step, shown as a mark on the curves.

    Attributes:
        event: the name of its kind, see `run_store.record.facts`.
        words: description in a sentence.
        details: the other fields of the event's line in the record.
    """

    step: int
    event: str
    words: str
    details: dict[str, Any]


class RunResponse(RunRow):
    """All information about one run except its curves.

    Attributes:
        card: the run metadata; None if it cannot be read.
        samples: samples of the newest validation.
        cleaning: the cleaning report of the dataset's manifest, by corpus; None without one.
        environment: versions, commit and numerics, as far as they are known.
        commands: commands that reproduce the run.
    """

    card: RunMetadata | None
    events: list[Mark]
    validations: list[ScoredStep]
    samples: list[Sample]
    log: list[LogEntry]
    cleaning: dict[str, Any] | None
    environment: dict[str, Any]
    commands: list[str]


class GpuColumns(FileModel):
    """Usage of one GPU of a node over time, one value per sample."""

    index: int
    utilization_percent: list[float | None]
    memory_used_bytes: list[int | None]
    memory_bytes: list[int | None]


class NodeColumns(FileModel):
    """Usage of one node over time, one value per sample."""

    time: list[float]
    cpu_percent: list[float | None]
    memory_used_bytes: list[int | None]
    memory_bytes: list[int | None]
    gpus: list[GpuColumns]


class NodesResponse(FileModel):
    """Usage of CPU, memory and GPUs of each node, by the node's name."""

    thinned: bool
    problem: str | None = None
    nodes: dict[str, NodeColumns]


class ProbeMoment(FileModel):
    """Translation of a probe sentence after a step.

    Attributes:
        ended: True if the model itself ended the translation.
        source: the subword pieces of the sentence.
        target: the subword piece that each decoding step read.
        weights: the cross-attention as the mean of all heads, in hundredths: a row for each
            decoding step, a column for each source piece.
    """

    step: Count
    output: str
    ended: bool
    source: list[str]
    target: list[str]
    weights: list[list[int]]


class TimeLapseResponse(FileModel):
    """Translations of each probe sentence, in the order of the steps."""

    problems: list[str]
    sentences: dict[str, list[ProbeMoment]]


class InspectionRequest(FileModel):
    """Request to inspect a range of steps, which includes both ends."""

    first_step: Annotated[Count, Field(alias="from", ge=1)]
    last_step: Annotated[Count, Field(alias="to", ge=1)]


class InspectionResponse(FileModel):
    """State of an inspection, for which a range of steps is trained again.

    Attributes:
        message: the progress, or the reason of a failure.
        look: the report of the replay, see `trainer.replay`; None until it is done.
    """

    state: Literal["running", "done", "failed"]
    message: str
    look: dict[str, Any] | None = None


class NewSteps(FileModel):
    """Event "steps" of `api/follow`: lines appended to a run's record since the last event."""

    id: str
    columns: dict[str, list[int | float | None]]
    validations: list[ScoredStep]
    events: list[Mark]


class NewRuns(FileModel):
    """Event "runs" of `api/follow`: rows of the table that are new or have changed."""

    runs: list[RunRow]


class CurvesChanged(FileModel):
    """Event "curves" of `api/follow`: the page should request the run's curves and marks again.

    The event is sent when another file has replaced the run's record.
    """

    id: str


class NewInspection(FileModel):
    """Event "looks" of `api/follow`: an inspection has started or ended."""

    id: str
    first_step: Annotated[int, Field(serialization_alias="from")]
    last_step: Annotated[int, Field(serialization_alias="to")]
    state: Literal["running", "done", "failed"]
    message: str


class Problem(FileModel):
    """Response to a refused request."""

    problem: str
