"""Format the status of runs as text for `transloom runs` and `transloom status`."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cluster.launchers.ray_job.job_summary import JobSummary, is_run_or_submitted, status_with_job
from foundation.wording import counted, span, steps_of
from run_store.errors import RunMismatchError
from run_store.record.facts import BY_NAME, facts_for
from run_store.record.run_status import is_run, run_paths, run_status_of
from run_store.record.run_status_model import RunStatus
from run_store.record.vitals import RankVitals, Vitals
from transloom.observe.terminal.fact_text import current, plain, values_at
from transloom.observe.terminal.scores import score_heading, score_text, score_value
from transloom.observe.terminal.tables import STATE_STYLES, AnswerTable, Column
from transloom.observe.terminal.time_format import ago, clock

# A list of runs shows the age of a run's last step only if that age exceeds this.
QUIET_SECONDS = 120.0
SILENT_SECONDS = 10.0  # a process with an older heartbeat is shown as silent
OLD_SECONDS = 15.0  # older vitals, which are written every two seconds, cause a warning
RESTARTS = 3  # maximum number of restarts shown


def runs_in(folder: Path) -> list[RunStatus]:
    """Return the status of each run in a folder, ordered by the runs' names.

    Raises:
        RunMismatchError: the folder does not exist, or is itself a run.
    """
    paths = run_paths(folder, is_listed=is_run_or_submitted)
    if is_run(folder):
        raise RunMismatchError(
            f"{folder} is itself a run, but a folder that contains runs was expected. To see this "
            f"run, use `transloom status {folder}`"
        )
    return [status_with_job(path) for path in paths]


def status_of(run: Path) -> RunStatus:
    """Return the status of a run.

    Raises:
        RunMismatchError: the folder is no run, not even a damaged one.
    """
    if not is_run(run):
        raise RunMismatchError(
            f"{run} is no run: it has neither run.json nor metrics.jsonl, checkpoints or an owner. "
            "Name the folder of a run, such as runs/phrasebook"
        )
    return status_with_job(run)


def state_text(run: Path) -> str:
    """Return a run's state, last step and the step's age; empty if it is not readable here."""
    if not is_run(run):
        return ""
    run_status = run_status_of(run)
    return f"{run_status.state}, step {_progress_text(run_status)}"


def runs_table(run_statuses: Sequence[RunStatus], caption: str = "") -> AnswerTable:
    """Return a table of runs.

    Args:
        caption: the text below the table.
    """
    facts = [
        fact
        for fact in facts_for("table")
        if any(status.value(fact.name) is not None for status in run_statuses)
    ]
    table = AnswerTable(
        *(Column("run", copied=True), "state", "step", BY_NAME["nll"].title, "newest scores"),
        *(fact.title for fact in facts),
        "process",
        caption=caption,
    )
    for run_status in run_statuses:
        table.add(
            run_status.name,
            _state_text(run_status),
            steps_text(run_status),
            value_text(run_status, "nll"),
            scores_text(run_status),
            *(value_text(run_status, fact.name) for fact in facts),
            _owner_text(run_status),
            style=STATE_STYLES.get(run_status.state, ""),
        )
    return table


class StatusRow(NamedTuple):
    """Property of a run."""

    label: str
    text: str
    style: str = ""


def status_rows(run_status: RunStatus, job: JobSummary | None = None) -> list[StatusRow]:
    """Return the complete status of a run, the most important properties first.

    Args:
        job: the run's newest job, to show its state and restarts.
    """
    vitals = run_status.vitals if run_status.state == "training" else None
    rows = [
        StatusRow("state", state_and_reason(run_status), STATE_STYLES.get(run_status.state, "")),
        *(StatusRow("job", text) for text in job_texts(job)),
        StatusRow("step", _progress_text(run_status)),
        *(StatusRow(*pair) for pair in _fact_rows(run_status)),
        StatusRow("newest scores", _scores_line(run_status)),
        StatusRow("best scores", _best_line(run_status)),
        StatusRow("ranks", _ranks_line(run_status)),
        *(rank_rows(vitals, time.time()) if vitals else ()),
        *(
            StatusRow("slow", f"{slow.name}: {slow.reason}", "yellow")
            for slow in run_status.slow_ranks
        ),
        StatusRow("corruption", run_status.corruption or "", "red"),
        StatusRow("last hang", run_status.hang or "", "yellow"),
        *(StatusRow("left out", text, "yellow") for text in run_status.unfit_nodes),
        *(StatusRow("problem", problem, "red") for problem in run_status.problems),
        *(StatusRow(f"at {clock(notice.time)}", notice.text) for notice in run_status.notices),
        StatusRow("checkpoint", run_status.checkpoint or "none"),
        StatusRow("in memory", _memory_line(run_status)),
        *(
            StatusRow("restarted", f"{clock(restart.time)}  {restart.cause}")
            for restart in (vitals.restarts[-RESTARTS:] if vitals else ())
        ),
        StatusRow("owner", _owner_line(run_status)),
    ]
    if vitals and vitals.checkpoint_being_written is not None:
        text = f"step {vitals.checkpoint_being_written:,} is being written"
        rows.append(StatusRow("checkpoint", text))
    return [row for row in rows if row.text]


def status_text(run_status: RunStatus) -> str:
    """Return the complete status of a run for a person, one line per property."""
    rows = status_rows(run_status)
    width = max(len(row.label) for row in rows)
    indented = "\n" + " " * (width + 2)
    lines = [f"{label:<{width}}  " + text.replace("\n", indented) for label, text, _ in rows]
    return "\n".join([run_status.path, *lines])


def state_and_reason(run_status: RunStatus) -> str:
    """Return the state of a run, with its reason if there is one."""
    return ": ".join(filter(None, (run_status.state, run_status.reason)))


def job_texts(job: JobSummary | None) -> Iterator[str]:
    """Yield the state of a job, and its restarts with their causes, oldest first."""
    if job:
        wait = f", waits for {job.waits_for}" if job.waits_for else ""
        yield f"{job.id}: {job.status.lower()}{wait}" + (f": {job.message}" if job.message else "")
        for one in job.record.attempts[:-1] if job.record else ():
            ended = clock(one.ended or one.started)
            yield f"{ended}  the job's command was restarted after {one.end_text}: {one.why}"


def _memory_line(run_status: RunStatus) -> str:
    step = run_status.memory_checkpoint_step
    return "" if step is None else f"step {step:,}, from which lost ranks restart"


def rank_rows(vitals: Vitals, now: float) -> Iterator[StatusRow]:
    """Yield a row for the ranks of each node, silent ones first, and one for the data workers."""
    age = max(0.0, now - vitals.time)
    if age > OLD_SECONDS:
        text = f"{span(age)} old, but the run's owner writes it every two seconds"
        yield StatusRow("status.json", text, "yellow")
    nodes: dict[str, dict[str, list[RankVitals]]] = defaultdict(lambda: defaultdict(list))
    silent = set()
    for rank in vitals.ranks:
        quiet, text = rank.silent_seconds + age, _at(rank)
        # A starting rank sends no heartbeat during its imports.
        if rank.phase != "start" and quiet > SILENT_SECONDS:
            silent.add(rank.node)
            text = f"silent for {span(quiet)}, in {text}"
        nodes[rank.node][text].append(rank)
    for node in sorted(nodes, key=lambda node: (node not in silent, node)):
        texts = []
        for text, ranks in sorted(nodes[node].items(), key=lambda group: -len(group[1])):
            heard = ago(max(rank.silent_seconds for rank in ranks) + age)
            named = f"{'ranks' if ranks[1:] else 'rank'} {numbers(rank.rank for rank in ranks)}"
            heartbeat = "" if text.startswith("silent") else f", heartbeat {heard}"
            texts.append(f"{named} {text}{heartbeat}")
        yield StatusRow(f"  {node}", "; ".join(texts), "red" if node in silent else "")
    if workers := vitals.data_workers:
        read = sum(worker.windows_read or 0 for worker in workers)
        texts = [f"{len(workers)}, {counted(read, 'window')} read"] + [
            f"worker {worker.number} silent for {span(worker.silent_seconds + age)}"
            for worker in workers
            if not worker.alive
        ]
        yield StatusRow("data workers", "; ".join(texts), "red" if texts[1:] else "")


def _at(rank: RankVitals) -> str:
    if rank.phase == "start":
        return "starting"
    if rank.phase in ("data", "step"):
        return f"step {rank.step:,}"
    if rank.phase == "done":
        return f"done at step {rank.step:,}"
    return f"{'saving' if rank.phase == 'save' else rank.phase} of step {rank.step:,}"


def numbers(values: Iterable[int]) -> str:
    """Return numbers as text, with consecutive numbers as a range, such as `0–3, 5`."""
    ranges: list[list[int]] = []
    for value in sorted(values):
        if ranges and value == ranges[-1][1] + 1:
            ranges[-1][1] = value
        else:
            ranges.append([value, value])
    return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in ranges)


def steps_text(run_status: RunStatus) -> str:
    """Return the last step and the total number of steps as text."""
    return steps_of(run_status.step, run_status.max_steps)


def _state_text(run_status: RunStatus) -> str:
    """Return the state as text, with the age of the last step if that exceeds `QUIET_SECONDS`."""
    if (run_status.step_age_seconds or 0) <= QUIET_SECONDS:
        return run_status.state
    return f"{run_status.state}, no step for {time_text(run_status.step_age_seconds)}"


def _progress_text(run_status: RunStatus) -> str:
    text, age = steps_text(run_status), run_status.step_age_seconds
    if run_status.max_steps:
        text += f" ({min(1.0, run_status.step / run_status.max_steps):.1%})"
    return text if age is None else f"{text}; no new step for {time_text(age)}"


def scores_text(run_status: RunStatus) -> str:
    """Return the scores of the newest validation as text."""
    return ", ".join(score_text(name, score) for name, score in run_status.scores.items())


def best_text(run_status: RunStatus, measure: str) -> str:
    """Return the best value of a measure and its step as text; empty if there is none."""
    best = run_status.best.get(measure)
    return f"{score_value(measure, best.value)} (step {best.step:,})" if best else ""


def time_text(seconds: float | None) -> str:
    """Return a time span in words; empty if it is unknown."""
    return "" if seconds is None else span(seconds)


def _scores_line(run_status: RunStatus) -> str:
    if run_status.scores_step is None:
        return "no validation yet"
    return f"{scores_text(run_status)} (step {run_status.scores_step:,})"


def _fact_rows(run_status: RunStatus) -> Iterator[tuple[str, str]]:
    """Yield the title and the text of each fact with a current value."""
    form = run_status.loss_form
    values = values_at("status", lambda fact: run_status.value(fact.name))
    for fact, value in values.items():
        yield fact.title_of(form), current(fact, value, form)


def value_text(run_status: RunStatus, name: str) -> str:
    """Return the current value of a fact without its unit; empty if it is unknown."""
    fact, value = BY_NAME[name], run_status.value(name)
    per_second = "/s" if fact.format == "rate" else ""
    return "" if value is None else f"{plain(fact, value)}{per_second}"


def _best_line(run_status: RunStatus) -> str:
    best = [
        f"{score_heading(name, found.decoding)} {best_text(run_status, name)}"
        for name, found in run_status.best.items()
    ]
    since = run_status.best_since_step
    looked = f", of validations since step {since:,}" if best and since and since > 1 else ""
    return ", ".join(best) + looked


def _owner_line(run_status: RunStatus) -> str:
    owner = run_status.owner
    if owner is None:
        return "none"
    return f"process {owner.process} on {owner.host}, since {owner.since}"


def _owner_text(run_status: RunStatus) -> str:
    owner = run_status.owner
    if owner is None or run_status.state != "training":
        return ""
    return f"{owner.process} on {owner.host}"


def _ranks_line(run_status: RunStatus) -> str:
    if run_status.ranks is None:
        return ""
    at = ", ".join(f"{count} on {node}" for node, count in run_status.nodes.items())
    return counted(run_status.ranks, "rank") + (f": {at}" if at else "")
