"""Terminal views of a sweep: a display during training, and a table at the end."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.live import Live

from foundation.terminal import Terminal, shown
from transloom.cli.sweep_runs import SweepRun
from transloom.observe.terminal.run_status_text import best_text, steps_text, time_text
from transloom.observe.terminal.scores import score_heading
from transloom.observe.terminal.tables import STATE_STYLES, AnswerTable, Column

LINE_SECONDS = 10.0


@contextmanager
def shown_while(console: Terminal) -> Iterator["_Lines | _LiveTable"]:
    """Yield a display: a live table if the console is a terminal, else plain lines."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield _LiveTable(console, live)


def sweep_table(runs: Sequence[SweepRun]) -> AnswerTable:
    """Return a table of the runs with their distinguishing values and their best scores."""
    fields = list(runs[0].point.changed)
    measures = list(dict.fromkeys(name for run in runs for name in run.run_status.best))
    table = AnswerTable(
        Column("run", copied=True),
        *fields,
        "step",
        *(f"best {score_heading(measure, _decoding(runs, measure))}" for measure in measures),
        "left",
        "state",
    )
    for run in runs:
        table.add(
            run.name,
            *(run.point.changed[field] for field in fields),
            steps_text(run.run_status),
            *(best_text(run.run_status, measure) for measure in measures),
            time_text(run.run_status.seconds_left) if run.trains else "",
            run.state + (f": {run.reason}" if run.reason else ""),
            style=STATE_STYLES.get(run.state, ""),
        )
    return table


def _decoding(runs: Sequence[SweepRun], measure: str) -> str | None:
    """Return the decoding settings with which a measure was computed, or None if no run has them.

    All runs of a sweep have the same task, so the settings of the first run with the measure are
    returned.
    """
    found = (run.run_status.best.get(measure) for run in runs)
    return next((best.decoding for best in found if best and best.decoding), None)


class _Lines:
    """Display that prints a line for each notice and, periodically, for each run that trains."""

    def __init__(self, console: Terminal) -> None:
        self._console = console
        self._next_lines = time.monotonic() + LINE_SECONDS

    def notice(self, text: str) -> None:
        self._console.print(shown(text), soft_wrap=True)

    def show(self, runs: Sequence[SweepRun]) -> None:
        if time.monotonic() < self._next_lines:
            return
        self._next_lines = time.monotonic() + LINE_SECONDS
        for run in runs:
            if run.trains:
                left = time_text(run.run_status.seconds_left)
                self.notice(
                    f"{run.name}: step {steps_text(run.run_status)}"
                    + (f", {left} left" if left else "")
                )


class _LiveTable:
    """Live display of the table that the sweep prints at its end, filled with the current state."""

    def __init__(self, console: Terminal, live: Live) -> None:
        self._console = console
        self._live = live

    def notice(self, text: str) -> None:
        self._console.print(shown((f"· {text}", "dim")), soft_wrap=True)

    def show(self, runs: Sequence[SweepRun]) -> None:
        self._live.update(sweep_table(runs).laid_out(self._console.width), refresh=True)
