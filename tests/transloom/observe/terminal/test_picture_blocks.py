"""What of a run is shown, at any width and height, with and without colours."""

import io
from itertools import takewhile

import pytest
from rich.cells import cell_len
from support.records.lines import (
    COMPARED,
    SPIKE_FIELDS,
    corruption_found,
    skipped_line,
    train_line,
    validation_line,
)

from cluster.terminal import Terminal
from trainer.checkpoints.checkpoint_status import CheckpointStatus
from trainer.record.metrics_lines import Resumed
from trainer.record.run_status_model import LossForm
from trainer.runs.log import LogEntry
from trainer.runs.vitals import DataWorkerVitals, RankVitals, Restart, Vitals
from trainer.scores import Score
from transloom.observe.terminal.picture_blocks import SLOW_RANKS, blocks_of, drawn
from transloom.observe.terminal.picture_layout import Picture, fitted
from transloom.observe.terminal.run_picture import JobPicture, RunPicture

NOW = 1_700_000_000.0
ATTACK = "\x1b]0;owned\x07\u202e[red]\n"


def rank(number, node="a", phase="step", step=7, silent=0.5):
    return RankVitals(rank=number, node=node, phase=phase, step=step, silent_seconds=silent)


def worker(number, node="a", alive=True, read=4, silent=0.5):
    return DataWorkerVitals(
        number=number, node=node, alive=alive, windows_read=read, silent_seconds=silent
    )


def vitals(*ranks, **fields):
    return Vitals(**{"time": NOW - 1, "ranks": ranks, "data_workers": (worker(0),)} | fields)


def a_run(*lines, text="x", **fields):
    picture = RunPicture(f"runs/{text}", max_steps=20, nodes={"a": 2})
    for line in lines or (train_line(6), train_line(7), validation_line(7, text=text)):
        picture.line(line)
    picture.vitals, picture.vitals_are_current = vitals(rank(0), rank(1)), True
    for name, value in fields.items():
        setattr(picture, name, value)
    return picture


def text_of(picture, width=100, height=None, encoding="utf-8"):
    console = Terminal(file=io.TextIOWrapper(io.BytesIO(), encoding), width=width)
    blocks = blocks_of(picture, width, NOW)
    console.print(
        Picture(lambda console, width, height: fitted(blocks, console, width, height)),
        crop=False,
        height=height,
    )
    console.file.flush()
    return console.file.buffer.getvalue().decode(encoding).rstrip("\n")


def row_of(picture, label, **options):
    """The rows of a label, in one line."""
    lines = text_of(picture, **options).split("\n")
    first = next(n for n, line in enumerate(lines) if line.startswith(label))
    following = takewhile(lambda line: line.startswith(" " * 16), lines[first + 1 :])
    return " ".join(" ".join([lines[first], *following]).split())


def test_the_numbers_of_a_run():
    picture = a_run(
        train_line(1, loss=4.0, grad_norm=9.0),
        train_line(2, loss=3.0, restarts=1),
        train_line(3, loss=2.0, data_stall_seconds=0.25, restarts=1, learning_rate=1e-4),
        validation_line(3, loss=2.0, bleu=31.25),
        skipped_line(4, skipped_steps=3),
    )
    assert "4 of 20" in row_of(picture, "step")
    assert "20.0% 16 s left" in row_of(picture, "step")
    assert row_of(picture, "training loss") == "training loss 2.000 █▅▁"
    assert row_of(picture, "training NLL") == "training NLL 0.300 █▃▁"
    assert "31.2 ▁ best 31.2 at step 3" in row_of(picture, "BLEU (greedy)")
    assert "1.00e-04" in row_of(picture, "learning rate")
    assert "3 steps skipped" in row_of(picture, "gradient norm")
    shares = row_of(picture, "shares")
    assert "waiting for data 25.0%, waiting for checkpoints 0.0% of the last 1 step" in shares


def test_slow_ranks_are_named_with_their_cause_while_the_run_trains():
    line = train_line(3, wait_seconds=0.25, world_size=3, slow_ranks=COMPARED["slow_ranks"])
    picture = a_run(train_line(2, wait_seconds=0.25), line)
    assert row_of(picture, "slow") == (
        "slow rank 2 on node-2: 2 times as long as the others, because it computes longer"
    )
    assert "waiting for other ranks 25.0%" in row_of(picture, "shares")
    assert "\nslow" not in text_of(a_run(line, state="stopped"))
    assert "\nslow" not in text_of(a_run(line, Resumed(step=3, from_step=3, restarts=1)))
    assert "\nslow" not in text_of(a_run(line, train_line(4)))
    many = [state.model_copy(update={"rank": n}) for n in range(9) for state in line.slow_ranks]
    rows = text_of(a_run(line.model_copy(update={"slow_ranks": many}))).split("\n")
    assert sum("as long as the others" in row for row in rows) == SLOW_RANKS


def test_refused_steps_are_counted_among_the_skipped_ones():
    picture = a_run(
        train_line(1), skipped_line(2, skipped_steps=3, skipped_spikes=1, **SPIKE_FIELDS)
    )
    assert "3 steps skipped, 1 refused" in row_of(picture, "gradient norm")


