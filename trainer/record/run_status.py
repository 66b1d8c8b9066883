"""State of a run, from its folder alone: for `transloom runs`, `status` and `sweep`.

::

    owners/        the process that trains the run, and whether it lives  ─┐
    log.txt        the end of the last start                               ├─▶ state
    checkpoints/   whether training ended with the newest one             ─┘
    metrics.jsonl  the last lines: step, scores, speed, remaining time
    place.json     the nodes of the ranks

This module writes nothing, contacts no process, and reads only the end of files that grow with the
run. A folder may be half-written, damaged or forged: an unreadable part is listed in the status's
`problems` and is not an error.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from foundation.file_model import FileModel
from foundation.periodic_thread import ExceptionLog
from foundation.wording import counted, span
from trainer.checkpoints.format import CheckpointHeader, step_of
from trainer.checkpoints.lease import LEASE_SECONDS, Ownership
from trainer.errors import RunMismatchError
from trainer.record.metrics_lines import SlowRankState
from trainer.record.record_end import TERA, RecordEnd
from trainer.record.run_snapshot import RunSnapshot, value_within
from trainer.runs.folder import RunFolder
from trainer.runs.log import ENDED, LogEntry
from trainer.runs.vitals import Vitals, are_current
from trainer.scores import BestScore, Scores, keep_best

State = Literal["training", "finished", "stopped", "failed", "abandoned", "damaged"]

# Bytes to read from the end of a metrics file: about 300 steps for a list of runs, and 100,000 for
# one run.
RECORD_BYTES_IN_LIST = 2**18
RECORD_BYTES_OF_RUN = 2**26
NOTICES = 5


class Owner(FileModel):
    """Process that trains the run, or the last process that trained it.

    Attributes:
        host: the name of its host.
        process: its process id.
        since: the time at which it became the owner, in ISO format.
        silent_seconds: the time since its last heartbeat, by this machine's clock; negative if the
            clock of the file server is ahead.
    """

    host: str
    process: int
    since: str
    silent_seconds: float


class RunStatus(FileModel):
    """Status of a run, from a snapshot of its folder.

    Attributes:
        name: the name of the folder.
        path: the path of the folder.
        state: the state of the run.
        reason: the reason why the run finished, failed, was abandoned or is damaged; None in other
            states.
        step: the last recorded step.
        max_steps: `trainer.max_steps`; None if it is unknown.
        training_loss: the loss of the last applied step, in nats per target token.
        training_nll: the loss of the last applied step without label smoothing, comparable with the
            loss of a validation.
        smooths_labels: whether `training_loss` includes label smoothing.
        scores: the scores of the newest validation, at `scores_step`.
        scores_step: the step of the newest validation.
        best: the best value of each score among the validations since the step `best_since_step`.
        best_since_step: the first step that was read from the metrics file, or None.
        tokens_per_second: target tokens of all ranks in recent steps, including the time between
            steps.
        tflops_per_second: model FLOPs per second of all ranks in recent steps, in units of 10¹².
        mfu: model FLOPs utilization in recent steps, from 0 to 1; None if a GPU's peak is unknown.
        seconds_left: time until `max_steps` at the speed of recent steps; None if the run is not
            being trained.
        step_age_seconds: time since the last applied step was recorded, or since the owner started
            if the owner started later; None if the run is not being trained.
        owner: the owner; None if the run never had an owner, or if the owner's file cannot be read.
        ranks: the number of ranks.
        nodes: the number of ranks on each node at the last start, by the node's name.
        checkpoint: the path of the newest checkpoint.
        checkpoint_step: the step of the newest checkpoint.
        memory_checkpoint_step: the newest step that the memory of the nodes holds; None without
            memory checkpoints, or if the run is not being trained.
        slow_ranks: the ranks that are slower than the others, slowest first; empty if the run is
            not being trained.
        corruption: the last finding of silent data corruption, in a sentence; None for none.
        unfit_nodes: nodes that the run does not use, each with the reason; empty if the run is not
            being trained.
        notices: the last entries of log.txt.
        problems: descriptions of the unreadable parts of the folder.
    """

    name: str
    path: str
    state: State
    reason: str | None = None
    step: int = 0
    max_steps: int | None = None
    training_loss: float | None = None
    training_nll: float | None = None
    smooths_labels: bool = False
    scores: Scores = Field(default_factory=dict)
    scores_step: int | None = None
    best: dict[str, BestScore] = Field(default_factory=dict)
    best_since_step: int | None = None
    tokens_per_second: float | None = None
    tflops_per_second: float | None = None
    mfu: float | None = None
    seconds_left: float | None = None
    step_age_seconds: float | None = None
    owner: Owner | None = None
    ranks: int | None = None
    nodes: dict[str, int] = Field(default_factory=dict)
    checkpoint: str | None = None
    checkpoint_step: int | None = None
    memory_checkpoint_step: int | None = None
    slow_ranks: list[SlowRankState] = Field(default_factory=list)
    corruption: str | None = None
    unfit_nodes: tuple[str, ...] = ()
    notices: list[LogEntry] = Field(default_factory=list)
    problems: list[str] = Field(default_factory=list)


_exceptions = ExceptionLog("the list of runs")


def is_run(path: Path) -> bool:
    """Return whether a folder has at least one of the files that identify a run folder."""
    run = RunFolder(path)
    traces = (run.card_path, run.metrics, run.checkpoints, run.path / "owners")
    try:
        return any(trace.exists() for trace in traces)
    except OSError:  # for example, only the owner of the folder may enter it
        return False


def no_runs_in(folder: Path | str, error: OSError, or_else: str = "") -> RunMismatchError:
    """Return the error for a folder whose runs cannot be listed.

    Args:
        folder: the folder.
        error: the error of listing it.
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


