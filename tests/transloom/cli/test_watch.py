"""`transloom watch`: show a run or a folder of runs from its files until training ends.

In each pause of the watcher, the next event of a test happens to the run.
"""

import io
import json
import os
import re
import signal
import time

import pytest
from support.launchers.job_records import a_record
from support.records.lines import train_line, validation_line
from support.records.run_folders import (
    dead_process,
    made_run,
    with_checkpoint,
    with_owner,
    with_status,
)

from cluster.launchers.ray_job import job_summary
from cluster.launchers.ray_job.job_record import JobFolder
from cluster.launchers.ray_job.job_summary import newest_job_of
from foundation.terminal import Terminal
from run_store.errors import RunMismatchError
from run_store.record.metrics_lines import Preempted
from run_store.record.vitals import RankVitals, Vitals
from transloom.cli import watch as watch_module
from transloom.cli.watch import show_feed
from transloom.observe.terminal import run_feed
from transloom.observe.terminal.run_feed import FolderFeed, RunFeed

ATTACK = "\x1b]0;owned\x07\u202e[red]"
AWAY, BACK = "\x1b[?1049h", "\x1b[?1049l"  # the terminal's alternate screen


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def run(tmp_path):
    return with_owner(made_run(tmp_path / "run", train_line(1), train_line(2)))


@pytest.fixture
def happens(monkeypatch):
    """Return a function that takes events and runs one in each pause of the watcher."""
    monkeypatch.setattr(run_feed, "FOLDER_SECONDS", 0.0)

    def these(*events):
        left = list(events)
        monkeypatch.setattr(watch_module.time, "sleep", lambda seconds: left.pop(0)())

    return these


def append(run, *lines, text=""):
    with (run / "metrics.jsonl").open("a") as record:
        record.write("".join(f"{line.to_json()}\n" for line in lines) + text)
    with_status(run)


def say(run, text, at="2026-01-01T00:00:00.000+00:00"):
    with (run / "log.txt").open("a") as log:
        log.write(f"{at} {text}\n")
    with_status(run)


def leave(run):
    owner = next((run / "owners").glob("*.json"))
    owner.rename(owner.with_suffix(".released"))
    with_status(run)


def finish(run, step=20):
    with_checkpoint(run, step)
    leave(run)


def beat(run, **fields):
    rank = RankVitals(rank=0, node="a", phase="step", step=2, silent_seconds=0.1)
    with_status(run, vitals=Vitals(**{"time": time.time(), "ranks": (rank,)} | fields))


def watched(feed, terminal=False, once=False, width=80):
    console = Terminal(file=io.StringIO(), force_terminal=terminal, width=width)
    show_feed(feed, console, once=once)
    return console.file.getvalue()


def picture_of(feed, width=100):
    return watched(feed, once=True, width=width)


def test_watch_prints_plain_lines_to_a_pipe_until_the_run_ends(run, happens):
    happens(
        lambda: append(run, train_line(3), validation_line(3), Preempted(step=3)),
        lambda: say(run, "checkpoint of step 3 is complete"),
        lambda: finish(run),
    )
    lines = watched(RunFeed(run)).split("\n")
    assert lines[0].startswith(f"{run}: step 2 of 20, training, by process {os.getpid()}")
    assert lines[1].startswith("step 3 of 20  training loss 0.333")
    assert lines[2].startswith("step 3: validation loss 2.000")
    assert lines[3] == "checkpoint of step 3 is complete"
    assert lines[4].endswith("step 20 of 20, finished: trained to step 20")
    assert lines[5:] == [""]


def test_watch_shows_lines_that_the_owner_wrote_just_before_it_exited(run, happens):
    def end():
        append(run, train_line(3))
        say(run, "the last words")
        finish(run)

    happens(end)
    said = watched(RunFeed(run))
    assert "step 20 of 20  training loss 0.333" in said
    assert "the last words" in said


def test_watch_restores_the_terminal_when_the_run_ends(run, happens):
    happens(lambda: append(run, train_line(3)), lambda: finish(run))
    said = watched(RunFeed(run), terminal=True)
    before, _, after = said.partition(BACK)
    assert before.count(AWAY) == 1
    assert "\x1b[?25h" in said[said.rindex("\x1b[?25l") :]  # the cursor is shown again
    assert "finished" in after


def test_ctrl_c_ends_watch_and_restores_the_terminal(run, happens):
    def interrupt():
        raise KeyboardInterrupt

    happens(interrupt)
    said = watched(RunFeed(run), terminal=True)
    after = said.partition(BACK)[2]
    assert "step 2 of 20, training" in after
    happens(interrupt)
    assert watched(RunFeed(run)).count("\n") == 1


