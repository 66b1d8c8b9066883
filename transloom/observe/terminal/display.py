"""Show a run to a person: as a live picture in a terminal, and as plain lines anywhere else.

`transloom train` shows a `LivePicture`. It receives the supervisor's lines in memory, and the
picture stays on the screen after the run has ended. `transloom watch` draws the same picture from a
run's folder.
"""

import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Self

import rich.console
from rich.console import ConsoleOptions, RenderResult
from rich.live import Live

from cluster.errors import RankLostError
from cluster.terminal import Terminal, full_message, shown
from foundation.location import without_credentials
from foundation.untrusted_text import visible, visible_line
from trainer.checkpoints.checkpoint import newest_intact
from trainer.checkpoints.checkpoint_status import CheckpointFolder
from trainer.errors import GuardError, LeaseLostError, NonFiniteLossError
from trainer.record.event_text import event_text
from trainer.record.metrics_lines import Event, Line, RankHung, Resized, TrainLine, ValidationLine
from trainer.record.run_status_model import DEFAULT_FORM, LossForm
from trainer.runs.folder import RunFolder
from trainer.runs.log import ENDED, INTERRUPTED, LogEntry, indented, log_entry
from trainer.runs.vitals import Vitals
from transloom.observe.terminal.fact_text import step_text, values_at
from transloom.observe.terminal.picture_blocks import drawn
from transloom.observe.terminal.run_picture import CHECKPOINTS_SHOWN, RunPicture, take_history
from transloom.observe.terminal.scores import score_text

PLAIN_LINE_SECONDS = 10.0
REFRESHES_PER_SECOND = 2


def listener_for(
    console: Terminal, title: str, max_steps: int, run: RunFolder, form: LossForm = DEFAULT_FORM
) -> "LivePicture | PlainLines":
    """Return a live picture if the console is a terminal that can redraw; otherwise plain lines."""
    if not supports_live_display(console):
        return PlainLines(console, title, max_steps, form)
    picture = RunPicture(title, max_steps, loss_form=form)
    picture.problems = take_history(picture, run)
    return LivePicture(console, picture, CheckpointFolder(run.checkpoints))


def train_summary(line: TrainLine, form: LossForm) -> str:
    """Return the numbers of a training step in one line."""
    values = values_at("progress", lambda fact: getattr(line, fact.name))
    return "  ".join(step_text(fact, value, form) for fact, value in values.items())


def validation_summary(line: ValidationLine) -> str:
    """Return the scores of a validation in one line."""
    scores = (score_text(name, score) for name, score in line.scores.items())
    return f"step {line.step}: validation {', '.join(scores)}"


class LoggingListener:
    """Wrapper of a listener that also writes notices, events and errors to the log of a run.

    Only the run's owner writes the log. Texts that arrive before the context `logging` is entered
    are buffered. A process that never owns the run writes nothing.
    """

    def __init__(self, listener: "LivePicture | PlainLines", run: RunFolder) -> None:
        self._listener = listener
        self._run = run
        self._owns_run = False
        self._waiting: list[str] = []  # entries that are not in the log yet

    @contextmanager
    def logging(self) -> Iterator[None]:
        self._owns_run = True
        if self._waiting:
            self._append("".join(self._waiting))
        try:
            yield
        except LeaseLostError:
            raise  # the log now belongs to another process
        except KeyboardInterrupt:
            self.log_detail(INTERRUPTED)
            raise
        except Exception as error:
            self._keep_error(error)
            raise
        finally:
            self._owns_run, self._waiting = False, []

    def notice(self, text: str) -> None:
        self.log_detail(text)
        self._listener.notice(without_credentials(text))

    def line(self, line: Line) -> None:
        if isinstance(line, Event) and not isinstance(line, RankHung):  # its error is logged
            self.log_detail(event_text(line))
        self._listener.line(line)

    def vitals(self, vitals: Vitals) -> None:
        self._listener.vitals(vitals)

    def log_detail(self, text: str) -> None:
        """Write a text to the log file only, without the credentials in URLs; see `RunListener`."""
        entry = log_entry(visible(without_credentials(text)), datetime.now(UTC))
        if self._owns_run:
            self._append(entry)
        else:
            self._waiting.append(entry)

    def _append(self, entries: str) -> None:
        # If the disk is full, the log lacks this text, and the run continues.
        with suppress(OSError), self._run.log.open("a", encoding="utf-8") as file:
            file.write(entries)

    def _keep_error(self, error: Exception) -> None:
        if isinstance(error, (GuardError, NonFiniteLossError)):
            good, _ = newest_intact(self._run.checkpoints)
            error.add_note(f"The newest good checkpoint is {good.path if good else 'none'}.")
        self.log_detail(f"{ENDED}{full_message(error)}")
        if isinstance(error, RankLostError):  # its message has only one line of its cause
            self.log_detail("".join(traceback.format_exception(error)))


class PlainLines:
    """Listener that prints plain lines, at most one training step every few seconds."""

    def __init__(
        self, console: Terminal, title: str, max_steps: int, loss_form: LossForm = DEFAULT_FORM
    ) -> None:
        self._console = console
        self._max_steps = max_steps
        self._loss_form = loss_form
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
                summary = train_summary(line, self._loss_form)
                self._print(f"step {line.step}/{self._max_steps}  {summary}")
        elif isinstance(line, ValidationLine):
            self._print(validation_summary(line))
            for sample in line.samples:
                texts = visible_line(sample.source), visible_line(sample.translation)
                self._print(f"    {texts[0]}  →  {texts[1]}")
        elif isinstance(line, Event) and not isinstance(line, Resized | RankHung):
            # A `Resumed` event reports the same change as `Resized`, and an error the hang.
            self._print(event_text(line))

    def vitals(self, vitals: Vitals) -> None:
        pass  # the printed notices are enough

    def _print(self, text: str) -> None:
        self._console.print(shown(indented(text)), soft_wrap=True)


def supports_live_display(console: Terminal) -> bool:
    """Return whether the console is a terminal that can redraw rows; a dumb terminal cannot."""
    return console.is_terminal and not console.is_dumb_terminal


class LivePicture:
    """Listener that updates a run's picture with each line, notice and vitals, and redraws it."""

    def __init__(
        self, console: Terminal, picture: RunPicture, checkpoints: CheckpointFolder
    ) -> None:
        self._picture = picture
        self._checkpoints = checkpoints
        self._changing = threading.Lock()  # guards the picture, which a thread of rich draws
        self._live = Live(self, console=console, refresh_per_second=REFRESHES_PER_SECOND)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._changing:
            self._picture.state = "failed" if kind else "ended"
        self._live.stop()

    def __rich_console__(
        self, console: rich.console.Console, options: ConsoleOptions
    ) -> RenderResult:
        """Draw the picture while no other thread changes it."""
        with self._changing:
            return list(console.render(drawn(self._picture), options))

    def notice(self, text: str) -> None:
        now = datetime.now(UTC).isoformat()
        with self._changing:
            self._picture.notices.append(LogEntry(time=now, text=text))

    def line(self, line: Line) -> None:
        with self._changing:
            self._picture.line(line)

    def vitals(self, vitals: Vitals) -> None:
        # Reading the folder here does not delay training, because a separate thread calls this
        # method.
        with suppress(OSError):
            self._picture.checkpoints = self._checkpoints.newest(CHECKPOINTS_SHOWN)
        with self._changing:
            self._picture.vitals = vitals
            self._picture.vitals_are_current = not vitals.over
