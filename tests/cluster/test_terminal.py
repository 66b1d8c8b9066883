"""Progress displays off a terminal."""

import io

import pytest

from cluster.terminal import Terminal, step_counts


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_of_steps_leave_nothing_behind_off_a_terminal(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")  # a dumb one is not interactive
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
