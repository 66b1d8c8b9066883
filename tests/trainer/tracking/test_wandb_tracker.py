"""W&B over restarts: its files have a single history, even after a kill."""

import json
import math
import os
import shutil
import signal
import socket
import textwrap

import pytest
from support.files.small_disk import run_on_small_disk
from support.records import wandb_jobs
from support.records.lines import SPIKE_FIELDS, skipped_line, train_line, validation_line
from support.records.moments import write_moments
from support.records.wandb_history import (
    config,
    flattened,
    history,
    rows_of,
    run_of,
    summary,
    wandb_files,
)
from support.records.wandb_jobs import (
    Start,
    in_a_forked_process,
    in_a_process,
    make_run,
    steps_of,
)
from support.records.wandb_server import WandbServer

from run_store.record.metrics_lines import Preempted, Resumed, Sample
from trainer.tracking.wandb_tracker import LastLoggedRow, last_logged_step, repair_file, rows


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def one_start(run, first: int, last: int) -> None:
    start = Start(run, first - 1)
    start.train(first, last)
    start.end()
    assert start.notices == []


def shown_of(lines, *names):
    """Return the rows, each with its values of the given names."""
    return [
        (step, {name: row[name] for name in names if name in row})
        for step, row in rows(lines, LastLoggedRow())
    ]


def test_a_row_has_all_lines_of_its_step_under_short_names():
    lines = [
        Preempted(step=0),
        train_line(1),
        train_line(2),
        validation_line(2, loss=2.0, bleu=0.0),
        Resumed(step=2, from_step=1, settings_changed={"keep_last": [1, 2]}),
        Preempted(step=2),
        train_line(3),
    ]
    names = [name for _, row in rows(lines, LastLoggedRow()) for name in row if "train" not in name]
    assert list(dict.fromkeys(names)) == [
        "event/preempted",
        "validation/samples",
        "validation/seconds",
        "validation/loss",
        "validation/perplexity",
        "validation/bleu",
        "validation/bleu_decoding",
        "event/resumed",
        "event/resumed/from_step",
        "event/resumed/settings_changed",
    ]
    assert shown_of(lines, "train/loss", *names) == [
        (1, {"event/preempted": 1, "train/loss": 1.0}),
        (
            2,
            {
                "train/loss": 1 / 2,
                "event/preempted": 1,
                "validation/seconds": 1.0,
                "validation/loss": 2.0,
                "validation/perplexity": math.exp(2.0),
                "validation/bleu": 0.0,
                "validation/bleu_decoding": "greedy",
                "validation/samples": [Sample(source="x", reference="x", translation="x")],
                "event/resumed": 1,
                "event/resumed/from_step": 1,
                "event/resumed/settings_changed": '{"keep_last": [1, 2]}',
            },
        ),
        (3, {"train/loss": 1 / 3}),
    ]


def test_a_row_has_all_fields_of_its_train_line():
    ((_, row),) = rows([train_line(1, goodput=0.5)], LastLoggedRow())
    line = train_line(1, goodput=0.5).model_dump(exclude_none=True)
    hidden = {"version", "step", "kind"}
    assert row == {f"train/{name}": line[name] for name in line if name not in hidden}


def test_the_row_of_a_spike_has_its_cause_and_thresholds():
    names = ("skipped/cause", "skipped/loss", "skipped/loss_threshold")
    assert shown_of([train_line(1), skipped_line(2, **SPIKE_FIELDS)], *names)[-1] == (
        2,
        {"skipped/cause": "spike", "skipped/loss": 9.5, "skipped/loss_threshold": 4.25},
    )


def test_a_skipped_step_has_a_row():
    names = ("train/loss", "skipped/slots", "skipped/in_a_row")
    assert shown_of([train_line(1), skipped_line(2), train_line(3)], *names) == [
        (1, {"train/loss": 1.0}),
        (2, {"skipped/slots": "[1]", "skipped/in_a_row": 1}),
        (3, {"train/loss": 1 / 3}),
    ]


def test_lines_after_a_logged_row_are_in_the_next_row():
    since = [Preempted(step=2), Resumed(step=2, from_step=2)]
    ((_, shown_row),) = rows([train_line(2), since[0]], LastLoggedRow())
    shown = LastLoggedRow(2, frozenset(shown_row))
    assert list(rows(since, shown)) == []  # they get no row before the next train line
    ((step, row),) = rows([train_line(2), *since, train_line(3)], shown)
    assert step == 3
    assert row["train/loss"] == 1 / 3
    assert [name for name in row if "event" in name] == [
        "event/resumed",
        "event/resumed/from_step",
    ]
    ((step, row),) = rows([*since, train_line(3)], LastLoggedRow(2, None))
    assert step == 3
    assert not [name for name in row if "event" in name]


def test_steps_that_a_killed_process_did_not_log_are_logged_from_the_record(run):
    assert in_a_forked_process(wandb_jobs.train_and_be_killed, run) == -signal.SIGKILL
    assert last_logged_step(run.path / "wandb") < 10, "W&B lost nothing: the test shows nothing"
    one_start(run, 9, 12)
    assert steps_of(run) == list(range(1, 13))