def test_watch_restores_the_terminal_on_sigterm(run, happens):
    happens(lambda: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    console = Terminal(file=io.StringIO(), force_terminal=True)
    with pytest.raises(SystemExit) as ended:
        show_feed(RunFeed(run), console, once=False)
    assert ended.value.code == 128 + signal.SIGTERM
    assert BACK in console.file.getvalue()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_watch_prints_plain_lines_to_a_dumb_terminal(run, happens, monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    happens(lambda: finish(run))
    assert "\x1b" not in watched(RunFeed(run), terminal=True)


def test_watch_shows_the_same_without_colours(run, monkeypatch):
    finish(run)
    coloured = watched(RunFeed(run), terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = watched(RunFeed(run), terminal=True)
    assert "\x1b[36m" in coloured
    assert "\x1b[36m" not in plain
    assert "finished" in plain


@pytest.mark.parametrize("state", ["finished", "stopped", "failed", "abandoned", "damaged"])
def test_watch_shows_the_state_of_a_run_that_does_not_train(run, state):
    if state == "abandoned":
        with_owner(run, process=dead_process())
    elif state == "finished":
        finish(run)
    else:
        leave(run)
    if state == "failed":
        say(run, "the run has ended: The loss is not finite", at="2100-01-01T00:00:00.000+00:00")
    if state == "damaged":
        (run / "run.json").write_text("{")
        with_status(run)
    lines = picture_of(RunFeed(run)).split("\n")
    assert lines[1].split()[1] == state + (":" if state != "stopped" else "")
    assert any(line.startswith("step ") for line in lines[2:])


def test_heartbeats_are_shown_only_while_the_owner_lives(run):
    beat(run)
    assert "rank 0 step 2, heartbeat " in picture_of(RunFeed(run))
    with_owner(run, process=dead_process())
    assert "heartbeat" not in picture_of(RunFeed(run)).split("\nranks")[1]


def test_new_vitals_are_read_while_the_run_is_watched(run):
    feed = RunFeed(run)
    beat(run, checkpoint_being_written=7)
    feed.poll()
    assert "step 7 is being written" in picture_of(feed)


@pytest.mark.parametrize(
    "harm",
    [
        lambda run: (run / "status.json").write_text('{"time": 1'),
        lambda run: (run / "log.txt").mkdir(),
        lambda run: os.truncate(run / "metrics.jsonl", 100),
        lambda run: append(run, text="{}\n\x00\n"),
        lambda run: (run / "metrics.jsonl").unlink(),
        lambda run: (run / "recipe.yaml").unlink(),
        lambda run: (run / "run.json").unlink(),
        lambda run: (run / "status.json").unlink() or os.mkfifo(run / "status.json"),
    ],
    ids=["status", "log", "cut", "lines", "record", "recipe", "card", "fifo"],
)
def test_watch_continues_if_a_file_of_the_run_is_damaged(run, happens, harm):
    happens(
        lambda: harm(run),
        lambda: append(run, train_line(5)),
        lambda: append(run, train_line(6)),
        lambda: finish(run),
    )
    said = watched(RunFeed(run), terminal=True)
    assert re.search(r"step +\S+  \S+6( of 20|\W)", said)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda run: (run / "status.json").write_text('{"time": 1'), "status.json is damaged"),
        (lambda run: append(run, text='{"kind": "train"}\n'), "metrics.jsonl"),
        (lambda run: (run / "log.txt").mkdir() or with_status(run), "log.txt cannot be read"),
    ],
    ids=["status", "lines", "log"],
)
def test_watch_reports_unreadable_files(run, happens, harm, told):
    happens()  # sets FOLDER_SECONDS to 0, so that each poll reads the status
    feed = RunFeed(run)
    harm(run)
    for _ in range(3):
        feed.poll()
    assert told in " ".join(picture_of(feed, width=300).split())


def test_watch_continues_after_files_were_temporarily_missing(run, happens):
    away = run.with_name("away")
    happens(
        lambda: (run / "status.json").rename(run / "kept") and (run / "owners").rename(away),
        lambda: (run / "kept").rename(run / "status.json") and away.rename(run / "owners"),
        lambda: append(run, train_line(7)),
        lambda: finish(run),
    )
    assert "step 7 of 20  " in watched(RunFeed(run))


def test_watch_follows_a_waiting_job_until_its_run_ends(tmp_path, happens):
    path = tmp_path / "run"
    folder = JobFolder.of(path, "tiny-1")
    folder.path.mkdir(parents=True)
    folder.write(a_record(path, id="tiny-1", state="WAITING", waits_for="capacity: it needs 8 CPU"))
    feed = RunFeed(path, lambda: newest_job_of(path))
    assert not feed.is_over
    said = picture_of(feed)
    assert said.split("\n")[1].split()[:3] == ["state", "waiting:", "capacity:"]
    assert "waits for capacity: it needs 8 CPU" in said
    assert "problem" not in said

    def begin():
        folder.write(a_record(path, id="tiny-1", state="RUNNING"))
        made_run(path, train_line(1))
        with_owner(path)

    def end():
        finish(path)
        folder.write(a_record(path, id="tiny-1", state="SUCCEEDED"))

    happens(begin, end)
    lines = watched(feed).split("\n")
    assert lines[0] == f"{path}: step 0, waiting: capacity: it needs 8 CPU"
    assert any(line.startswith("step 1 of 20  ") for line in lines)
    assert any(line.startswith(f"{path}: step 1 of 20, training, by process") for line in lines)
    assert "finished" in lines[-2]