def test_a_smoothed_loss_is_named_so_and_stands_beside_the_nll():
    smoothed = LossForm("label", smooths_labels=True)
    picture = a_run(train_line(1, loss=1.168, nll=0.07), loss_form=smoothed)
    assert row_of(picture, "training loss") == "training loss 1.168 ▁ smoothed"
    assert row_of(picture, "training NLL") == "training NLL 0.070 ▁"
    assert row_of(picture, "speed") == "speed 20 ▁ labels/s"
    said = text_of(a_run(train_line(1, loss=0.07, nll=0.07), loss_form=smoothed))
    assert "\ntraining loss        0.070" in said
    assert "NLL" not in said


def test_a_decoding_without_room_leaves_the_measures_name_whole():
    exact = Score(value=1.5, more_is_better=True, decoding="greedy")
    line = validation_line(7).model_copy(update={"scores": {"exact_matches": exact}})
    assert "\nexact_matches " in text_of(a_run(line))


def test_goodput_with_what_it_was_lost_to():
    line = train_line(3, goodput=0.913, wall_seconds=3661.0, restarts=2, lost_steps=14)
    said = row_of(a_run(line), "goodput")
    assert said == "goodput 91.3% of 1 h 1 min; 2 restarts, 14 steps trained again"


def test_a_run_that_makes_no_step_says_since_when():
    usual = [train_line(n, time=NOW - 100 + n) for n in (1, 2, 3)]
    assert row_of(a_run(*usual), "waits") == "waits no new step for 1 min 37 s"
    assert "waits " not in text_of(a_run(*usual, state="finished"))
    slow = [train_line(n, time=NOW - 150 + 50 * n) for n in (1, 2)]
    assert "waits " not in text_of(a_run(*slow))


