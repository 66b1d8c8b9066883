"""Show a run to the person who trains it: its status in a terminal, and lines of text.

In a terminal, `transloom train` shows the same rows as `transloom watch`, which follow the run's
folder. Notices and validations are printed above them. Anywhere else, steps are printed, too.
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
from foundation.location import without_credentials
from foundation.terminal import Terminal, full_message, shown
from foundation.untrusted_text import visible, visible_line
from run_store.checkpoints.checkpoint import newest_intact
from run_store.errors import LeaseLostError
from run_store.folder import RunFolder
from run_store.record.event_text import event_text
from run_store.record.log import ENDED, INTERRUPTED, indented, log_entry
from run_store.record.metrics_lines import Event, Line, RankHung, Resized, TrainLine, ValidationLine
from run_store.record.run_status import is_run
from run_store.record.run_status_model import DEFAULT_FORM, LossForm
from run_store.record.vitals import Vitals
from trainer.errors import GuardError, NonFiniteLossError
from transloom.observe.terminal.fact_text import step_summary
from transloom.observe.terminal.run_feed import PLAIN_LINE_SECONDS, RunFeed, status_grid
from transloom.observe.terminal.scores import score_text

POLL_SECONDS = 2.0  # the run's owner writes its vitals at this interval, too


def listener_for(
    console: Terminal, title: str, max_steps: int, run: RunFolder, form: LossForm = DEFAULT_FORM
) -> "PlainLines":
    """Return a live status if the console is a terminal that can redraw; otherwise plain lines."""
    if supports_live_display(console):
        return LiveStatus(console, title, max_steps, run, form)
    return PlainLines(console, title, max_steps, form)


def validation_summary(line: ValidationLine) -> str:
    """Return the scores of a validation in one line."""
    scores = (score_text(name, score) for name, score in line.scores.items())
    return f"step {line.step}: validation {', '.join(scores)}"


class LoggingListener:
    """Wrapper of a listener that also writes notices, events and errors to the log of a run.

    Only the run's owner writes the log. Texts that arrive before the context `logging` is entered
    are buffered. A process that never owns the run writes nothing.
    """

    def __init__(self, listener: "PlainLines", run: RunFolder) -> None:
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
            raise  # do not write to the log, because another process now owns the run
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
        # A `RankHung` is not logged here, because the error that follows it is logged.
        if isinstance(line, Event) and not isinstance(line, RankHung):
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
        if isinstance(error, RankLostError):  # the message has only one line about the cause
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
                summary = step_summary(lambda fact: getattr(line, fact.name), self._loss_form)
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


class LiveStatus(PlainLines):
    """Listener that prints all lines but those of steps, and shows the run's status below them."""

    def __init__(
        self,
        console: Terminal,
        title: str,
        max_steps: int,
        run: RunFolder,
        loss_form: LossForm = DEFAULT_FORM,
    ) -> None:
        super().__init__(console, title, max_steps, loss_form)
        self._run = run
        self._feed: RunFeed | None = None  # None until the run exists
        self._next_poll = 0.0
        # Needed because rich draws both in a thread and whenever a line is printed.
        self._polling = threading.Lock()
        self._live = Live(
            self, console=console, refresh_per_second=1 / POLL_SECONDS, vertical_overflow="crop"
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._next_poll = 0.0  # makes the last refresh show how the run ended
        self._live.stop()

    def line(self, line: Line) -> None:
        if not isinstance(line, TrainLine):
            super().line(line)

    def __rich_console__(
        self, console: rich.console.Console, options: ConsoleOptions
    ) -> RenderResult:
        """Draw the status, which is read at most every `POLL_SECONDS`."""
        with self._polling:
            if time.monotonic() >= self._next_poll and is_run(self._run.path):
                self._next_poll = time.monotonic() + POLL_SECONDS
                if self._feed is None:
                    self._feed = RunFeed(self._run.path)
                else:
                    self._feed.poll()
            if self._feed:
                # Leave out notices, because they are printed above the status.
                rows = self._feed.rows(options.max_width, has_notices=False)
                yield status_grid(rows, console, options)
