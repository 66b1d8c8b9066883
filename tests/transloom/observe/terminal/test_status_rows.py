"""The rows of a run's status: their texts about processes, jobs and findings, and order."""

import io
import re
import time

import pytest
from rich.cells import cell_len
from support.launchers.job_records import a_record
from support.records.lines import COMPARED, corruption_found, skipped_line, train_line
from support.records.lines import validation_line as validation
from support.records.run_folders import made_run, with_checkpoint, with_owner, with_status

from cluster.launchers.ray_job.job_record import Attempt
from cluster.launchers.ray_job.job_summary import JobSummary, with_job
from foundation.terminal import Terminal
from run_store.record.run_status import run_status_of
from run_store.record.vitals import DataWorkerVitals, RankVitals, Restart, Vitals
from transloom.observe.terminal.run_feed import RunFeed
from transloom.observe.terminal.run_status_text import numbers, rank_rows, status_rows, status_text

NOW = 1_800_000_000.0
ATTACK = "\x1b]0;owned\x07\u202e[red]"


def rank(number, node="a", phase="step", step=7, silent=0.5):
    return RankVitals(rank=number, node=node, phase=phase, step=step, silent_seconds=silent)


def worker(number, alive=True, silent=0.5):
    return DataWorkerVitals(number=number, alive=alive, windows_read=4, silent_seconds=silent)


def vitals(*ranks, **fields):
    return Vitals(**{"time": NOW - 1, "ranks": ranks} | fields)


def a_run(tmp_path, *lines, **fields):
    run = with_owner(made_run(tmp_path / "run", *(lines or (train_line(7), validation(7)))))
    return with_status(run, vitals=vitals(rank(0), rank(1), **{"time": time.time()} | fields))


def texts(run, label, job=None):
    rows = status_rows(with_job(run_status_of(run), job), job)
    return [row.text for row in rows if row.label == label]


def rank_texts(*ranks, **fields):
    return [(row.label.strip(), row.text) for row in rank_rows(vitals(*ranks, **fields), NOW)]


