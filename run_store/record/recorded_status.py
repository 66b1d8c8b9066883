"""Status of a run from its folder: from the record, the checkpoints and the log.

::

    checkpoints/   the newest header, and whether training ended with it   ─┐
    log.txt        the end of the last start                                ├─▶ RunStatus
    metrics.jsonl  the last lines: step, scores, speed, remaining time     ─┘

The run's owner adds facts that only the owner knows, and writes the status to `status.json`, which
views read. This module reads only the end of files that grow with the run. A folder may be
half-written, damaged or forged: an unreadable part is listed in the status's `problems` and is not
an error.
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_pipeline.storage.regular_files import sync_to_disk, write_durably
from foundation.file_model import MAX_COUNT
from foundation.tasks import DEFAULT_TASK, TASKS
from foundation.wording import counted
from run_store.checkpoints.checkpoint_status import checkpoint_rows, modified_seconds
from run_store.checkpoints.folder_names import list_checkpoints, step_of
from run_store.checkpoints.format import HEADER, CheckpointHeader, read_header
from run_store.errors import RunInUseError
from run_store.folder import RunFolder
from run_store.lease import OwnerMetadata, ownership
from run_store.record.facts import FACTS
from run_store.record.log import ENDED, LogEntry, last_entries
from run_store.record.record_end import RecordEnd, read_record_end
from run_store.record.run_settings import flat_settings, settings_of
from run_store.record.run_status import (
    NOT_TRAINED,
    ProblemCollector,
    has_live_lease,
    read_status,
    seconds_of,
)
from run_store.record.run_status_model import Owner, RunStatus, State
from run_store.scores import BestScore, Scores, keep_best

# Bytes to read from the end of a metrics file: about 300 steps, or 100,000 to find best scores.
LAST_BYTES = 2**18
MANY_BYTES = 2**26
NOTICES = 5
# Fields of the last status that the record does not have.
LASTING = ("start", "job_owner", "priority", "ranks", "nodes", "rank_hours", "cost", "vitals")
# Fields that depend on the reader of the file.
NOT_IN_FILE = {"name", "path", "checkpoint", "step_age_seconds"}


def recorded_status(
    run: RunFolder, former: RunStatus, owner: OwnerMetadata | None, record_bytes: int
) -> RunStatus:
    """Return the status of a run, as if no process trained it.

    Args:
        run: the run's folder.
        former: an earlier status, for settings and facts that the folder lacks, and for findings in
            lines before the range that is read.
        owner: the run's last owner, or None.
        record_bytes: the number of bytes to read from the end of the metrics file.
    """
    problems = ProblemCollector()
    try_read, folder = problems.try_read, run.checkpoints
    record = try_read(run.metrics, lambda: read_record_end(run.metrics, record_bytes), RecordEnd())
    if record.problem:
        problems.append(record.problem)
    paths = try_read(folder, lambda: list_checkpoints(folder), list[Path]())
    newest = paths[-1] if paths else None
    header = try_read(folder, lambda: read_header(newest), None) if newest else None
    rows, readable = checkpoint_rows(folder, paths)
    card = try_read(run.card_path, run.card, None)
    log = try_read(run.log, lambda: last_entries(run.log), list[LogEntry]())
    settings = former.settings or _settings(run, header, problems)
    max_steps = _max_steps(settings)
    state, reason = _end(header, max_steps, _failure(log, owner))
    if card is None:
        state, reason = "damaged", "; ".join(problems)
    scores, scores_step = _newest_scores(record, header, former)
    return former.model_copy(
        update={
            "time": time.time(),
            "state": state,
            "reason": reason,
            "supervisor_state": None,
            "step": max(record.step, step_of(newest) if newest else 0),
            "max_steps": max_steps,
            "loss_unit": _loss_unit(settings.get("task", DEFAULT_TASK)),
            "numbers": _numbers(record, header, former),
            "smooths_labels": _smooths_labels(settings),
            "scores": scores,
            "scores_step": scores_step,
            "best": _best(record, former, scores, scores_step),
            "best_since_step": former.best_since_step or record.first_step,
            "seconds_left": record.seconds_left(max_steps),
            "step_time": record.last.time if record.last else None,
            "owner": Owner(**dict(owner)) if owner else None,
            "settings": settings,
            "ranks": former.ranks or record.world_size,
            "numerics": _numerics(readable) if readable else {},
            "checkpoints": tuple(rows),
            "checkpoint_step": step_of(newest) if newest else None,
            "checkpoint_time": modified_seconds(newest / HEADER) if newest else None,
            "slow_ranks": record.slow_ranks,
            **_findings(record),
            "notices": log[-NOTICES:],
            "problems": list(problems),
        }
    )


def write_recorded_status(run: RunFolder, owner: OwnerMetadata | None = None) -> None:
    """Write `status.json` of a run that no process trains, from its record.

    Args:
        owner: this process, if it owns the run. If None, the file names the last owner.

    Raises:
        RunInUseError: another process owns the run, and writes the file itself.
        OSError: the file cannot be written.
    """
    if owner is None and (held := ownership(run.path)):
        if has_live_lease(held):
            raise RunInUseError(f"{run.path} is in use: its owner writes {run.status.name}")
        owner = held.card
    status = recorded_status(run, lasting_status(run), owner, MANY_BYTES)
    write_status(run, status, run.path, is_final=True)


def lasting_status(run: RunFolder) -> RunStatus:
    """Return the last status of a run, reduced to the fields that its record lacks.

    If the last status cannot be read, the fields have their defaults.
    """
    former = RunStatus()
    with suppress(OSError, ValueError):
        former = read_status(run) or former
    return RunStatus(**{name: getattr(former, name) for name in LASTING})


def write_status(run: RunFolder, status: RunStatus, work: Path, *, is_final: bool) -> None:
    """Replace `status.json` atomically.

    Args:
        work: the folder of the unfinished file. A new owner of the run removes this folder, so that
            a former owner cannot replace the new owner's file.
        is_final: whether no process trains the run now, and the file must survive a power loss.

    Raises:
        OSError: the file cannot be written.
    """
    if is_final:
        status = status.model_copy(update=NOT_TRAINED)
    unfinished = work / f"{run.status.name}.unfinished"
    text = status.model_dump_json(exclude=NOT_IN_FILE) + "\n"
    if is_final:
        write_durably(unfinished, text.encode())
    else:
        unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(run.status)
    if is_final:
        sync_to_disk(run.path)


def _settings(
    run: RunFolder, header: CheckpointHeader | None, problems: ProblemCollector
) -> dict[str, Any]:
    """Return the settings of the last start's recipe or, without one, of the newest checkpoint."""
    found = problems.try_read(run.recipe, lambda: settings_of(run.recipe), dict[str, Any]())
    return found or (flat_settings(header.recipe) if header else {})