def test_events_and_validations_at_a_restart_do_not_repeat_a_step(run):
    start = Start(run)
    start.train(1, 3)
    start.append(validation_line(3), Preempted(step=3))
    start.end()
    for last in (3, 5):  # the first start trains nothing
        start = Start(run, 3)
        start.append(Resumed(step=3, from_step=3, restarts=1))
        start.train(4, last)
        start.end()
    assert steps_of(run) == [1, 2, 3, 4, 5]
    row_3, row_4 = history(run.path)[2:4]
    assert row_3["event/preempted"] == 1
    assert row_3["validation/loss"] == 2.0
    assert row_4["event/resumed/from_step"] == 3
    assert not [key for key in row_4 if "validation" in key or "preempted" in key]


def test_the_wandb_summary_has_goodput_restarts_and_lost_steps(run):
    start = Start(run)
    for step in (1, 2):
        totals = {"restarts": step, "lost_steps": 3 * step, "goodput": 0.4 * step}
        start.append(train_line(step, **totals))
    start.end()
    shown = summary(run.path)
    assert shown["train/restarts"] == 2
    assert shown["train/lost_steps"] == 6
    assert shown["train/goodput"] == 0.8


def test_a_row_of_a_version_without_samples_counts_as_complete():
    """Otherwise the validation would be logged again in the next row."""
    scores = validation_line(2)
    ((_, row),) = rows([train_line(2), scores], LastLoggedRow())
    shown = LastLoggedRow(2, frozenset(row) - {"validation/samples"})
    ((step, row),) = rows([train_line(2), scores, train_line(3)], shown)
    assert step == 3
    assert not [name for name in row if "validation" in name]