def test_ranks_are_grouped_by_node_and_phase():
    ranks = [rank(n, node="ab"[n // 4]) for n in range(7)]
    assert rank_texts(*ranks, rank(7, "b", "validation", 6)) == [
        ("a", "ranks 0–3 step 7, heartbeat 1.5 s ago"),
        (
            "b",
            "ranks 4–6 step 7, heartbeat 1.5 s ago; "
            "rank 7 validation of step 6, heartbeat 1.5 s ago",
        ),
    ]
    assert numbers([5, 0, 2, 1]) == "0–2, 5"


def test_silent_ranks_are_listed_first_unless_they_are_starting():
    ranks = (rank(0), rank(1, "b", "save", 6, silent=65.0), rank(2, "c", "start", silent=99.0))
    (silent, _, starting) = rank_texts(*ranks)
    assert silent == ("b", "rank 1 silent for 1 min 6 s, in saving of step 6")
    assert starting[1].startswith("rank 2 starting, ")


def test_old_vitals_are_marked_with_their_age():
    assert rank_texts(rank(0), time=NOW - 60)[0][1].startswith("1 min old, but")
    assert len(rank_texts(rank(0))) == 1


def test_a_silent_data_worker_is_reported():
    workers = (worker(0), worker(1, alive=False, silent=30.0))
    told = ("data workers", "2, 8 windows read; worker 1 silent for 31 s")
    assert rank_texts(rank(0), data_workers=workers)[-1] == told


def test_messages_of_the_owner_are_shown_only_while_it_trains(tmp_path):
    restarts = tuple(Restart(time=NOW, cause=f"cause {n}") for n in range(9))
    left_out = ("Node b is slow (3 GFLOP/s; the other: 90 GFLOP/s)",)
    run = a_run(
        tmp_path,
        restarts=restarts,
        unfit_nodes=left_out,
        checkpoint_being_written=20,
        memory_checkpoint=18,
        supervisor="waiting_for_capacity",
    )
    assert [text.split("  ")[1] for text in texts(run, "restarted")] == [
        f"cause {n}" for n in (6, 7, 8)
    ]
    assert texts(run, "left out") == [*left_out]
    assert texts(run, "checkpoint")[-1] == "step 20 is being written"
    assert texts(run, "in memory")[0].startswith("step 18,")
    assert texts(run, "supervisor") == ["waiting for capacity"]
    next((run / "owners").glob("*.json")).rename(run / "owners" / "1.released")
    with_status(run)
    for label in ("restarted", "left out", "in memory", "supervisor", "  a"):
        assert texts(run, label) == []
    assert texts(run, "checkpoint") == ["none"]


def test_the_rows_of_a_waiting_job_say_what_it_waits_for(tmp_path):
    run = made_run(tmp_path / "run", train_line(1))
    died = Attempt(started=1.0, ended=2.0, exit_code=1, why="again", first_line=1, first_byte=0)
    now = Attempt(started=3.0, first_line=2, first_byte=9)
    record = a_record(
        run, id="tiny-1", state="WAITING", waits_for="room: it needs 8 CPU", attempts=(died, now)
    )
    job = JobSummary(None, record)
    assert texts(run, "state", job) == ["waiting: room: it needs 8 CPU"]
    told, restart = texts(run, "job", job)
    assert told == "tiny-1: waiting, waits for room: it needs 8 CPU"
    assert restart.endswith("restarted after exit code 1: again")
    assert texts(run, "state") == ["stopped"]
    again = JobSummary(None, record.model_copy(update={"state": "RUNNING", "waits_for": None}))
    assert texts(run, "state", again) == ["waiting: its job is running"]
    ended = JobSummary(None, record.model_copy(update={"state": "STOPPED"}))
    assert texts(run, "state", ended) == ["stopped"]
    with_checkpoint(run, 20)
    assert texts(run, "state", again) == ["finished: trained to step 20"]
    assert texts(run, "state", job) == ["waiting: room: it needs 8 CPU"]


def test_slow_ranks_and_corruption_have_rows(tmp_path):
    slow = train_line(8, wait_seconds=0.25, world_size=3, slow_ranks=COMPARED["slow_ranks"])
    found = corruption_found(6, nodes=(f"far{ATTACK}",))
    run = a_run(tmp_path, train_line(6), found, skipped_line(7, skipped_steps=3), slow)
    assert "rank 2 on node-2: 2 times as long" in texts(run, "slow")[0]
    assert "rank 1 on node far" in texts(run, "corruption")[0]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_a_terminal_shows_the_most_important_rows(tmp_path, monkeypatch, width, height):
    lines = [train_line(n, loss=9.0 - n, time=time.time() - 20 + n) for n in range(1, 9)]
    lines += [validation(8, text="sentence " * 30)]
    run = a_run(
        tmp_path,
        *lines,
        ranks=tuple(rank(n, f"node-{n // 2}") for n in range(4)),
        restarts=tuple(Restart(time=NOW, cause="cause " * 40) for _ in range(9)),
    )
    entries = [f"2026-01-01T00:00:0{n}.000+00:00 event {n} {'x' * 300}\n" for n in range(9)]
    (run / "log.txt").write_text("".join(entries))
    with_status(run)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LINES", str(height))
    console = Terminal(file=io.StringIO(), force_terminal=True, width=width)
    console.print(RunFeed(run), crop=False, height=height)
    shown = re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue()).split("\n")[:-1]
    assert len(shown) <= height
    assert {cell_len(line.rstrip()) <= width for line in shown} == {True}
    for label, part in (
        ("state", "training"),
        ("step", "8 of 20"),
        ("loss", "█▇▆▅▄▃▂▁"),
        ("training loss", "1.000"),
        ("speed", "10 target tokens/s"),
        ("newest scores", "BLEU 30.0"),
        ("  node-1", "ranks 2–3 step 7"),
        ("at 2026-01-01 05:45:08", "event 8"),  # local time
    ):
        (row,) = (line for line in shown if line.startswith(f"{label}  "))
        assert part in row


def test_rows_are_folded_in_a_pipe(tmp_path):
    run = a_run(tmp_path, restarts=(Restart(time=NOW, cause="漢" * 400),))
    console = Terminal(file=io.StringIO(), force_terminal=False, width=60)
    console.print(RunFeed(run))
    assert max(map(cell_len, console.file.getvalue().split("\n"))) <= 60
    assert console.file.getvalue().count("漢") == 400


def test_control_characters_do_not_reach_the_terminal(tmp_path):
    run = a_run(
        tmp_path,
        ranks=(rank(0, ATTACK),),
        restarts=(Restart(time=NOW, cause=ATTACK),),
        unfit_nodes=(ATTACK,),
    )
    (run / "log.txt").write_text(f"2026-01-01T00:00:00.000+00:00 {ATTACK}\n")
    with_status(run)
    ended = Attempt(started=1.0, ended=2.0, exit_code=1, why=ATTACK, first_line=1, first_byte=0)
    fields = {"id": ATTACK, "state": "WAITING", "waits_for": ATTACK, "message": ATTACK}
    job = JobSummary(None, a_record(run, **fields, attempts=(ended, ended)))
    console = Terminal(file=io.StringIO(), width=200)
    console.print(RunFeed(run, lambda: job))
    console.print(status_text(run_status_of(run)))
    said = console.file.getvalue()
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "\\x1b]0;owned" in said
