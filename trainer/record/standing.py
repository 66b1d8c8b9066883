"""How a run stands, from its folder alone: for `transloom runs`, `status` and `sweep`.

::

    owners/        who trains it, and whether that process lives    ─┐
    log.txt        how the last start ended                          ├─▶ state
    checkpoints/   whether the newest one is the run's end          ─┘
    metrics.jsonl  its end: step, scores, speed, time left
    place.json     where the ranks are

Nothing is written, nobody is asked, and no file is read whole that grows with the run. A folder may
be half-written, damaged or made up: what cannot be read is a problem of the standing, not an error.
"""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from foundation.wording import span
from foundation.written import Written
from trainer.checkpoints.format import CheckpointHeader, step_of
from trainer.checkpoints.lease import LEASE_SECONDS, Ownership
from trainer.errors import RunMismatchError
from trainer.record.record_end import TERA, RecordEnd
from trainer.record.run_snapshot import RunSnapshot, value_within
from trainer.runs.folder import RunFolder
from trainer.runs.log import ENDED, LogEntry
from trainer.scores import BestScore, Scores, keep_best

State = Literal["training", "finished", "stopped", "failed", "abandoned", "damaged"]

# How much of the end of a record is read: some 400 steps for a list of runs, 100,000 for one run.
BYTES_IN_A_LIST = 2**18
BYTES_OF_ONE = 2**26
NOTICES = 5


class Owner(Written):
    """The process that trains the run, or was the last one to do so.

    Attributes:
        silent_seconds: since its last sign of life, by this machine's clock; below 0 if the file
            server's is ahead.
    """

    host: str
    process: int
    since: str
    silent_seconds: float


class RunStatus(Written):
    """The status of a run, as of a snapshot of its folder.

    Attributes:
        reason: why it failed, was abandoned or is damaged.
        step: the last recorded one.
        max_steps: None if `recipe.yaml` is not there.
        training_loss, training_nll: of the last applied step, in nats per target token; the NLL
            is without label smoothing, as a validation's loss is.
        smooths_labels: whether `training_loss` includes label smoothing.
        scores: of the newest validation, which was that of `scores_step`.
        best: the best of each measure among the validations from step `best_since_step` on.
        tokens_per_second: target tokens of all ranks in recent steps, with all that lay between
            these.
        tflops_per_second: 10¹² operations of the model a second, of all ranks in recent steps.
        mfu: model FLOPs utilization in these steps, a share; None where a GPU's peak is not known.
        seconds_left: until `max_steps` at the speed of recent steps, while the run is trained.
        step_age_seconds: while the run is trained: since the last applied step was recorded, or
            since its owner began, if that was later.
        nodes: how many ranks are, or were, on each node.
        problems: what of the folder cannot be read.
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
    notices: list[LogEntry] = Field(default_factory=list)
    problems: list[str] = Field(default_factory=list)


def is_run(path: Path) -> bool:
    """Whether a folder is, or may have been, one of a run."""
    run = RunFolder(path)
    traces = (run.card_path, run.metrics, run.checkpoints, run.path / "owners")
    try:
        return any(trace.exists() for trace in traces)
    except OSError:  # such as a folder that only its owner may enter
        return False


def no_runs_in(folder: Path | str, error: OSError, or_else: str = "") -> RunMismatchError:
    """Return the refusal of a folder whose runs cannot be listed.

    Args:
        or_else: what else a command takes, such as " or a run".
    """
    return RunMismatchError(
        f"{folder} has no runs: {error.strerror}. Name the folder that holds your runs{or_else}; "
        "without a name it is `runs` in the current folder, which the first `transloom train` makes"
    )


def run_paths(
    folder: Path, or_else: str = "", is_listed: Callable[[Path], bool] = is_run
) -> list[Path]:
    """Return the folders of runs in a folder, in the order of their names.

    Args:
        or_else: see `no_runs_in`.

    Raises:
        RunMismatchError: there is no such folder.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise no_runs_in(folder, error, or_else) from error
    return [path for path in paths if is_listed(path)]


def standing_of(path: Path, record_bytes: int = BYTES_OF_ONE) -> RunStatus:
    """Return how the run in a folder stands, as of now.

    Args:
        record_bytes: how much of the end of its record is read.
    """
    return standing_from(RunSnapshot(RunFolder(path), record_bytes))


def standing_from(snapshot: RunSnapshot) -> RunStatus:
    """Summarize a snapshot."""
    path = snapshot.run.path
    state, reason = _state(snapshot)
    record, newest = snapshot.record, snapshot.newest
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
        ranks=snapshot.place.ranks if snapshot.place else record.world_size,
        nodes=snapshot.place.nodes if snapshot.place else {},
        checkpoint=str(newest) if newest else None,
        checkpoint_step=step_of(newest) if newest else None,
        notices=snapshot.log[-NOTICES:],
        problems=list(snapshot.problems),
    )


def _state(snapshot: RunSnapshot) -> tuple[State, str | None]:
    run, held = snapshot.run, snapshot.ownership
    if held and not held.released and _gives_signs(held):
        return "training", None
    if snapshot.card is None:
        return "damaged", "; ".join(snapshot.problems) or f"{run.path} has no {run.card_path.name}"
    if snapshot.header and (end := _end(snapshot.header, snapshot.max_steps)):
        return "finished", end
    if held and not held.released:
        return "abandoned", _why_abandoned(held)
    if held and (failure := _failure(snapshot.log, held)):
        return "failed", failure
    return "stopped", None


def _gives_signs(held: Ownership) -> bool:
    """Whether the owner lives and has renewed its lease in time, however the clocks differ."""
    return not held.is_dead and abs(time.time() - held.renewed) <= LEASE_SECONDS


def _why_abandoned(held: Ownership) -> str:
    who = f"process {held.card.process} on {held.card.host}" if held.card else "its owner"
    if held.is_dead:
        return f"{who} has ended without leaving"
    silent = time.time() - held.renewed
    if silent < 0:
        return f"{who} gave its last sign of life {span(-silent)} ahead of this machine's clock"
    return f"{who} has given no sign of life for {span(silent)}"


def _failure(log: list[LogEntry], held: Ownership) -> str | None:
    """The error with which the last owner's start has ended."""
    for entry in reversed(log):
        if held.card and _moment(entry.time) < _moment(held.card.since):
            return None  # of an earlier start
        if entry.text.startswith(ENDED):
            return entry.text.removeprefix(ENDED)
    return None


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def _end(header: CheckpointHeader, max_steps: int | None) -> str | None:
    """Why there is nothing more to train; None if there is."""
    if header.imported_from:
        return f"its weights were imported from {header.imported_from}"
    if header.validation_due:
        return None
    if max_steps is not None and header.step >= max_steps:
        return f"trained to step {header.step}"
    patience = value_within(header.recipe, "trainer", "early_stopping", "patience")
    without_best = header.early_stopping.validations_since_best
    if isinstance(patience, int) and without_best >= patience:
        return f"stopped early at step {header.step}: no better validation in {without_best}"
    return None


def _step_age(snapshot: RunSnapshot) -> float | None:
    card = snapshot.ownership.card if snapshot.ownership else None
    moments = [snapshot.record.last.time] if snapshot.record.last else []
    if card:
        moments.append(_moment(card.since))
    return round(max(0.0, time.time() - max(moments)), 1) if moments else None


def _newest_scores(record: RecordEnd, header: CheckpointHeader | None) -> tuple[Scores, int | None]:
    """From the record, or from the newest checkpoint if the record's end has no validation."""
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
