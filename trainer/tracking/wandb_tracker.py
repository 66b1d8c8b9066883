"""View of metrics.jsonl in Weights & Biases; the only module that imports wandb.

A thread follows the metrics file and logs its lines to W&B, so training neither waits for W&B nor
fails if W&B fails.

W&B's history has one row per step. A row has the values of the step's line, and of the validation
and the events between this step and the next one. The row is logged under its step number when it
is complete, so the step numbers increase strictly. If W&B already has the row of an event's step,
for example with `resumed`, the event becomes part of the next row.

A kill loses the rows that W&B has not written yet, and may tear W&B's file. The next start creates
another W&B folder. So each start repairs the existing files and continues after the last step in
them; together, the folders hold one history. If W&B fails during the run (its process is killed, or
its disk is full), the missing rows are logged when the run ends, or at the next start.
"""

import json
import logging
import os
import re
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import wandb
from wandb.proto import wandb_internal_pb2

from foundation.untrusted_text import visible, visible_in
from run_store.errors import RunError
from run_store.folder import RunFolder
from run_store.record.metrics_file import follow, read_backwards
from run_store.record.metrics_lines import Event, Line, StepLine, ValidationLine
from run_store.record.time_lapse import TABLE_COLUMNS, is_probed, path_of, read_time_lapse, table_of
from trainer.recipe import TrainingRecipe
from trainer.tracking.leveldb_log import BLOCK_BYTES, whole_records

# Time between W&B's writes to its file. A kill loses at most the rows since the last write.
FLUSH_SECONDS = 2.0
# Maximum time for which the end of a run waits for W&B.
FINISH_SECONDS = 60.0
# Maximum time in which W&B's server must answer at the start of a run.
START_SECONDS = 10.0
_REFUSED = re.compile(r"\b40[13]\b")  # HTTP status of a wrong or missing key
_TAIL_BYTES = 2**16
SAMPLES = "validation/samples"
TIME_LAPSE = "time-lapse"


