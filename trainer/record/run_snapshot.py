"""Snapshot of a run folder, from which the state of a run is derived for all views.

::

    owners/, run.json, recipe.yaml, log.txt, place.json  ─┐
    checkpoints/                                          ├─▶ RunSnapshot ─▶ RunStatus, metrics,
    metrics.jsonl  its end                                │                  the dashboard's data
    start.json, vitals.json, dataset/manifest.json       ─┘  read on demand

The reader writes nothing, and reads only the end of files that grow with the run. A folder may be
half-written, damaged or forged: an unreadable part is listed in the snapshot's `problems` and is
not an error.
"""

import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from data_pipeline.storage.regular_files import read_regular
from data_pipeline.storage.store import MANIFEST_NAME
from foundation.file_model import JsonLimits, error_summary, parse_object
from foundation.tasks import DEFAULT_TASK, TASKS
from trainer.checkpoints.checkpoint_status import CheckpointRow, checkpoint_rows
from trainer.checkpoints.folder_names import list_checkpoints
from trainer.checkpoints.format import HEADER, CheckpointHeader, read_header
from trainer.checkpoints.lease import ownership
from trainer.errors import TrainerError
from trainer.record.record_end import RecordEnd, read_record_end
from trainer.record.run_settings import settings_of
from trainer.runs.folder import RunFolder
from trainer.runs.log import TAIL_BYTES, LogEntry, last_entries
from trainer.runs.start import Start, read_rank_nodes, read_start
from trainer.runs.vitals import LIMITS as VITALS_LIMITS

T = TypeVar("T")
Signature = tuple[int, int, int]

RECIPE_BYTES = 2_000_000
# Patterns for `recipe.yaml`, which transloom always writes in this form. Parsing a thousand of
# these files as YAML would take a minute.
_MAX_STEPS = re.compile(rb"^trainer:\n(?:  .*\n)*?  max_steps: (\d{1,15})\n", re.MULTILINE)
_LOSS = re.compile(rb"^trainer:\n(?:  .*\n)*?  loss: (\w+)\n", re.MULTILINE)
_TASK = re.compile(rb"^task: (.{1,100})$", re.MULTILINE)
_LABEL_SMOOTHING = re.compile(
    rb"^trainer:\n(?:  .*\n)*?  label_smoothing: ([\d.e+-]{1,30})\n", re.MULTILINE
)

MANIFEST_LIMITS = JsonLimits(bytes=16_000_000, values=1_000_000)
_CLEANING = ("read", "kept", "dropped")


class ProblemCollector(list[str]):
    """List of problems that collects the errors of several reads."""

    def try_read(self, what: Path, read: Callable[[], T], default: T) -> T:
        """Return the result of `read`; if it fails, add a problem of `what`, return `default`."""
        try:
            return read()
        except TrainerError as error:
            self.append(str(error))
        except OSError as error:
            self.append(f"{what} cannot be read: {error.strerror or error}")
        except ValueError as error:
            self.append(f"{what} is damaged: {error_summary(error)}")
        return default


