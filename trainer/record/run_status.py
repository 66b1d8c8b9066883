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

from foundation.periodic_thread import ExceptionLog
from foundation.wording import counted, span
from trainer.checkpoints.checkpoint_status import modified_seconds
from trainer.checkpoints.folder_names import step_of
from trainer.checkpoints.format import HEADER, CheckpointHeader
from trainer.checkpoints.lease import LEASE_SECONDS, Ownership
from trainer.errors import RunMismatchError
from trainer.record.facts import FACTS
from trainer.record.record_end import RecordEnd
from trainer.record.run_snapshot import RunSnapshot, value_within
from trainer.record.run_status_model import Owner, RunStatus, State
from trainer.runs.folder import RunFolder
from trainer.runs.log import ENDED, LogEntry
from trainer.runs.vitals import Vitals, are_current
from trainer.scores import BestScore, Scores, keep_best

# Bytes to read from the end of a metrics file: about 300 steps for a list of runs, and 100,000 for
# one run.
RECORD_BYTES_IN_LIST = 2**18
RECORD_BYTES_OF_RUN = 2**26
NOTICES = 5


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
    return RunStatus(
        name=path.name or str(path),
        path=str(path),
        state=state,
        reason=reason,
        supervisor_state=vitals.supervisor_state if vitals else None,
        step=max(record.step, step_of(newest) if newest else 0),
        max_steps=snapshot.max_steps,
        loss_unit=snapshot.loss_unit,
        numbers=_numbers(snapshot),
        smooths_labels=snapshot.smooths_labels,
        scores=scores,
        scores_step=scores_step,
        best=_best(record, scores, scores_step),
        best_since_step=record.first_step,
        seconds_left=record.seconds_left(snapshot.max_steps) if state == "training" else None,
        step_age_seconds=_step_age(snapshot) if state == "training" else None,
        owner=_owner(snapshot.ownership),
        ranks=snapshot.rank_nodes.ranks if snapshot.rank_nodes else record.world_size,
        nodes=snapshot.rank_nodes.nodes if snapshot.rank_nodes else {},
        checkpoint=str(newest) if newest else None,
        checkpoint_step=step_of(newest) if newest else None,
        checkpoint_time=modified_seconds(newest / HEADER) if newest else None,
        memory_checkpoint_step=vitals.memory_checkpoint if vitals else None,
        slow_ranks=record.slow_ranks if state == "training" else [],
        corruption=record.corruption.text if record.corruption else None,
        corruption_step=record.corruption.checked_step if record.corruption else None,
        hang=record.hang.text if record.hang else None,
        hang_step=record.hang.hang_step if record.hang else None,
        unfit_nodes=vitals.unfit_nodes if vitals else (),
        vitals=vitals,
        notices=snapshot.log[-NOTICES:],
        problems=list(snapshot.problems),
    )


def _numbers(snapshot: RunSnapshot) -> dict[str, float]:
    """Return the known values of the facts that have a current value and no field of the status."""
    record, header = snapshot.record, snapshot.header
    values = {
        fact.name: record.current(fact)
        for fact in FACTS
        if fact.current and fact.name not in RunStatus.model_fields
    }
    if snapshot.rank_nodes:
        values["world_size"] = snapshot.rank_nodes.ranks
    if header:  # it may be newer than the metrics file
        values["skipped_steps"] = max(values["skipped_steps"], header.skipped_steps)
        values["skipped_spikes"] = max(values["skipped_spikes"], header.skipped_spikes)
    return {name: value for name, value in values.items() if value is not None}


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