def run_status_of(path: Path, record_bytes: int = RECORD_BYTES_OF_RUN) -> RunStatus:
    """Return the current status of the run in a folder.

    An exception while it is computed becomes the run's problem, so that no run hides others.

    Args:
        path: the folder.
        record_bytes: the number of bytes to read from the end of its metrics file.
    """
    try:
        return run_status_from(RunSnapshot(RunFolder(path), record_bytes))
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


def run_status_from(snapshot: RunSnapshot) -> RunStatus:
    """Return the status of the run in a snapshot."""
    path = snapshot.run.path
    state, reason = _state(snapshot)
    record, newest = snapshot.record, snapshot.newest
    vitals = _current_vitals(snapshot) if state == "training" else None
    scores, scores_step = _newest_scores(record, snapshot.header)
    flops_rate = record.flops_per_second
    return RunStatus(
        name=path.name or str(path),
        path=str(path),
        state=state,
        reason=reason,
        step=max(record.step, step_of(newest) if newest else 0),
        max_steps=snapshot.max_steps,
        training_loss=record.last.loss if record.last else None,
        training_nll=record.last.nll if record.last else None,
        smooths_labels=snapshot.smooths_labels,
        scores=scores,
        scores_step=scores_step,
        best=_best(record, scores, scores_step),
        best_since_step=record.first_step,
        tokens_per_second=record.tokens_per_second,
        tflops_per_second=None if flops_rate is None else flops_rate / TERA,
        mfu=record.mfu,
        seconds_left=record.seconds_left(snapshot.max_steps) if state == "training" else None,
        step_age_seconds=_step_age(snapshot) if state == "training" else None,
        owner=_owner(snapshot.ownership),
        ranks=snapshot.rank_nodes.ranks if snapshot.rank_nodes else record.world_size,
        nodes=snapshot.rank_nodes.nodes if snapshot.rank_nodes else {},
        checkpoint=str(newest) if newest else None,
        checkpoint_step=step_of(newest) if newest else None,
        memory_checkpoint_step=vitals.memory_checkpoint if vitals else None,
        slow_ranks=record.slow_ranks if state == "training" else [],
        corruption=record.corruption.text if record.corruption else None,
        unfit_nodes=vitals.unfit_nodes if vitals else (),
        notices=snapshot.log[-NOTICES:],
        problems=list(snapshot.problems),
    )


