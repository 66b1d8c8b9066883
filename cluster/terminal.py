"""All that commands print: the one file that writes to standard output and standard error.

    words for a person     `Terminal` (tables, bars, displays), `tell`, `warn`, `print_error`
    JSON                   `print_json_line`
    what was asked for     `print_result`: the translations themselves

Texts of strangers are in all of it, so everything goes through `strangers_text.visible`, and none
of it is markup: `[red]` in a sentence is a sentence. Only what rich adds, for colours and places,
reaches a terminal as it is; and into a file or pipe, what is handed over.
"""

import io
import json
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

from cluster.errors import ClusterError
from foundation.location import without_credentials
from foundation.untrusted_text import visible, visible_in_json


class Terminal(Console):
    """rich's console, for texts of strangers: they are shown visibly and are never markup."""

    def __init__(
        self,
        *,
        stderr: bool = False,
        file: IO[str] | None = None,
        width: int | None = None,
        force_terminal: bool | None = None,
    ) -> None:
        super().__init__(
            stderr=stderr,
            file=file,
            width=width,
            force_terminal=force_terminal,
            markup=False,
            emoji=False,
            highlight=False,
        )

    def render_str(self, text: str, *args: Any, **options: Any) -> Text:
        """A string becomes visible before it is measured and laid out."""
        return super().render_str(visible(text), *args, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Whatever a renderable is made of, its text is visible; rich's own controls stay."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)


class VisibleTextColumn(TextColumn):
    """A column of a progress display, such as "{task.description}", without markup."""

    def __init__(
        self, text_format: str, style: str = "none", justify: JustifyMethod = "left"
    ) -> None:
        super().__init__(text_format, style, justify, markup=False)

    def render(self, task: Task) -> Text:
        text = shown((self.text_format.format(task=task), str(self.style)))
        text.justify = self.justify
        return text


def percentage_bars(terminal: Terminal) -> Progress:
    """Bars with the share of the work that is done, for tasks of any name."""
    return Progress(
        VisibleTextColumn("{task.description}", "progress.description"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=terminal,
    )


def bars_by_name(progress: Progress) -> Callable[[str, int, int], None]:
    """Tells a progress what is being done, how much of it is done, and of how much; a bar each."""
    bars: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = progress.add_task(what, total=total)
        progress.update(bars[what], completed=done, total=total)

    return report


def step_counts(console: Console) -> Progress:
    """Return transient bars of the steps done; without a terminal, they print nothing."""
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
    """Text for a terminal, of strings and of strings with their style.

    `Text` itself would drop some of the controls before anybody sees them.
    """
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((visible(text), style) for text, style in pairs))


def print_line(text: str) -> None:
    """Print a line on standard output."""
    print(visible(text), flush=True)


def print_json_line(value: Any) -> None:
    """Print a value on standard output as a line of JSON."""
    print(visible_in_json(json.dumps(value, ensure_ascii=False)), flush=True)


def print_result(text: str, end: str = "\n") -> None:
    """Print what was asked for: to the letter into a file or pipe, visibly to a terminal.

    It is UTF-8 whatever the locale says, and a line ends with \\n alone.

    Raises:
        ClusterError: standard output is closed.
    """
    if sys.stdout is None:
        raise ClusterError(
            "Standard output is closed: there is nowhere to write. Redirect it to a file"
        )
    sys.stdout.flush()
    sys.stdout.buffer.write(((visible(text) if sys.stdout.isatty() else text) + end).encode())
    sys.stdout.buffer.flush()


def forward_output(output: bytes) -> None:
    """Print what another command of ours has printed, which has made it visible itself."""
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()


def note(text: str) -> None:
    """Print a line on standard error, beside an answer."""
    print(visible(text), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a warning on standard error."""
    note(f"warning: {text}")


def full_message(error: BaseException) -> str:
    """An error's message and its notes, once each, without a traceback and without credentials.

    A library's error in it may name a URL.
    """
    notes = [note for note in getattr(error, "__notes__", []) if "\n" not in note]
    return without_credentials(" ".join(dict.fromkeys([str(error), *notes])))


def print_error(text: str) -> None:
    """Print why a command has failed, in one paragraph."""
    Terminal(stderr=True).print(shown(("error:", "bold red"), f" {text}"), soft_wrap=True)


def print_in_any_locale() -> None:
    """Let standard output show what its encoding has not as escapes, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def show_tracebacks_visibly() -> None:
    """Let Python print the errors that nobody expected as everything else is printed."""

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
