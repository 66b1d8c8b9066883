"""`transloom runs` and `transloom status`: how runs stand, by their folders."""

from datetime import datetime
from pathlib import Path

from foundation.wording import counted, flop_rate, span, steps_of
from trainer.errors import RunMismatchError
from trainer.record.standing import BYTES_IN_A_LIST, RunStatus, is_run, run_paths, standing_of
from transloom.observe.terminal.scores import (
    score_heading,
    score_text,
    score_value,
    training_losses,
)
from transloom.observe.terminal.tables import STATE_STYLES, AnswerTable, Column

# Steps that come more seldom than this are worth a word in a list of runs.
QUIET_SECONDS = 120.0


def runs_in(folder: Path) -> list[RunStatus]:
    """Return the standings of the runs in a folder, in the order of their names.

    Raises:
        RunMismatchError: there is no such folder, or it is itself a run.
    """
    paths = run_paths(folder)
    if is_run(folder):
        raise RunMismatchError(
            f"{folder} is itself a run: `transloom status {folder}` tells of it. Name the folder "
            "in which runs lie"
        )
    return [standing_of(path, BYTES_IN_A_LIST) for path in paths]


def status_of(run: Path) -> RunStatus:
    """How a run stands.

    Raises:
        RunMismatchError: there is no run here, not even a damaged one.
    """
    if not is_run(run):
        raise RunMismatchError(
            f"{run} is no run: it has neither run.json nor a record, checkpoints or an owner. "
            "Name the folder of a run, such as runs/phrasebook"
        )
    return standing_of(run)


def progress_text(run: Path) -> str:
    """The last step of a run, and how long there was no other; nothing if it is not seen here."""
    return _progress_text(standing_of(run, BYTES_IN_A_LIST)) if is_run(run) else ""


def runs_table(standings: list[RunStatus]) -> AnswerTable:
    table = AnswerTable(
        *(Column("run", copied=True), "state", "step", "training NLL", "newest scores"),
        *("tokens/s", "left", "owner"),
    )
    for standing in standings:
        table.add(
            standing.name,
            _state_text(standing),
            steps_text(standing),
            "" if standing.training_nll is None else f"{standing.training_nll:.3f}",
            scores_text(standing),
            _number(standing.tokens_per_second),
            time_text(standing.seconds_left),
            _owner_text(standing),
            style=STATE_STYLES.get(standing.state, ""),
        )
    return table


def status_text(standing: RunStatus) -> str:
    """All of a standing for a person, a line for each thing."""
    rows = [
        ("state", standing.state + (f": {standing.reason}" if standing.reason else "")),
        ("step", _progress_text(standing)),
        ("last step", _training_line(standing)),
        ("newest scores", _scores_line(standing)),
        ("best scores", _best_line(standing)),
        ("speed", _speed_line(standing)),
        ("owner", _owner_line(standing)),
        ("ranks", _ranks_line(standing)),
        ("checkpoint", standing.checkpoint or "none"),
        *(("problem", problem) for problem in standing.problems),
        *((f"at {_clock(notice.time)}", notice.text) for notice in standing.notices),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {_hanging(text, width + 2)}" for name, text in rows if text]
    return "\n".join([standing.path, *lines])


def steps_text(standing: RunStatus) -> str:
    """The last step, of how many."""
    return steps_of(standing.step, standing.max_steps)


def _state_text(standing: RunStatus) -> str:
    """The state, and whether steps have stopped to come: the speed is that of the last ones."""
    if (standing.step_age_seconds or 0) <= QUIET_SECONDS:
        return standing.state
    return f"{standing.state}, no step for {time_text(standing.step_age_seconds)}"


def _progress_text(standing: RunStatus) -> str:
    if standing.step_age_seconds is None:
        return steps_text(standing)
    return f"{steps_text(standing)}; no other for {time_text(standing.step_age_seconds)}"


def scores_text(standing: RunStatus) -> str:
    """The scores of the newest validation."""
    return ", ".join(score_text(name, score) for name, score in standing.scores.items())


def best_text(standing: RunStatus, measure: str) -> str:
    """The best value of a measure, and its step."""
    best = standing.best.get(measure)
    return f"{score_value(measure, best.value)} (step {best.step:,})" if best else ""


def time_text(seconds: float | None) -> str:
    """Return a time span in words, or nothing if it is not known."""
    return "" if seconds is None else span(seconds)


def _scores_line(standing: RunStatus) -> str:
    if standing.scores_step is None:
        return "no validation yet"
    return f"{scores_text(standing)} (step {standing.scores_step:,})"


def _training_line(standing: RunStatus) -> str:
    if standing.training_loss is None or standing.training_nll is None:
        return ""
    losses = training_losses(standing.training_loss, standing.training_nll, standing.smooths_labels)
    return ", ".join(f"training {name} {value:.3f}" for name, value in losses.items())


def _best_line(standing: RunStatus) -> str:
    best = [
        f"{score_heading(name, found.decoding)} {best_text(standing, name)}"
        for name, found in standing.best.items()
    ]
    since = standing.best_since_step
    looked = f", of validations since step {since:,}" if best and since and since > 1 else ""
    return ", ".join(best) + looked


def _speed_line(standing: RunStatus) -> str:
    if standing.tokens_per_second is None:
        return ""
    left = f"; {time_text(standing.seconds_left)} left" if standing.seconds_left is not None else ""
    rate = flop_rate(standing.tflops_per_second, standing.mfu)
    rate = f", {rate}" if rate else ""
    return f"{_number(standing.tokens_per_second)} target tokens/s{rate}{left}"


def _owner_line(standing: RunStatus) -> str:
    owner = standing.owner
    if owner is None:
        return "none"
    return f"process {owner.process} on {owner.host}, since {owner.since}"


def _owner_text(standing: RunStatus) -> str:
    owner = standing.owner
    if owner is None or standing.state != "training":
        return ""
    return f"{owner.process} on {owner.host}"


def _ranks_line(standing: RunStatus) -> str:
    if standing.ranks is None:
        return ""
    at = ", ".join(f"{count} on {node}" for node, count in standing.nodes.items())
    return counted(standing.ranks, "rank") + (f": {at}" if at else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _clock(text: str) -> str:
    """A moment of the log by this machine's clock and zone."""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return text


def _hanging(text: str, width: int) -> str:
    return text.replace("\n", "\n" + " " * width)