class RunSnapshot:
    """Run folder at one moment; each file is read once.

    The constructor reads the files that a list of runs needs. Other files are read when their
    attribute is first used.

    Attributes:
        problems: descriptions of unreadable parts, in the order of reading.
        ownership: the newest owner and its lease; None without an owner.
        record: the end of the metrics file.
        newest: the path of the newest complete checkpoint, or None.
        header: the header of the newest checkpoint, or None if it cannot be read.
        max_steps: `trainer.max_steps`, or None if neither `recipe.yaml` nor the header has it.
        smooths_labels: whether the training loss includes label smoothing.
        loss_unit: see `RunStatus`.
        card: the content of run.json; None if it cannot be read.
        log: the entries at the end of log.txt.
        rank_nodes: the content of place.json; None if there is no such file.
    """

    def __init__(self, run: RunFolder, record_bytes: int) -> None:
        """Read the files that a list of runs needs.

        Args:
            run: the run folder.
            record_bytes: the number of bytes to read from the end of the metrics file.
        """
        self.run = run
        self._record_bytes = record_bytes
        self.problems = ProblemCollector()
        try_read, folder = self.problems.try_read, run.checkpoints
        # Read the owner first. If the owner has left by then, the reads below find everything that
        # it wrote.
        self.ownership = try_read(run.path / "owners", lambda: ownership(run.path), None)
        self.record = try_read(
            run.metrics, lambda: read_record_end(run.metrics, record_bytes), RecordEnd()
        )
        self._checkpoints = try_read(folder, lambda: list_checkpoints(folder), list[Path]())
        newest = self.newest = self._checkpoints[-1] if self._checkpoints else None
        self.header = try_read(folder, lambda: read_header(newest), None) if newest else None
        unknown: tuple[int | None, bool, str | None] = (None, False, None)
        self.max_steps, self.smooths_labels, self.loss_unit = try_read(
            run.recipe, lambda: _of_recipe(run, self.header), unknown
        )
        self.card = try_read(run.card_path, run.card, None)
        self.log = try_read(run.log, lambda: last_entries(run.log), list[LogEntry]())
        self.rank_nodes = try_read(run.rank_nodes, lambda: read_rank_nodes(run), None)
        if self.record.problem:
            self.problems.append(self.record.problem)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Values in `recipe.yaml` by dotted key; empty if the file cannot be read."""
        recipe = self.run.recipe
        return self.problems.try_read(recipe, lambda: settings_of(recipe), dict[str, Any]())

    @cached_property
    def start(self) -> Start | None:
        """Invocation, code and versions of the last start; None if they cannot be read."""
        return read_start(self.run)

    @property
    def bytes_read(self) -> int:
        """Number of bytes that the constructor and `settings` read, based on the file sizes."""
        run = self.run
        read = [
            (run.metrics, self._record_bytes),
            (run.log, TAIL_BYTES),
            *((file, 2**24) for file in (run.card_path, run.rank_nodes)),
            *((run.recipe, 2**24),) * 2,  # read twice: for `settings` and for `max_steps`
            *([(self.newest / HEADER, 2**24)] if self.newest else []),
        ]
        return sum(min(_size(file), most) for file, most in read)

    @property
    def checkpoints(self) -> list[CheckpointRow]:
        """Complete checkpoints, oldest first, then those that are being written."""
        return self._checkpoint_rows[0]

    @property
    def readable_header(self) -> CheckpointHeader | None:
        """Newest readable header; unlike `header`, it may belong to an older checkpoint."""
        return self._checkpoint_rows[1]

    @cached_property
    def vitals(self) -> dict[str, Any] | None:
        """Content of vitals.json, unvalidated; None if there is no such file."""
        path = self.run.vitals
        return self.problems.try_read(path, lambda: _object(path, VITALS_LIMITS), None)

    @cached_property
    def cleaning(self) -> dict[str, dict[str, Any]] | None:
        """Counts of text that was read, kept and dropped, by corpus; None without a manifest."""
        manifest = self.run.dataset / MANIFEST_NAME
        return self.problems.try_read(self.run.dataset, lambda: _cleaning_counts(manifest), None)

    @cached_property
    def _checkpoint_rows(self) -> tuple[list[CheckpointRow], CheckpointHeader | None]:
        return checkpoint_rows(self.run.checkpoints, self._checkpoints)


def signature_of(path: Path) -> Signature | None:
    """Return the inode, size and modification time (ns) of a file, or None if there is no file.

    A file that was changed or replaced has another signature.
    """
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def signatures_of(run: RunFolder) -> tuple[Signature | None, ...]:
    """Return the signatures of the files that determine a run's status.

    If no process trains the run, its status changes only if a signature changes.
    """
    files = (run.metrics, run.path / "owners", run.checkpoints, run.log, run.recipe, run.card_path)
    return tuple(map(signature_of, files))


def _size(file: Path) -> int:
    signature = signature_of(file)
    return signature[1] if signature else 0


def _of_recipe(
    run: RunFolder, header: CheckpointHeader | None
) -> tuple[int | None, bool, str | None]:
    """Return `max_steps`, `smooths_labels` and `loss_unit`.

    They are read from `recipe.yaml` of the last start or, if that fails, from the newest
    checkpoint. Older recipes do not name their task, which is the default one.
    """
    try:
        recipe = read_regular(run.recipe, RECIPE_BYTES)
    except FileNotFoundError:
        recipe = b""
    task: Any = header.recipe.get("task", DEFAULT_TASK) if header else None
    if recipe:
        named = _TASK.search(recipe)
        task = named[1].decode(errors="replace") if named else DEFAULT_TASK
    unit = _loss_unit(task)
    if found := _MAX_STEPS.search(recipe):
        loss, smoothing = _LOSS.search(recipe), _LABEL_SMOOTHING.search(recipe)
        is_cross_entropy = loss is not None and loss[1] == b"cross_entropy"
        smooths = is_cross_entropy and smoothing is not None and float(smoothing[1]) > 0
        return int(found[1]), smooths, unit
    trainer = value_within(header.recipe, "trainer") if header else None
    steps, smoothing_then = (value_within(trainer, key) for key in ("max_steps", "label_smoothing"))
    smooths = value_within(trainer, "loss") == "cross_entropy" and bool(smoothing_then)
    return steps if isinstance(steps, int) else None, smooths, unit


def _loss_unit(task: Any) -> str | None:
    """Return the loss unit of a task; None for the task of an extension."""
    return TASKS[task].loss_unit if isinstance(task, str) and task in TASKS else None


def value_within(values: Any, *keys: str) -> Any:
    """Return the value at a path of keys in nested dicts, or None if a key is missing."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _cleaning_counts(manifest: Path) -> dict[str, dict[str, Any]] | None:
    values = _object(manifest, MANIFEST_LIMITS)
    corpora = values.get("corpora") if values else None
    if not isinstance(corpora, list):
        return None
    return {
        str(corpus.get("name")): {name: corpus.get(name) for name in _CLEANING}
        for corpus in corpora
        if isinstance(corpus, dict)
    }


def _object(file: Path, limits: JsonLimits) -> dict[str, Any] | None:
    try:
        data = read_regular(file, limits.bytes)
    except FileNotFoundError:
        return None
    return parse_object(data, limits) if data else None  # a power loss may leave the file empty