def _max_steps(settings: dict[str, Any]) -> int | None:
    steps = settings.get("trainer.max_steps")
    return steps if isinstance(steps, int) and 0 <= steps <= MAX_COUNT else None


def _smooths_labels(settings: dict[str, Any]) -> bool:
    smoothing = settings.get("trainer.label_smoothing")
    is_cross_entropy = settings.get("trainer.loss") == "cross_entropy"
    return is_cross_entropy and isinstance(smoothing, (int, float)) and smoothing > 0


def _loss_unit(task: Any) -> str | None:
    """Return the loss unit of a task; None for the task of an extension."""
    return TASKS[task].loss_unit if isinstance(task, str) and task in TASKS else None


def _end(
    header: CheckpointHeader | None, max_steps: int | None, failure: str | None
) -> tuple[State, str | None]:
    if header and (end := end_reason(header, max_steps)):
        return "finished", end
    return ("failed", failure) if failure else ("stopped", None)


def end_reason(header: CheckpointHeader, max_steps: int | None) -> str | None:
    """Return the reason why the training is complete, or None if it is not complete."""
    if header.imported_from:
        return f"the weights were imported from {header.imported_from}"
    if header.validation_due:
        return None
    if max_steps is not None and header.step >= max_steps:
        return f"trained to step {header.step}"
    patience = flat_settings(header.recipe).get("trainer.early_stopping.patience")
    without_best = header.early_stopping.validations_since_best
    if isinstance(patience, int) and without_best >= patience:
        tried = counted(without_best, "validation")
        return f"stopped early at step {header.step}: no better score in {tried}"
    return None


def _failure(log: list[LogEntry], owner: OwnerMetadata | None) -> str | None:
    """Return the error that ended the last start of the run, or None."""
    for entry in reversed(log):
        if owner is None or seconds_of(entry.time) < seconds_of(owner.since):
            return None  # this entry and all earlier entries are from earlier starts
        if entry.text.startswith(ENDED):
            return entry.text.removeprefix(ENDED)
    return None


def _numbers(
    record: RecordEnd, header: CheckpointHeader | None, former: RunStatus
) -> dict[str, float]:
    """Return known current values, by name, of the facts that are not fields of the status."""
    values = {
        fact.name: record.current(fact)
        for fact in FACTS
        if fact.current and fact.name not in RunStatus.model_fields
    }
    if former.nodes:
        values["world_size"] = former.ranks
    for total in ("skipped_steps", "skipped_spikes"):
        known = [values[total], former.numbers.get(total, 0)]
        if header:  # the header may be newer than the metrics file
            known.append(getattr(header, total))
        values[total] = max(known)
    return {name: value for name, value in values.items() if value is not None}


def _findings(record: RecordEnd) -> dict[str, Any]:
    """Return the fields about the last corruption and the last hang."""
    found: dict[str, Any] = {}
    if record.corruption:
        found["corruption"] = record.corruption.text
        found["corruption_step"] = record.corruption.checked_step
    if record.hang:
        found |= {"hang": record.hang.text, "hang_step": record.hang.hang_step}
    return found


def _newest_scores(
    record: RecordEnd, header: CheckpointHeader | None, former: RunStatus
) -> tuple[Scores, int | None]:
    """Return the newest scores and their step, from the record or else from the checkpoint."""
    if record.validations:
        last = record.validations[-1]
        return last.scores, last.step
    if former.scores_step is None and header and header.scores:
        return header.scores, header.step
    return former.scores, former.scores_step


def _best(
    record: RecordEnd, former: RunStatus, scores: Scores, step: int | None
) -> dict[str, BestScore]:
    best = dict(former.best)
    for line in record.validations:
        keep_best(best, line.scores, line.step)
    if not best and step is not None:
        keep_best(best, scores, step)
    return best


def _numerics(header: CheckpointHeader) -> dict[str, Any]:
    known = {
        "dataset": header.dataset_identity,
        "checkpoint format": header.format,
        **header.numerics,
    }
    if header.parent:
        known["weights from"] = header.parent.model_dump(mode="json")
    return known
