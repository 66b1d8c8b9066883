"""Watchers of a run do not change the run, even if they are killed or suspended."""

import os
import signal
import subprocess
from contextlib import ExitStack

import pytest
from support.command import TRANSLOOM

from run_store.record.metrics_lines import TrainLine
from run_store.record.run_status import run_status_of
from transloom.cli import train_run
from transloom.observe.terminal.display import PlainLines

pytestmark = pytest.mark.long

STEPS = ("trainer.max_steps=8", "trainer.validate_every_steps=4", "checkpoints.every_steps=2")


@pytest.fixture
def at_step(monkeypatch):
    """Return a function that makes a run, trained inline, call `act` at a step."""

    def at(step, act):
        class Acting(PlainLines):
            def line(self, line):
                super().line(line)
                if isinstance(line, TrainLine) and line.step == step:
                    act()

        monkeypatch.setattr(
            train_run,
            "listener_for",
            lambda console, title, steps, run, smooths: Acting(console, title, steps, smooths),
        )

    return at


def test_watchers_that_are_killed_or_suspended_do_not_change_the_run(inline_runs, at_step):
    options = (*STEPS, "cluster.node_usage_seconds=0")
    inline_runs.train("alone", *options, inline=True)
    watched = inline_runs.folder / "watched"
    with ExitStack() as stack:

        def start():
            return stack.enter_context(
                subprocess.Popen([TRANSLOOM, "watch", watched], stdout=subprocess.PIPE, text=True)
            )

        watchers = []

        def strike():
            watchers.extend(start() for _ in range(3))
            for watcher in watchers:
                assert "training" in watcher.stdout.readline()  # the watcher has read the folder
            os.kill(watchers[0].pid, signal.SIGKILL)
            os.kill(watchers[1].pid, signal.SIGSTOP)

        at_step(3, strike)
        try:
            result = inline_runs.train("watched", *options, inline=True)
            told = watchers[2].stdout.read()  # waits for the watcher's end
            codes = [watchers[number].wait() for number in (0, 2)]
        finally:
            for watcher in watchers:
                watcher.kill()
    assert result.outcome == "finished"
    assert inline_runs.digests("watched") == inline_runs.digests("alone")
    assert inline_runs.curve("watched") == inline_runs.curve("alone")
    assert _files(watched) == _files(inline_runs.folder / "alone")
    assert codes == [-signal.SIGKILL, 0]
    assert "finished: trained to step 8" in told
    vitals = run_status_of(watched).vitals
    assert vitals.over
    assert [(rank.phase, rank.step) for rank in vitals.ranks] == [("done", 8)]


def _files(run):
    """Return the names of all files in a run's folder, without those of owners."""
    return sorted(
        str(path.relative_to(run)) for path in run.rglob("*") if "owners" not in path.parts
    )
