"""Progress displays and colours with and without a terminal."""

import io

import pytest
from rich.live import Live

from foundation.terminal import Terminal, shown, step_counts


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_bars_are_not_written_without_a_terminal(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")  # a dumb terminal is not interactive
    console = Terminal(file=io.StringIO(), force_terminal=terminal)
    with step_counts(console) as progress:
        task = progress.add_task("training again", total=4)
        console.print("a notice")
        progress.update(task, completed=4)
    text = console.file.getvalue()
    assert "a notice" in text
    if terminal:
        assert "4/4" in text
    else:
        assert text == "a notice\n"


def test_force_color_does_not_make_a_pipe_redraw_rows(monkeypatch):
    """Jupyter sets FORCE_COLOR but cannot redraw rows."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    console = Terminal(file=io.StringIO())
    with Live(shown("a row"), console=console, auto_refresh=False) as live:
        live.update(shown("another row"), refresh=True)
    console.print(shown(("error:", "bold red")))
    assert console.file.getvalue() == "another row\x1b[1;31merror:\x1b[0m\n"
