"""Build the responses about runs from their folders, for the server and for frozen reports.

No state is kept between two calls, and each file is read up to a limit. If a part of a folder
cannot be read, the response describes the problem and contains the other parts.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster.launchers.ray_job.job_summary import status_with_job
from data_pipeline.storage.regular_files import read_regular
from data_pipeline.storage.store import MANIFEST_NAME
from foundation.file_model import FileModel, JsonLimits, parse_object
from foundation.shown_urls import with_urls
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder
from run_store.record.event_text import event_text
from run_store.record.facts import kind_of
from run_store.record.line_blocks import scored_steps
from run_store.record.log import LogEntry, last_entries
from run_store.record.metrics_lines import Event, SkippedLine
from run_store.record.node_usage import NodeLine, read_usage
from run_store.record.run_status import ProblemCollector
from run_store.record.run_status_model import RunStatus
from run_store.record.time_lapse import mean_cross_attention, read_time_lapse
from transloom.observe.curves.curves import read_curves
from transloom.observe.dashboard.api_models import (
    FACTS_PATH,
    RUNS,
    FactsResponse,
    GpuColumns,
    Mark,
    NodeColumns,
    NodesResponse,
    ProbeMoment,
    RunResponse,
    RunRow,
    RunsResponse,
    TimeLapseResponse,
    run_path,
)
from transloom.observe.dashboard.runs_folder import run_id

LOG_ENTRIES = 200
MANIFEST_LIMITS = JsonLimits(bytes=16_000_000, values=1_000_000)
_CLEANING = ("read", "kept", "dropped")
_OF_A_NODE = ("time", "cpu_percent", "memory_used_bytes", "memory_bytes")
_OF_A_GPU = ("utilization_percent", "memory_used_bytes", "memory_bytes")


def row_of(path: Path) -> RunRow:
    """Return the row of a run in the table."""
    status = status_with_job(path)
    return RunRow(id=run_id(status.name), name=status.name, standing=status)


def run_response(path: Path) -> RunResponse:
    """Return all information about a run except its curves."""
    run, row, problems = RunFolder(path), row_of(path), ProblemCollector()
    curves = read_curves(run, 1)
    validations = curves.lines.validations
    if curves.problem:
        problems.append(curves.problem)
    card = problems.try_read(run.card_path, run.card, None)
    log = problems.try_read(run.log, lambda: last_entries(run.log), list[LogEntry]())
    cleaning = problems.try_read(run.dataset, lambda: _cleaning_counts(run), None)
    others = [text for text in row.standing.problems if text not in problems]
    standing = row.standing.model_copy(update={"problems": [*others, *problems]})
    return RunResponse(
        **dict(row) | {"standing": standing},
        card=card,
        events=marks_of(curves.lines.events),
        validations=scored_steps(validations),
        samples=validations[-1].samples if validations else [],
        log=log[-LOG_ENTRIES:],
        cleaning=cleaning,
        environment=environment_of(standing),
        commands=commands_of(run, standing),
    )


def _cleaning_counts(run: RunFolder) -> dict[str, dict[str, Any]] | None:
    """Return the counts of text that was read, kept and dropped, by corpus."""
    try:
        data = read_regular(run.dataset / MANIFEST_NAME, MANIFEST_LIMITS.bytes)
    except FileNotFoundError:
        return None
    corpora = parse_object(data, MANIFEST_LIMITS).get("corpora")
    if not isinstance(corpora, list):
        return None
    return {
        str(corpus.get("name")): {name: corpus.get(name) for name in _CLEANING}
        for corpus in corpora
        if isinstance(corpus, dict)
    }


def environment_of(status: RunStatus) -> dict[str, Any]:
    """Return the versions, commit and numerics of a run, as far as they are known.

    They come from the run's last start and from its newest readable checkpoint.
    """
    known: dict[str, Any] = {}
    if start := status.start:
        known |= {"started": start.since, **start.versions}
        for name, code in (("transloom", start.code), ("project", start.invocation.project)):
            if code:
                known[f"commit of {name}"] = code.commit + (", changed" if code.dirty else "")
    return known | status.numerics


def commands_of(run: RunFolder, status: RunStatus) -> list[str]:
    """Return the command of the last start, then commands that repeat the run and verify it."""
    name, recipe = shlex.quote(str(run.path)), shlex.quote(str(run.recipe))
    copying = []
    if run.url:  # commands that train need a folder
        name = shlex.quote(run.path.name)
        recipe = shlex.quote(f"{run.path.name}/{run.recipe.name}")
        copying = [f"transloom runs pull {shlex.quote(run.url)} {name}"]
    typed = status.start.invocation.command if status.start else None
    # `train` loads the extensions that a recipe names, and any user may have written this recipe.
    # The command therefore disables extensions, unless the recipe names none.
    harmless = status.settings and status.settings.get("extension_folder") is None
    no_folder = "" if harmless else " extension_folder=null"
    return [
        *([typed] if typed else []),
        *copying,
        f"transloom train {recipe}{no_folder} --run {name}-again",
        f"transloom compare {name} {name}-again",
        f"transloom replay {name} --steps 1:20",
    ]


def frozen_responses(runs: Sequence[Path]) -> dict[str, Any]:
    """Return the responses about some runs as JSON values, by request path, for a report.

    Raises:
        RunMismatchError: one of the folders has no run, or two have the same name.
        OSError: a record cannot be read.
    """
    paths = [path.resolve() for path in runs]
    for path in paths:
        RunFolder(path).card()
    if len({path.name for path in paths}) < len(paths):
        names = ", ".join(str(path) for path in paths)
        raise RunMismatchError(f"Two of {names} have the same name: rename one of them")
    answers: dict[str, FileModel] = {}
    rows = []
    for path in paths:
        name = run_id(path.name)
        rows.append(row_of(path))
        answers[run_path(name)] = run_response(path)
        answers[run_path(name, "curves")] = read_curves(RunFolder(path))
        answers[run_path(name, "nodes")] = nodes_response(path)
        answers[run_path(name, "time-lapse")] = time_lapse_response(path)
    folder = Path(with_urls(str(paths[0]))).parent.name
    table = RunsResponse(folder=folder, problems=[], runs=rows)
    answers = {FACTS_PATH: FactsResponse(), RUNS: table, **answers}
    return {path: answer.model_dump(mode="json") for path, answer in answers.items()}


def nodes_response(path: Path) -> NodesResponse:
    """Return the usage of a run's nodes over time.

    Raises:
        OSError: the file exists but cannot be read.
    """
    usage = read_usage(RunFolder(path).nodes)
    return NodesResponse(
        thinned=usage.thinned,
        problem=usage.problem,
        nodes={node: _columns_of(lines) for node, lines in usage.nodes.items()},
    )


def time_lapse_response(path: Path) -> TimeLapseResponse:
    """Return the translations of a run's probe sentences; empty if it has none.

    Raises:
        OSError: a file exists but cannot be read.
    """
    kept = read_time_lapse(RunFolder(path).time_lapse)
    sentences: dict[str, list[ProbeMoment]] = {}
    for moment in kept.moments:
        for probe in moment.probes:
            shown = ProbeMoment(
                step=moment.step,
                output=probe.output,
                ended=probe.ended,
                source=list(probe.source),
                target=list(probe.target),
                weights=np.rint(100 * mean_cross_attention(probe)).astype(int).tolist(),
            )
            sentences.setdefault(probe.sentence, []).append(shown)
    return TimeLapseResponse(problems=list(kept.problems), sentences=sentences)


def _columns_of(lines: list[NodeLine]) -> NodeColumns:
    """Return a node's lines as columns, with None where a line lacks the GPU of a column."""
    gpus = []
    for index in sorted({gpu.index for line in lines for gpu in line.gpus}):
        found = [next((g for g in line.gpus if g.index == index), None) for line in lines]
        columns = {name: [g and getattr(g, name) for g in found] for name in _OF_A_GPU}
        gpus.append(GpuColumns(index=index, **columns))
    columns = {name: [getattr(line, name) for line in lines] for name in _OF_A_NODE}
    return NodeColumns(**columns, gpus=gpus)


def marks_of(events: Sequence[Event | SkippedLine]) -> list[Mark]:
    """Return the events as marks, each described in a sentence."""
    return [_mark(line) for line in events]


def _mark(line: Event | SkippedLine) -> Mark:
    if isinstance(line, SkippedLine):
        names = {"cause", "slots", "ranks", "in_a_row", "loss", "grad_norm"}
        details = line.model_dump(mode="json", include=names, exclude_none=True)
    else:
        details = line.details
    name = kind_of(line).name
    return Mark(step=line.step, event=name, words=event_text(line), details=details)