def test_ranks_are_told_by_node_and_phase():
    ranks = [rank(n, node="ab"[n // 4]) for n in range(7)]
    picture = a_run(vitals=vitals(*ranks, rank(7, "b", "validation", 6)))
    said = row_of(picture, "ranks")
    assert "a ranks 0–3 step 7 heartbeat 1.5 s ago" in said
    assert "b ranks 4–6 step 7; rank 7 validation of step 6 heartbeat" in said


def test_a_silent_rank_is_told_first_and_in_words():
    picture = a_run(vitals=vitals(rank(0), rank(1, "b", "save", 6, silent=65.0)))
    said = row_of(picture, "ranks")
    assert said.startswith(
        "ranks b rank 1 silent for 1 min 6 s, in saving of step 6 a rank 0 step 7"
    )


def test_ranks_of_a_dead_owner_do_not_look_alive():
    said = row_of(a_run(state="abandoned", vitals_are_current=False), "ranks")
    assert said.startswith("ranks none; at ")
    assert "heard" not in said
    said = row_of(a_run(state="finished", vitals_are_current=False), "ranks")
    assert said.startswith("ranks none; until ")
    assert said.endswith("2 on a")
    assert "data workers" not in text_of(a_run(state="stopped", vitals_are_current=False))


def test_vitals_that_are_not_renewed_say_so():
    old = vitals(rank(0), time=NOW - 60)
    assert "vitals.json is 1 min old" in row_of(a_run(vitals=old), "ranks")


def test_runs_without_vitals_tell_where_the_ranks_were_put():
    assert row_of(a_run(vitals=None), "ranks") == "ranks 2 on a"
    nowhere = a_run(vitals=None, nodes={}, state="stopped")
    assert row_of(nowhere, "ranks") == "ranks none"
    waits = a_run(vitals=vitals())
    assert row_of(waits, "ranks") == "ranks none at present"


def test_the_state_of_the_supervisor_is_shown_unless_ranks_train():
    waits = vitals(supervisor="waiting_for_capacity")
    assert row_of(a_run(vitals=waits), "supervisor") == "supervisor waiting for capacity"
    assert row_of(a_run(vitals=waits), "ranks") == "ranks none at present"
    assert "supervisor" not in text_of(a_run())
    left = a_run(vitals=waits, vitals_are_current=False, state="abandoned")
    assert "supervisor" not in text_of(left)


def test_a_silent_data_worker_is_told():
    workers = (worker(0), worker(1, alive=False, silent=30.0), worker(2, node=None))
    said = row_of(a_run(vitals=vitals(rank(0), data_workers=workers)), "data workers")
    assert "2 on a (8 windows read), where worker 1 has been silent for 31 s" in said
    assert "1 without a heartbeat yet" in said


def test_checkpoints_that_are_written_complete_and_damaged():
    checkpoints = [
        CheckpointStatus(step=15, time=NOW - 30, bytes=1_230_000),
        CheckpointStatus(step=10, time=NOW - 300, problem="it has 2 bytes"),
        CheckpointStatus(step=5, time=NOW - 600),
    ]
    writing = vitals(rank(0), checkpoint_being_written=20)
    said = row_of(a_run(checkpoints=checkpoints, vitals=writing), "checkpoints")
    assert "step 20 is being written" in said
    assert "complete: step 15 (1.2 MB, 30.0 s ago); earlier: 5" in said
    assert "step 10 is damaged: it has 2 bytes" in said
    in_memory = a_run(checkpoints=checkpoints, vitals=vitals(rank(0), memory_checkpoint=18))
    assert "in memory: step 18" in row_of(in_memory, "checkpoints")
    dead = a_run(vitals=writing, vitals_are_current=False, state="abandoned")
    assert "being written" not in text_of(dead)


def test_restarts_have_causes_newest_first():
    restarts = (Restart(time=NOW - 90, cause="older"), Restart(time=NOW - 9, cause="newer"))
    said = row_of(a_run(vitals=vitals(rank(0), restarts=restarts)), "restarts")
    assert said.index("newer") < said.index("older")


def test_nodes_that_are_left_out_are_named_while_the_run_is_trained():
    left_out = vitals(rank(0), unfit_nodes=("Node b is slow (3 GFLOP/s; the other: 90 GFLOP/s)",))
    assert "Node b is slow (3 GFLOP/s" in row_of(a_run(vitals=left_out), "left out")
    ended = a_run(vitals=left_out, vitals_are_current=False, state="abandoned")
    assert "left out" not in text_of(ended)


def test_a_job_that_waits_says_what_for():
    job = JobPicture("tiny-1", "waiting", True, waits_for="room: it needs 8 CPU")
    picture = RunPicture("runs/x", state="waiting", job=job)
    said = text_of(picture)
    assert said.startswith("waiting ")
    assert "tiny-1: waiting, waits for room: it needs 8 CPU" in said


@pytest.mark.parametrize("width", [60, 80, 200])
def test_samples(width):
    line = validation_line(7, text="ein Satz")
    said = text_of(a_run(train_line(7), line), width).split("\n")
    assert said[-2:] == ["sample, 7       ein Satz", "  translation   ein Satz"]
    (sample,) = line.samples
    other = sample.model_copy(update={"reference": "ein anderer Satz"})
    said = text_of(a_run(line.model_copy(update={"samples": [other]})), width).split("\n")
    assert said[-1] == "  reference     ein anderer Satz"


def everything():
    return a_run(
        *(train_line(n, time=NOW - 200 + n) for n in range(1, 200)),
        *(validation_line(n, text="sentence " * 30) for n in range(10, 200, 10)),
        job=JobPicture("j", "running", True, restarts=("again " * 40,) * 9),
        reason="why " * 100,
        problems=["a problem " * 30] * 5,
        vitals=vitals(
            *(rank(n, f"node-{n // 8}") for n in range(64)),
            restarts=(Restart(time=NOW, cause="cause " * 40),) * 9,
            data_workers=tuple(worker(n, f"node-{n}") for n in range(30)),
        ),
        checkpoints=[CheckpointStatus(step=n, time=NOW, problem="bad " * 40) for n in range(6)],
        notices=[LogEntry(time="2026-01-01T00:00:00+00:00", text="notice " * 40)] * 12,
    )


@pytest.mark.parametrize("width", [20, 60, 80, 200])
@pytest.mark.parametrize("height", [1, 10, 23, 49])
def test_a_picture_fits_the_terminal(width, height, monkeypatch):
    console = Terminal(file=io.StringIO(), width=width)
    console.print(drawn(everything()), crop=False, height=height)
    lines = console.file.getvalue().split("\n")[:-1]
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    assert lines[0].startswith("training")


def test_in_a_small_terminal_the_most_important_is_left():
    said = text_of(everything(), 80, 10)
    for label in (
        "training",
        "why",
        "step",
        "training loss",
        "BLEU",
        "ranks",
        "checkpoints",
        "restarts",
    ):
        assert f"\n{label}" in f"\n{said}"


def test_plain_ascii_for_a_terminal_that_has_no_more():
    said = text_of(a_run(train_line(1, loss=2.0), train_line(2, loss=1.0)), encoding="ascii")
    assert "training loss 1.000 #_" in " ".join(said.split())
    assert said.isascii()


def test_nothing_in_it_steers_a_terminal():
    picture = a_run(
        text=ATTACK,
        owner=ATTACK,
        reason=ATTACK,
        problems=[ATTACK],
        job=JobPicture(ATTACK, ATTACK, True, ATTACK, ATTACK, (ATTACK,)),
        vitals=vitals(
            rank(0, ATTACK),
            data_workers=(worker(0, ATTACK),),
            restarts=(Restart(time=NOW, cause=ATTACK),),
            unfit_nodes=(ATTACK,),
        ),
        checkpoints=[CheckpointStatus(step=1, time=NOW, problem=ATTACK)],
        notices=[LogEntry(time=ATTACK, text=ATTACK)],
    )
    said = text_of(picture)
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "\\x1b]0;owned" in said


def test_corruption_is_shown_as_long_as_the_run_is():
    picture = a_run(train_line(6), corruption_found(6, nodes=(f"far{ATTACK}",)), train_line(7))
    row = row_of(picture, "corruption", width=200)
    assert "rank 1 on node far" in row
    assert "\x1b" not in row