def test_watch_shows_the_best_score_of_a_long_record_and_updates_it(tmp_path):
    lines = [train_line(n) for n in range(1, 3000)]
    lines.insert(100, validation_line(100, bleu=40.0))
    run = with_owner(made_run(tmp_path / "run", *lines, validation_line(2999, bleu=30.0)))
    feed = RunFeed(run)
    assert "BLEU (greedy) 40.0 (step 100)" in picture_of(feed, width=200)
    append(run, validation_line(3000, bleu=50.0), validation_line(3001, bleu=45.0))
    feed.poll()
    assert "BLEU (greedy) 50.0 (step 3,000)" in picture_of(feed, width=200)


def test_watch_json_has_the_state_step_and_ranks(run):
    beat(run)
    told = json.loads(json.dumps(RunFeed(run).to_json()))
    assert told["standing"]["state"] == "training"
    assert told["standing"]["step"] == 2
    assert told["standing"]["vitals"]["ranks"][0]["phase"] == "step"


def test_watch_escapes_control_characters_in_names_and_texts(tmp_path, happens):
    run = with_owner(made_run(tmp_path / f"run{ATTACK}", validation_line(1, text=ATTACK)))
    beat(run, ranks=(RankVitals(rank=0, node=ATTACK, phase="step", step=1, silent_seconds=0),))
    say(run, ATTACK)
    happens(lambda: say(run, ATTACK, at=f"2026-01-01T00:00:01.000+00:00 {ATTACK}"))
    happens(lambda: append(run, validation_line(2, text=ATTACK)), lambda: finish(run))
    said = watched(RunFeed(run)) + picture_of(RunFeed(run)) + picture_of(FolderFeed(tmp_path))
    assert "\x1b" not in said
    assert "\u202e" not in said


@pytest.fixture
def folder(tmp_path):
    """Return a folder of three runs: one in training, one failed, one finished."""
    folder = tmp_path / "runs"
    with_owner(made_run(folder / "trains", train_line(1), validation_line(1)))
    finish(with_owner(made_run(folder / "done", train_line(1))))
    failed = with_owner(made_run(folder / "failed", train_line(1)))
    leave(failed)
    say(failed, "the run has ended: The loss is not finite", at="2100-01-01T00:00:00.000+00:00")
    (folder / "notes.txt").write_text("no run")
    return folder


def test_watch_shows_a_folder_as_a_table_with_training_runs_first(folder):
    lines = picture_of(FolderFeed(folder), width=160).split("\n")
    assert lines[0].endswith(": 3 runs, 1 under way")
    assert lines[1].split()[:3] == ["run", "state", "step"]
    assert lines[2].split()[:4] == ["trains", "training", "1", "of"]
    assert {line.split()[0] for line in lines[3:5]} == {"done", "failed"}


@pytest.mark.parametrize("height", [6, 10, 24])
def test_a_table_of_many_runs_fits_the_terminal(tmp_path, height):
    for number in range(30):
        made_run(tmp_path / f"{number}", train_line(1))
    console = Terminal(file=io.StringIO(), width=120)
    console.print(FolderFeed(tmp_path), crop=False, height=height)
    lines = console.file.getvalue().split("\n")[:-1]
    assert len(lines) <= height
    assert f"… {30 - height + 4} older ones" in " ".join(lines[-2:])


def test_the_feed_of_a_folder_rereads_only_training_and_changed_runs(folder, monkeypatch):
    monkeypatch.setattr(run_feed, "FOLDER_SECONDS", 0.0)
    feed = FolderFeed(folder)
    read = []
    run_status_of = job_summary.run_status_of
    monkeypatch.setattr(
        job_summary, "run_status_of", lambda path: read.append(path.name) or run_status_of(path)
    )
    feed.poll()
    assert read == ["trains"]
    append(folder / "done", train_line(2))
    feed.poll()
    assert read == ["trains", "done", "trains"]


def test_watch_prints_a_folder_again_whenever_a_state_changes(folder, happens):
    happens(
        lambda: with_owner(made_run(folder / "new", train_line(1))),
        lambda: append(folder / "new", train_line(2)),
        lambda: finish(folder / "trains"),
        lambda: leave(folder / "new"),
    )
    tables = watched(FolderFeed(folder), width=200).split(f"{folder}: ")[1:]
    assert [table.partition("\n")[0] for table in tables] == [
        "3 runs, 1 under way",
        "4 runs, 2 under way",
        "4 runs, 1 under way",
        "4 runs, 0 under way",
    ]
    states = [dict(line.split()[:2] for line in table.split("\n")[2:-1]) for table in tables]
    assert states[1] == {**states[0], "new": "training"}
    assert states[3] == {**states[0], "new": "stopped", "trains": "finished"}


def test_watch_refuses_a_missing_folder(tmp_path):
    with pytest.raises(
        RunMismatchError,
    ):
        FolderFeed(tmp_path / "nothing")
