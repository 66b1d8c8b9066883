"""The parts of a run's answer that are neither curves nor standing: each from a file or folder.

Every file is read within a bound. What cannot be read raises an OSError or a ValueError.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipeline.storage.regular_files import read_regular
from data_pipeline.storage.store import MANIFEST_NAME
from foundation.strict_json import JsonLimits, parse_object
from trainer.checkpoints.format import (
    HEADER,
    CheckpointHeader,
    folder_name,
    list_checkpoints,
    read_header,
    step_of,
)
from trainer.errors import CheckpointError, CheckpointFormatError
from trainer.record.records import Sample
from trainer.runs.folder import RunFolder
from trainer.runs.start import read_start
from trainer.runs.vitals import LIMITS
from transloom.observe.curves.curve_index import load_index
from transloom.observe.curves.record_blocks import OpenRecord
from transloom.observe.dashboard.answers import CheckpointRow

# Headers of the newest checkpoints are read; of older ones the step and the time are shown.
HEADERS_READ = 10
SAMPLES_END_BYTES = 2**16
MANIFEST_LIMITS = JsonLimits(bytes=16_000_000, values=1_000_000)


def checkpoint_rows(run: RunFolder) -> tuple[list[CheckpointRow], CheckpointHeader | None]:
    """The checkpoints of a run, oldest first, and the newest header that can be read."""
    paths = list_checkpoints(run.checkpoints) if run.checkpoints.is_dir() else []
    newest: CheckpointHeader | None = None
    rows = []
    for at, path in enumerate(paths):
        row = CheckpointRow(step=step_of(path), state="complete", time=_changed(path / HEADER))
        if at >= len(paths) - HEADERS_READ:
            try:
                header = newest = read_header(path)
                written = sum(file.bytes for file in header.files)
                row = row.model_copy(update={"bytes": written, "scores": header.scores})
            except CheckpointFormatError:
                pass  # whole, and of another version
            except CheckpointError:
                row = row.model_copy(update={"state": "damaged"})
        rows.append(row)
    return rows + _being_written(run, {row.step for row in rows}), newest


def _being_written(run: RunFolder, complete: set[int]) -> list[CheckpointRow]:
    """Checkpoints of which ranks have begun to write their parts, see `commit.partial_folder`."""
    found: dict[int, float | None] = {}
    for partial in sorted(run.checkpoints.glob(f".work-*/{folder_name(0)[:5]}*")):
        step = partial.name.split("-")[1]
        if step.isdecimal() and int(step) not in complete:
            found[int(step)] = _changed(partial)
    return [CheckpointRow(step=at, state="writing", time=time) for at, time in found.items()]


def newest_samples(record: Path, cache: Path | None) -> list[Sample]:
    """Of the newest validation, near the record's end or where the index says."""
    with OpenRecord(record) as opened:
        end = opened.lines_within(max(0, opened.end - SAMPLES_END_BYTES), opened.end)
        if not end.validations and cache and (index := load_index(opened, cache)):
            at, length = index.validation_at or (0, 0)
            end = opened.lines_within(at, at + length + 1)
        return end.validations[-1].samples if end.validations else []


def cleaning(run: RunFolder) -> dict[str, Any] | None:
    """What was read, kept and dropped of each corpus, as the manifest of the dataset says."""
    values = _object(run.dataset / MANIFEST_NAME, MANIFEST_LIMITS)
    corpora = values.get("corpora") if values else None
    if not isinstance(corpora, list):
        return None
    kept = ("read", "kept", "dropped")
    return {
        str(corpus.get("name")): {name: corpus.get(name) for name in kept}
        for corpus in corpora
        if isinstance(corpus, dict)
    }


def vitals(run: RunFolder) -> dict[str, Any] | None:
    """What ranks and data workers are doing, as it stands in the file."""
    return _object(run.vitals, LIMITS)


def environment(run: RunFolder, header: CheckpointHeader | None) -> dict[str, Any]:
    """What the run's last start and its newest checkpoint tell of where steps were computed."""
    known: dict[str, Any] = {}
    if start := read_start(run):
        known |= {"started": start.since, **start.versions}
        for name, code in (("transloom", start.code), ("project", start.invocation.project)):
            if code:
                known[f"commit of {name}"] = code.commit + (", changed" if code.dirty else "")
    if header:
        known |= {
            "dataset": header.dataset_identity,
            "checkpoint format": header.format,
            **header.numerics,
        }
        if header.parent:
            known["weights from"] = header.parent.model_dump(mode="json")
    return known


def commands(run: RunFolder, settings: Mapping[str, Any]) -> list[str]:
    """Return what was typed for the run's last start, and commands that repeat and prove the run.

    Args:
        settings: of the run's recipe, by dotted key; empty if it cannot be read.
    """
    start, name = read_start(run), shlex.quote(str(run.path))
    typed = start.invocation.command if start else None
    # `train` trusts the recipe that it is given, and this one may be anybody's.
    harmless = settings and settings.get("extension_folder") is None
    no_folder = "" if harmless else " extension_folder=null"
    return [
        *([typed] if typed else []),
        f"transloom train {shlex.quote(str(run.recipe))}{no_folder} --run {name}-again",
        f"transloom compare {name} {name}-again",
        f"transloom replay {name} --steps 1:20",
    ]


def _object(file: Path, limits: JsonLimits) -> dict[str, Any] | None:
    try:
        data = read_regular(file, limits.bytes)
    except FileNotFoundError:
        return None
    return parse_object(data, limits) if data else None  # a loss of power has emptied it


def _changed(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:
        return None