class WandbTracker:
    """View of a run's metrics file in W&B.

    Raises:
        RunError: W&B does not start, and the run has no W&B files of an earlier start.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        run: RunFolder,
        mode: str,
        notice: Callable[[str], None] = lambda text: None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Start W&B, and a thread that logs the metrics file to it.

        Args:
            recipe: the recipe of the run.
            run: the run folder.
            mode: W&B's mode, such as offline or online.
            notice: receives a message if W&B fails; called from another thread.
            facts: entries of W&B's config in addition to the recipe; see
                `trainer.tracking.wandb_config`.
        """
        logging.getLogger("wandb").setLevel(logging.ERROR)
        self._recipe = recipe
        self._facts = dict(facts or {})
        self._folder = run
        self._files = run.path / "wandb"
        self._notice = notice
        self._mode = mode
        self._news = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._run: wandb.Run | None = None
        if not _wandb_files(self._files):
            try:
                self._run = self._begin_or_stay_offline()
            except Exception as error:
                raise RunError(
                    f"W&B does not start in mode {self._mode!r}: {error}. Set "
                    "tracking.wandb=offline, or run `wandb login` to use the mode online"
                ) from error
        self._thread.start()

    def update(self) -> None:
        """Notify the thread of new lines in the metrics file."""
        self._news.set()

    def finish(self) -> None:
        """Log the rest of the metrics file, which must be complete, and stop the thread."""
        self._ending.set()
        self._news.set()
        self._thread.join(FINISH_SECONDS)
        if self._thread.is_alive():
            self._notice(
                f"W&B did not finish within {FINISH_SECONDS:.0f} s; the next start logs the "
                "remaining steps"
            )

    def _work(self) -> None:
        problem = self._try_to_log_record()
        if problem and not self._ending.is_set():
            self._notice(
                f"W&B has failed ({problem}). The metrics file is still written; the remaining "
                "steps are logged to W&B at the end of the run, or at the next start"
            )
        self._ending.wait()
        if self._lacks_rows():
            problem = self._try_to_log_record() or problem
        if self._lacks_rows():
            reason = f" ({problem})" if problem else ""
            self._notice(
                f"W&B's files end at step {last_logged_step(self._files)}{reason}. If their disk "
                "is full, free some space. The next start logs the remaining steps"
            )

    def _lacks_rows(self) -> bool:
        backwards = read_backwards(self._folder.metrics)
        last_recorded_step = next(
            (line.step for line in backwards if isinstance(line, StepLine)), 0
        )
        return last_logged_step(self._files) < last_recorded_step

    def _try_to_log_record(self) -> str | None:
        """Log the rows that W&B lacks; return a description of the problem, or None."""
        try:
            self._log_record()
            return None
        except OSError as error:
            return error.strerror or str(error)
        except Exception as error:
            return str(error) or type(error).__name__  # some of W&B's errors have no message
        finally:
            # Wait until W&B's process has written everything, or has died.
            with suppress(Exception, SystemExit):
                wandb.teardown()

    def _log_record(self) -> None:
        """Log the rows that W&B's files do not have yet, until the metrics file is complete."""
        former = [] if self._run else _wandb_files(self._files)
        run, self._run = self._run or self._begin(), None
        shown = max((repair_file(file) for file in former), default=LastLoggedRow())
        if self._mode == "online" and run.starting_step - 1 != shown.step:
            # The server's rows differ from those in the files: continue after the server's last
            # step.
            shown = LastLoggedRow(run.starting_step - 1, None)
        for step, row in rows(follow(self._folder.metrics, shown.step, self._wait), shown):
            shown_row = _with_table(row, run, step) | self._time_lapse(run, step)
            run.log(shown_row, step=step, commit=True)
        run.finish()

    def _time_lapse(self, run: wandb.Run, step: int) -> dict[str, Any]:
        """Return a table of all outputs of the probe sentences so far.

        The result is empty if no outputs were saved at this step. The metrics of a step are logged
        only when the next step begins; by then, the step's outputs have been saved.
        """
        folder = self._folder.time_lapse
        if not (is_probed(step) and path_of(folder, step).exists()):
            return {}
        with suppress(OSError):
            rows_of_all = table_of(read_time_lapse(folder, step).moments)
            return {TIME_LAPSE: _table(run, TIME_LAPSE, step, TABLE_COLUMNS, rows_of_all)}
        return {}

    def _begin_or_stay_offline(self) -> wandb.Run:
        """Start W&B; start it offline if its server cannot be reached in `START_SECONDS`.

        A server that refuses the key is an error, because the next start would be refused, too.
        """
        try:
            return self._begin()
        except wandb.errors.CommError as error:
            if self._mode != "online" or _REFUSED.search(str(error)):
                raise
            reason = visible(str(error).partition("\n")[0])
        with suppress(Exception, SystemExit):
            wandb.teardown()  # W&B's process still tries to reach the server
        self._mode = "offline"
        run = self._begin()
        self._notice(
            f"W&B's server cannot be reached ({reason}), so this start is recorded offline. Send "
            f"it later: wandb sync {shlex.quote(str(Path(run.dir).parent))}"
        )
        return run

    def _begin(self) -> wandb.Run:
        # At its end, `wandb.init` would import W&B's launcher to check whether the launcher has
        # started this process (`Run._on_ready`, read in 0.31.0). The import takes a second.
        with mock.patch.object(wandb.Run, "_detect_and_apply_job_inputs"):
            try:
                return self._init()
            finally:
                _keep_handlers_silent()

    def _init(self) -> wandb.Run:
        tracking = self._recipe.tracking
        # None leaves an option to W&B's environment variables.
        return wandb.init(
            mode=self._mode,  # type: ignore[arg-type]
            project=tracking.project,
            group=None if tracking.group is None else visible(tracking.group),
            tags=[visible(tag) for tag in tracking.tags] or None,
            notes=None if tracking.notes is None else visible(tracking.notes),
            id=self._folder.card().id,
            name=visible(self._folder.path.name),
            dir=str(self._folder.path),
            resume="allow",
            config=visible_in(self._recipe.model_dump(mode="json") | self._facts),
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=START_SECONDS,
                # Otherwise, W&B would store the URL of the folder's git remote, including a token
                # in place of the user name (0.31.0).
                disable_git=True,
                x_transaction_log_flush_interval=FLUSH_SECONDS,
            ),
        )

    def _wait(self) -> bool:
        """Wait for new lines in the metrics file; return whether the file is complete."""
        if not self._ending.is_set():
            self._news.wait()
            self._news.clear()
        return self._ending.is_set()


def _keep_handlers_silent() -> None:
    """Make W&B's log handlers drop lines on a full disk, without a traceback for each line."""
    for handler in logging.getLogger("wandb").handlers:
        handler.handleError = lambda record: None  # type: ignore[method-assign]