def test_config_tags_and_samples_of_each_start_are_logged(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    tracking = {"group": "seeds", "tags": ["tiny", "fr-en"], "notes": "is it \u202e?"}
    for first, ranks in ((1, 2), (3, 5)):  # the second start writes another folder of W&B
        facts = {"start": {"ranks": ranks, "resumed_from": {"step": 2}}, "dataset": {"pairs": 7}}
        start = Start(run, first - 1, tracking, facts)
        start.train(first, first + 1)
        start.append(validation_line(first + 1, text=f"a {first} \u202e | <b>"))
        start.end()
        assert start.notices == []
    for file, number, ranks in zip(wandb_files(run.path), (1, 3), (2, 5), strict=True):
        about, told = run_of(file), config(file)
        assert (about.run_group, list(about.tags)) == ("seeds", ["tiny", "fr-en"])
        assert about.notes == "is it \\u202e?"
        assert (about.project, about.run_id) == ("transloom", "abcd1234")
        assert told["start"] == {"ranks": ranks, "resumed_from": {"step": 2}}
        assert told["dataset"] == {"pairs": 7}
        assert told["trainer"]["max_steps"] == 20
        assert told["tracking"]["group"] == "seeds"
        _, row = rows_of(file)
        said = [row[f"validation/samples/{key}"] for key in ("_type", "nrows", "ncols")]
        assert said == ["table-file", 1, 3]
        content = json.loads((file.parent / "files" / row["validation/samples/path"]).read_text())
        assert content["columns"] == ["source", "reference", "translation"]
        assert content["data"] == [[f"a {number} \\u202e | <b>"] * 3]
    assert not [path for path in tmp_path.rglob("*") if "artifact" in path.name]
    assert steps_of(run) == [1, 2, 3, 4]


def test_probe_sentences_are_logged_as_a_table_of_all_frames_so_far(run, tmp_path, monkeypatch):
    """A frame is written after the line of its step; that of step 0 is in the table of step 1."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    write_moments(run.time_lapse, {0: "the the"})
    start = Start(run)
    for step, output in ((1, "she"), (2, "she \u202e is"), (3, "is"), (4, "at"), (5, None)):
        start.train(step, step)
        if output:
            write_moments(run.time_lapse, {step: output})
    start.end()
    assert start.notices == []
    (file,) = wandb_files(run.path)
    rows = rows_of(file)
    assert [row.get("time-lapse/nrows") for row in rows] == [2, 3, 4, 5, None]
    content = json.loads((file.parent / "files" / rows[1]["time-lapse/path"]).read_text())
    assert content["columns"] == ["step", "sentence", "translation", "looked at most"]
    assert content["data"] == [
        [0, "je suis", "the the", "the the→▁je"],
        [1, "je suis", "she", "she→▁je"],
        [2, "je suis", "she \\u202e is", "she \\u202e is→▁je"],
    ]
    assert not [path for path in tmp_path.rglob("*") if "artifact" in path.name]


def test_a_long_history_of_wandb_is_read_to_its_end(run):
    """The records cross the 32 KiB blocks of W&B's files."""
    start = Start(run)
    for step in range(1, 201):
        start.append(train_line(step), Resumed(step=step, from_step=0, promise="x" * (step * 7)))
    start.end()
    assert steps_of(run) == list(range(1, 201))
    assert history(run.path)[199]["event/resumed/promise"] == "x" * 1400
    assert last_logged_step(run.path / "wandb") == 200
    one_start(run, 201, 202)
    assert steps_of(run) == list(range(1, 203))


def test_without_a_folder_no_step_is_logged(tmp_path):
    assert last_logged_step(tmp_path / "wandb") == 0


def test_a_torn_wandb_file_is_repaired(run):
    one_start(run, 1, 300)
    (file,) = wandb_files(run.path)
    for torn_bytes in (1, 40, 2000, 40_000):
        os.truncate(file, file.stat().st_size - torn_bytes)
        left = rows_of(file)
        shown = repair_file(file)
        assert rows_of(file) == left
        assert shown.step == left[-1]["_step"]
        assert shown.keys == frozenset(left[-1])
        whole = file.read_bytes()
        assert repair_file(file) == shown
        assert file.read_bytes() == whole


def test_a_wandb_file_with_damaged_bytes_is_cut_before_them(run):
    """The bytes are zero, as after a power failure."""
    one_start(run, 1, 100)
    (file,) = wandb_files(run.path)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    file.write_bytes(content)
    assert 10 < repair_file(file).step < 90
    assert file.stat().st_size <= middle


def test_a_wandb_file_without_a_row_is_removed(run):
    one_start(run, 1, 2)
    (file,) = wandb_files(run.path)
    whole = file.read_bytes()
    for bytes_left in (200, 7, 0):
        file.write_bytes(whole[:bytes_left])
        assert repair_file(file) == LastLoggedRow()
        assert not file.exists()


@pytest.mark.long
def test_wandb_sync_uploads_a_history_that_was_killed_twice(run):
    one_start(run, 1, 10)
    (file,) = wandb_files(run.path)
    os.truncate(file, 7)
    one_start(run, 11, 100)
    (file,) = wandb_files(run.path)
    os.truncate(file, file.stat().st_size - 500)
    start = Start(run, 100)
    start.train(101, 110)
    start.append(validation_line(110))
    start.end()
    with WandbServer() as server:
        printed = server.sync(run.path)
    assert "ERROR" not in printed
    (uploaded,) = server.history.values()
    assert uploaded[-1]["validation/samples"]["path"] in server.offered
    assert [flattened(row) for row in uploaded] == history(run.path)
    assert [row["_step"] for row in uploaded] == list(range(1, 111))


@pytest.mark.long
def test_an_online_run_continues_after_the_last_step_of_the_server(run, monkeypatch, capfd):
    """The second start has no files, because it is on another machine or they were removed."""
    with WandbServer() as server:
        for name, value in {**server.environment, "WANDB_MODE": "online"}.items():
            monkeypatch.setenv(name, value)
        assert in_a_forked_process(wandb_jobs.train, run, 0, 10) == 0
        shutil.rmtree(run.path / "wandb")
        assert in_a_forked_process(wandb_jobs.train, run, 10, 15) == 0
    (rows,) = server.history.values()
    assert [(row["_step"], row["train/loss"]) for row in rows] == [
        (step, 1 / step) for step in range(1, 16)
    ]
    assert [row["_step"] for row in history(run.path)] == list(range(11, 16))
    assert "less than the current step" not in capfd.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("answers", [False, True], ids=["refuses", "hangs"])
def test_an_unreachable_wandb_server_delays_the_first_start_and_the_run_is_offline(
    run, monkeypatch, answers
):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:  # accepts connections, but answers no request
            server.listen(100)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_MODE", "online")
        assert in_a_forked_process(wandb_jobs.train_offline_instead, run) == 0
    assert steps_of(run) == list(range(1, 6))
    assert list((run.path / "wandb").glob("offline-run-*"))


@pytest.mark.long
def test_training_continues_if_wandb_dies_and_the_rest_is_logged_at_the_end(run):
    assert in_a_process(wandb_jobs.train_while_wandb_dies, run) == 0
    assert steps_of(run) == list(range(1, 31))


@pytest.mark.long
def test_training_does_not_wait_for_a_wandb_that_hangs(run):
    assert in_a_process(wandb_jobs.train_while_wandb_hangs, run) == 0
    one_start(run, 2001, 2001)
    assert steps_of(run) == list(range(1, 2002))


@pytest.mark.needs("small disks")
@pytest.mark.long
def test_a_full_disk_stops_wandb_but_not_training(tmp_path):
    disk = tmp_path / "disk"
    program = textwrap.dedent(
        f"""
        import json, os
        from pathlib import Path
        from support.records.wandb_jobs import train_on_a_disk_that_gets_full
        print(json.dumps(train_on_a_disk_that_gets_full(Path({str(disk)!r}))))
        """
    )
    found = run_on_small_disk(disk, 4096, program)
    assert found["there was room again"] == list(range(1, 1101))
    behind = found["the disk stayed full"]
    assert behind == list(range(1, behind[-1] + 1))
    assert behind[-1] <= found["recorded"] < 1300
    if behind[-1] < found["recorded"]:  # W&B's last block may have had space for all rows
        assert f"end at step {behind[-1]}" in found["notices"][-1]
    assert found["in the end"] == list(range(1, 1401))
    assert "Traceback" not in found["stderr"]
