"""Output of commands: the only file that writes to standard output and standard error.

    text for users     `Terminal` (tables, bars, displays), `print_line`, `note`, `warn`,
                       `print_error`
    JSON               `print_json_line`
    requested output   `print_result`: the translations themselves

All output may contain untrusted text. Every string therefore goes through `untrusted_text.visible`,
and rich does not parse markup: `[red]` in a sentence stays `[red]`. Only the control codes that
rich adds, for colours and positions, reach a terminal unchanged. `print_result` writes its text
unchanged to a file or pipe.
"""

import io
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import IO, Any

from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from foundation.location import without_credentials
from foundation.shown_urls import with_urls
from foundation.untrusted_text import visible, visible_in_json


class Terminal(Console):
    """Console of rich that makes control characters visible and does not parse markup.

    With `FORCE_COLOR`, a file or pipe gets colours, but no displays that are redrawn. Rich itself
    would treat the file or pipe as a terminal in every respect.
    """

    def __init__(
        self,
        *,
        stderr: bool = False,
        file: IO[str] | None = None,
        width: int | None = None,
        force_terminal: bool | None = None,
    ) -> None:
        stream = file or (sys.stderr if stderr else sys.stdout)
        coloured_pipe = force_terminal is None and _is_pipe_with_colours(stream)
        super().__init__(
            stderr=stderr,
            file=file,
            width=width,
            force_terminal=False if coloured_pipe else force_terminal,
            color_system="standard" if coloured_pipe else "auto",
            markup=False,
            emoji=False,
            highlight=False,
        )

    def render_str(self, text: str, *args: Any, **options: Any) -> Text:
        """Render a string with control characters made visible, so that its width is correct."""
        return super().render_str(presentable(text), *args, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Make control characters in an object's text visible, but keep rich's control codes."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)


def _is_pipe_with_colours(stream: IO[str]) -> bool:
    return bool(os.environ.get("FORCE_COLOR")) and not stream.isatty()


class VisibleTextColumn(TextColumn):
    """Column of a progress display, such as "{task.description}", without markup."""

    def __init__(
        self, text_format: str, style: str = "none", justify: JustifyMethod = "left"
    ) -> None:
        super().__init__(text_format, style, justify, markup=False)

    def render(self, task: Task) -> Text:
        text = shown((self.text_format.format(task=task), str(self.style)))
        text.justify = self.justify
        return text


def percentage_bars(terminal: Terminal) -> Progress:
    """Return progress bars that show the percentage done and the remaining time."""
    return Progress(
        VisibleTextColumn("{task.description}", "progress.description"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=terminal,
    )


def bars_by_name(progress: Progress) -> Callable[[str, int, int], None]:
    """Return a callback that updates the progress bar of a task, and adds a bar for a new task.

    The arguments of the callback are the task's name, the number of finished units, and the total
    number of units.
    """
    bars: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = progress.add_task(what, total=total)
        progress.update(bars[what], completed=done, total=total)

    return report


def step_counts(console: Console) -> Progress:
    """Return progress bars that count steps and vanish at the end; no bars without a terminal."""
    return Progress(
        VisibleTextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_interactive,
    )


def shown(*parts: str | tuple[str, str]) -> Text:
    """Return text for a terminal, from strings and from pairs of string and style.

    `Text` itself would drop some control characters instead of making them visible.
    """
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((presentable(text), style) for text, style in pairs))


def presentable(text: str) -> str:
    """Return a text with control characters made visible, and with the URLs of runs.

    A command reads a run in an object store from a local copy, whose folder a message may name.
    """
    return visible(with_urls(text))


def print_line(text: str) -> None:
    """Print a line on standard output."""
    print(presentable(text), flush=True)


def print_json_line(value: Any) -> None:
    """Print a value on standard output as a line of JSON."""
    print(visible_in_json(with_urls(json.dumps(value, ensure_ascii=False))), flush=True)


def print_result(text: str, end: str = "\n") -> None:
    """Print the requested output; on a terminal, make control characters visible.

    A file or pipe receives the text unchanged. The encoding is UTF-8 regardless of the locale, and
    a line ends with LF only.

    Raises:
        OSError: standard output is closed.
    """
    if sys.stdout is None:
        raise OSError(
            "Standard output is closed, so the result cannot be printed. Redirect standard output "
            "to a file"
        )
    sys.stdout.flush()
    sys.stdout.buffer.write(((visible(text) if sys.stdout.isatty() else text) + end).encode())
    sys.stdout.buffer.flush()


def forward_output(output: bytes) -> None:
    """Print the output of another transloom command unchanged, because it is escaped already."""
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()


def note(text: str) -> None:
    """Print a line on standard error, separate from the results on standard output."""
    print(presentable(text), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a warning on standard error."""
    note(f"warning: {text}")


def full_message(error: BaseException) -> str:
    """Return an error's message and its notes, without duplicates, traceback or credentials.

    Credentials are removed because a library's error may quote a URL.
    """
    notes = [note for note in getattr(error, "__notes__", []) if "\n" not in note]
    return without_credentials(" ".join(dict.fromkeys([str(error), *notes])))


def print_error(text: str) -> None:
    """Print the reason why a command failed, in one paragraph."""
    Terminal(stderr=True).print(shown(("error:", "bold red"), f" {text}"), soft_wrap=True)


def print_in_any_locale() -> None:
    """Escape characters that standard output cannot encode, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def show_tracebacks_visibly() -> None:
    """Make control characters visible in Python's tracebacks of unexpected errors."""

    def show(
        kind: type[BaseException], error: BaseException | None, where: TracebackType | None
    ) -> None:
        note("".join(traceback.format_exception(kind, error, where)).rstrip("\n"))

    sys.excepthook = show
    threading.excepthook = lambda args: (
        None
        if args.exc_type is SystemExit
        else show(args.exc_type, args.exc_value, args.exc_traceback)
    )