def _current_vitals(snapshot: RunSnapshot) -> Vitals | None:
    """Return the vitals of the run's owner, or None if it has not written any."""
    card = snapshot.ownership.card if snapshot.ownership else None
    with suppress(ValueError):  # damaged vitals say nothing
        vitals = Vitals.model_validate(snapshot.vitals)
        if card and are_current(vitals, card.since):
            return vitals
    return None


def _state(snapshot: RunSnapshot) -> tuple[State, str | None]:
    run, held = snapshot.run, snapshot.ownership
    if held and not held.released and _has_live_lease(held):
        return "training", None
    if snapshot.card is None:
        return "damaged", "; ".join(snapshot.problems) or f"{run.path} has no {run.card_path.name}"
    if snapshot.header and (end := end_reason(snapshot.header, snapshot.max_steps)):
        return "finished", end
    if held and not held.released:
        return "abandoned", _abandoned_reason(held)
    if held and (failure := _failure(snapshot.log, held)):
        return "failed", failure
    return "stopped", None


def _has_live_lease(held: Ownership) -> bool:
    """Return whether the owner may live and has renewed its lease in time.

    The time of the renewal may be in the future, because the clock of the file server may be ahead.
    """
    return not held.is_dead and abs(time.time() - held.renewed) <= LEASE_SECONDS


def _abandoned_reason(held: Ownership) -> str:
    who = f"process {held.card.process} on {held.card.host}" if held.card else "its owner"
    if held.is_dead:
        return f"{who} has ended without releasing the run"
    silent = time.time() - held.renewed
    if silent < 0:
        return f"{who} sent its last heartbeat {span(-silent)} ahead of this machine's clock"
    return f"{who} has sent no heartbeat for {span(silent)}"


def _failure(log: list[LogEntry], held: Ownership) -> str | None:
    """Return the error that ended the last start of the run, or None."""
    for entry in reversed(log):
        if held.card and _moment(entry.time) < _moment(held.card.since):
            return None  # this entry and all earlier entries are from earlier starts
        if entry.text.startswith(ENDED):
            return entry.text.removeprefix(ENDED)
    return None


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def end_reason(header: CheckpointHeader, max_steps: int | None) -> str | None:
    """Return the reason why the training is complete, or None if it is not complete."""
    if header.imported_from:
        return f"the weights were imported from {header.imported_from}"
    if header.validation_due:
        return None
    if max_steps is not None and header.step >= max_steps:
        return f"trained to step {header.step}"
    patience = value_within(header.recipe, "trainer", "early_stopping", "patience")
    without_best = header.early_stopping.validations_since_best
    if isinstance(patience, int) and without_best >= patience:
        tried = counted(without_best, "validation")
        return f"stopped early at step {header.step}: no better score in {tried}"
    return None


def _step_age(snapshot: RunSnapshot) -> float | None:
    card = snapshot.ownership.card if snapshot.ownership else None
    moments = [snapshot.record.last.time] if snapshot.record.last else []
    if card:
        moments.append(_moment(card.since))
    return round(max(0.0, time.time() - max(moments)), 1) if moments else None


def _newest_scores(record: RecordEnd, header: CheckpointHeader | None) -> tuple[Scores, int | None]:
    """Return the newest scores and their step, from the metrics file or the newest checkpoint."""
    if record.validations:
        last = record.validations[-1]
        return last.scores, last.step
    if header and header.scores:
        return header.scores, header.step
    return {}, None


def _best(record: RecordEnd, scores: Scores, step: int | None) -> dict[str, BestScore]:
    best: dict[str, BestScore] = {}
    for line in record.validations:
        keep_best(best, line.scores, line.step)
    if not record.validations and step is not None:
        keep_best(best, scores, step)
    return best


def _owner(held: Ownership | None) -> Owner | None:
    if held is None or held.card is None:
        return None
    return Owner(
        host=held.card.host,
        process=held.card.process,
        since=held.card.since,
        silent_seconds=round(time.time() - held.renewed, 1),
    )
