"""Format the status of runs as text for `transloom runs` and `transloom status`."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from foundation.wording import counted, span, steps_of
from trainer.errors import RunMismatchError
from trainer.record.facts import BY_NAME, facts_for
from trainer.record.run_status import RECORD_BYTES_IN_LIST, is_run, run_paths, run_status_of
from trainer.record.run_status_model import RunStatus
from transloom.observe.terminal.fact_text import current, plain, values_at
from transloom.observe.terminal.scores import score_heading, score_text, score_value
from transloom.observe.terminal.tables import STATE_STYLES, AnswerTable, Column
from transloom.observe.terminal.time_format import clock

# A list of runs shows the age of a run's last step only if that age exceeds this.
QUIET_SECONDS = 120.0


def runs_in(folder: Path) -> list[RunStatus]:
    """Return the status of each run in a folder, ordered by the runs' names.

    Raises:
        RunMismatchError: the folder does not exist, or is itself a run.
    """
    paths = run_paths(folder)
    if is_run(folder):
        raise RunMismatchError(
            f"{folder} is itself a run, but a folder that contains runs was expected. To see this "
            f"run, use `transloom status {folder}`"
        )
    return [run_status_of(path, RECORD_BYTES_IN_LIST) for path in paths]


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
    return run_status_of(run)


def progress_text(run: Path) -> str:
    """Return a run's last step and the step's age; empty if the run is not readable here."""
    return _progress_text(run_status_of(run, RECORD_BYTES_IN_LIST)) if is_run(run) else ""


def runs_table(run_statuses: list[RunStatus]) -> AnswerTable:
    table = AnswerTable(
        *(Column("run", copied=True), "state", "step", BY_NAME["nll"].title, "newest scores"),
        *(fact.title for fact in facts_for("table")),
        "owner",
    )
    for run_status in run_statuses:
        table.add(
            run_status.name,
            _state_text(run_status),
            steps_text(run_status),
            value_text(run_status, "nll"),
            scores_text(run_status),
            *(value_text(run_status, fact.name) for fact in facts_for("table")),
            _owner_text(run_status),
            style=STATE_STYLES.get(run_status.state, ""),
        )
    return table


def status_text(run_status: RunStatus) -> str:
    """Return the complete status of a run for a person, one line per property."""
    rows = [
        ("state", run_status.state + (f": {run_status.reason}" if run_status.reason else "")),
        ("step", _progress_text(run_status)),
        *_fact_rows(run_status),
        ("newest scores", _scores_line(run_status)),
        ("best scores", _best_line(run_status)),
        ("owner", _owner_line(run_status)),
        ("ranks", _ranks_line(run_status)),
        *(("slow", f"{slow.name}: {slow.reason}") for slow in run_status.slow_ranks),
        ("checkpoint", run_status.checkpoint or "none"),
        ("in memory", _memory_line(run_status)),
        ("corruption", run_status.corruption or ""),
        ("last hang", run_status.hang or ""),
        *(("left out", text) for text in run_status.unfit_nodes),
        *(("problem", problem) for problem in run_status.problems),
        *(
            (f"at {clock(notice.time, has_date=True)}", notice.text)
            for notice in run_status.notices
        ),
    ]
    width = max(len(name) for name, _ in rows)
    indented = "\n" + " " * (width + 2)
    pairs = ((name, text.replace("\n", indented)) for name, text in rows if text)
    lines = [f"{name:<{width}}  {text}" for name, text in pairs]
    return "\n".join([run_status.path, *lines])


def _memory_line(run_status: RunStatus) -> str:
    step = run_status.memory_checkpoint_step
    return "" if step is None else f"step {step:,}, from which lost ranks restart"


def steps_text(run_status: RunStatus) -> str:
    """Return the last step and the total number of steps as text."""
    return steps_of(run_status.step, run_status.max_steps)


def _state_text(run_status: RunStatus) -> str:
    """Return the state as text, with the age of the last step if that exceeds `QUIET_SECONDS`."""
    if (run_status.step_age_seconds or 0) <= QUIET_SECONDS:
        return run_status.state
    return f"{run_status.state}, no step for {time_text(run_status.step_age_seconds)}"


def _progress_text(run_status: RunStatus) -> str:
    if run_status.step_age_seconds is None:
        return steps_text(run_status)
    return f"{steps_text(run_status)}; no new step for {time_text(run_status.step_age_seconds)}"


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
    at = nodes_text(run_status.nodes)
    return counted(run_status.ranks, "rank") + (f": {at}" if at else "")


def nodes_text(ranks: Mapping[str, int]) -> str:
    """Return the number of ranks on each node as text."""
    return ", ".join(f"{count} on {node}" for node, count in ranks.items())
