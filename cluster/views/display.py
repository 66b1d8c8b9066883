"""What a person sees of a run: a live display in a terminal, plain lines anywhere else."""

import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from cluster.terminal import Terminal, Words, shown
from cluster.views.scores import score_name, score_text
from data_pipeline.location import without_credentials
from data_pipeline.strangers_text import visible, visible_line
from data_pipeline.wording import said
from trainer.runs.log import indented, log_entry
from trainer.tracking.records import Event, Line, TrainLine, ValidationLine

PLAIN_LINE_SECONDS = 10.0
NOTICES_SHOWN = 4


def audience_for(console: Terminal, title: str, max_steps: int) -> "LiveDisplay | PlainLines":
    """A live display if the console is a terminal."""
    if console.is_terminal:
        return LiveDisplay(console, title, max_steps)
    return PlainLines(console, title, max_steps)


def train_summary(line: TrainLine) -> str:
    """The numbers of a training step in one line."""
    return (
        f"loss {line.loss:.3f}  grad norm {line.grad_norm:.2f}  "
        f"lr {line.learning_rate:.2e}  {line.target_tokens_per_second:,.0f} target tokens/s  "
        f"padding {line.padding_fraction:.1%}  data stall {line.data_stall_seconds:.3f} s"
    )


def validation_summary(line: ValidationLine) -> str:
    """The scores of a validation in one line."""
    scores = (score_text(name, score.value) for name, score in line.scores.items())
    return f"step {line.step}: validation {', '.join(scores)}"


class LoggedAudience:
    """An audience whose notices and events are kept in a file too, with the time."""

    def __init__(self, audience: "LiveDisplay | PlainLines", log: Path) -> None:
        self._audience = audience
        self._log = log

    def notice(self, text: str) -> None:
        self.keep(text)
        self._audience.notice(without_credentials(text))

    def line(self, line: Line) -> None:
        if isinstance(line, Event):
            self.keep(event_summary(line))
        self._audience.line(line)

    def keep(self, text: str) -> None:
        """Write to the file alone, without the credentials of URLs; see `Audience`."""
        entry = log_entry(visible(without_credentials(text)), datetime.now(UTC))
        # On a full disk the log lacks this text, and the run goes on.
        with suppress(OSError), self._log.open("a", encoding="utf-8") as file:
            file.write(entry)


class PlainLines:
    """Prints a line now and then, for logs."""

    def __init__(self, console: Terminal, title: str, max_steps: int) -> None:
        self._console = console
        self._max_steps = max_steps
        self._next_line = 0.0
        self._print(title)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def notice(self, text: str) -> None:
        self._print(text)

    def line(self, line: Line) -> None:
        if isinstance(line, TrainLine):
            now = time.monotonic()
            if now >= self._next_line or line.step == self._max_steps:
                self._next_line = now + PLAIN_LINE_SECONDS
                self._print(f"step {line.step}/{self._max_steps}  {train_summary(line)}")
        elif isinstance(line, ValidationLine):
            self._print(validation_summary(line))
            for sample in line.samples:
                texts = visible_line(sample.source), visible_line(sample.translation)
                self._print(f"    {texts[0]}  →  {texts[1]}")
        elif isinstance(line, Event):
            self._print(event_summary(line))

    def _print(self, text: str) -> None:
        self._console.print(shown(indented(text)), soft_wrap=True)


class LiveDisplay:
    """Shows progress, numbers, and held-out translations that get better."""

    def __init__(self, console: Terminal, title: str, max_steps: int) -> None:
        self._title = title
        self._progress = Progress(
            Words("steps"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task("steps", total=max_steps)
        self._numbers = "waiting for the first step"
        self._validations: list[ValidationLine] = []
        self._notices: deque[str] = deque(maxlen=NOTICES_SHOWN)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def notice(self, text: str) -> None:
        self._notices.append(text)

    def line(self, line: Line) -> None:
        if isinstance(line, TrainLine):
            self._progress.update(self._task, completed=line.step)
            self._numbers = train_summary(line)
        elif isinstance(line, ValidationLine):
            self._validations.append(line)
        elif isinstance(line, Event):
            self.notice(event_summary(line))

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [
            shown((self._title, "bold")),
            self._progress,
            shown(self._numbers),
        ]
        if self._validations:
            parts.append(self._translations())
        parts += [shown((f"· {notice}", "dim")) for notice in self._notices]
        return Group(*parts)

    def _translations(self) -> Table:
        last = self._validations[-1]
        table = Table(
            title=f"{validation_summary(last)}   ({self._scores_so_far()})",
            title_justify="left",
            box=box.SIMPLE,
            expand=True,
        )
        for heading in ("held-out sentence", "translation now", "reference"):
            table.add_column(heading)
        for sample in last.samples:
            right = sample.translation == sample.reference
            table.add_row(
                shown(sample.source),
                shown((sample.translation, "green" if right else "")),
                shown(sample.reference),
            )
        return table

    def _scores_so_far(self) -> str:
        """The scores of the last measure, which says most to a person."""
        name = list(self._validations[-1].scores)[-1]
        values = [line.scores[name].value for line in self._validations[-12:]]
        shown = " → ".join("?" if value is None else f"{value:.0f}" for value in values)
        return f"{score_name(name)} so far: {shown}"


def event_summary(line: Event) -> str:
    """An event of the record in words."""
    details = ", ".join(
        f"{key.replace('_', ' ')} {said(value)}" for key, value in line.details.items() if value
    )
    return f"{line.event.replace('_', ' ')}: {details}" if details else line.event