class LastLoggedRow(NamedTuple):
    """Last row that W&B has.

    Attributes:
        step: the step of the row; 0 if there is no row.
        keys: the names of the row's values. None if the names are unknown; the row is then
            considered complete.
    """

    step: int = 0
    keys: frozenset[str] | None = frozenset()


def rows(lines: Iterable[Line], shown: LastLoggedRow) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows that follow the row `shown`, each with its step."""
    step = 0
    row: dict[str, Any] = {}
    for line in lines:
        values = _values(line)
        # If W&B has the scores of a validation, the validation is considered logged, even without
        # its samples, because earlier versions logged no samples.
        told = values.keys() - {SAMPLES}
        known = isinstance(line, StepLine) or shown.keys is None or told <= shown.keys
        if line.step <= shown.step and known:
            continue
        if isinstance(line, StepLine):
            if step:
                yield step, row
                row = {}
            step = line.step
        row |= values
    if step:
        yield step, row


def _with_table(row: dict[str, Any], run: wandb.Run, step: int) -> dict[str, Any]:
    """Return a row with its samples, if any, converted to a table."""
    if SAMPLES not in row:
        return row
    columns = ["source", "reference", "translation"]
    data = [[getattr(sample, name) for name in columns] for sample in row[SAMPLES]]
    return row | {SAMPLES: _table(run, SAMPLES, step, columns, data)}


def _table(
    run: wandb.Run, key: str, step: int, columns: Sequence[str], data: list[list[Any]]
) -> wandb.Table:
    """Return a table that is bound to the run, so that its file is only in the run's folder.

    Otherwise `Run.log` would also create an artifact from the table. The files of artifacts stay in
    the user's home directory until a sync (`_log_table_artifact`, read in 0.31.0).
    """
    table = wandb.Table(columns=list(columns), data=[visible_in(line) for line in data])
    table.bind_to_run(run, key, step)
    return table


def last_logged_step(folder: Path) -> int:
    """Return the last step in the W&B files of a run's `wandb` folder, or 0."""
    return max((_end(file)[0].step for file in _wandb_files(folder)), default=0)


def repair_file(file: Path) -> LastLoggedRow:
    """Repair one .wandb file for `wandb sync`, and return the last row in it.

    `wandb sync` fails for a run if its file has a torn end. It fails for all runs if one file has
    no data of its run yet. So this function cuts a torn end off, and removes a file without rows.
    """
    shown, whole_bytes = _end(file)
    if shown.step == 0:
        file.unlink()
    elif whole_bytes < file.stat().st_size:
        os.truncate(file, whole_bytes)
    return shown


def _end(file: Path) -> tuple[LastLoggedRow, int]:
    """Return the last row of one .wandb file, and the position after its last complete record.

    The file is read from its end, because it may have a million rows.
    """
    size = file.stat().st_size
    tail = _TAIL_BYTES
    while True:
        start = max(0, size - tail) // BLOCK_BYTES * BLOCK_BYTES
        shown, whole_bytes = LastLoggedRow(), 0
        for end, content in whole_records(file, start):
            whole_bytes = end
            record = wandb_internal_pb2.Record.FromString(content)
            if record.HasField("history"):
                keys = (item.key or "/".join(item.nested_key) for item in record.history.item)
                shown = LastLoggedRow(record.history.step.num, frozenset(keys))
        if shown.step or not start:
            return shown, whole_bytes
        tail *= 8


def _wandb_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*run-*/run-*.wandb"))


def _values(line: Line) -> dict[str, Any]:
    """Return a line's values in a row, by keys such as `event/resumed/from_step`."""
    if isinstance(line, Event):
        name = f"event/{line.event}"
        values: dict[str, Any] = {name: 1}
        said = line.details
    else:
        name = line.kind
        values = {}
        said = line.model_dump(exclude={"version", "step", "kind", "samples", "scores"})
    if isinstance(line, ValidationLine):
        for measure, score in line.scores.items():
            said |= {measure: score.value, f"{measure}_decoding": score.decoding}
        if line.samples:
            values[SAMPLES] = line.samples
    numbers = said.pop("observed", None) or {}
    values |= {f"{name}/observed/{key}": number for key, number in numbers.items()}
    for key, value in said.items():
        if value not in (None, [], {}):
            plain = isinstance(value, int | float | str)
            values[f"{name}/{key}"] = visible_in(value) if plain else json.dumps(visible_in(value))
    return values
