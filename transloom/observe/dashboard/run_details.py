"""The parts of a run's answer that are neither curves nor standing, in the page's words."""

import shlex
from pathlib import Path
from typing import Any

from trainer.record.records import Sample
from trainer.record.run_snapshot import RunSnapshot
from transloom.observe.curves.curve_index import load_index
from transloom.observe.curves.record_blocks import OpenRecord

SAMPLES_END_BYTES = 2**16


def newest_samples(record: Path, cache: Path | None) -> list[Sample]:
    """Return those of the newest validation, near the record's end or where the index says."""
    with OpenRecord(record) as opened:
        end = opened.lines_within(max(0, opened.end - SAMPLES_END_BYTES), opened.end)
        if not end.validations and cache and (index := load_index(opened, cache)):
            at, length = index.validation_at or (0, 0)
            end = opened.lines_within(at, at + length + 1)
        return end.validations[-1].samples if end.validations else []


def environment(snapshot: RunSnapshot) -> dict[str, Any]:
    """Return versions, commit and numerics by the last start and the newest readable header."""
    known: dict[str, Any] = {}
    if start := snapshot.start:
        known |= {"started": start.since, **start.versions}
        for name, code in (("transloom", start.code), ("project", start.invocation.project)):
            if code:
                known[f"commit of {name}"] = code.commit + (", changed" if code.dirty else "")
    if header := snapshot.readable_header:
        known |= {
            "dataset": header.dataset_identity,
            "checkpoint format": header.format,
            **header.numerics,
        }
        if header.parent:
            known["weights from"] = header.parent.model_dump(mode="json")
    return known


def commands(snapshot: RunSnapshot) -> list[str]:
    """Return the command of the last start, and commands that repeat and prove the run."""
    run, start, settings = snapshot.run, snapshot.start, snapshot.settings
    name = shlex.quote(str(run.path))
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
