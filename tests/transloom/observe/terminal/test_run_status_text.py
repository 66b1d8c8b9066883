"""The output of `transloom runs` and `transloom status`."""

import json
import os
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from support.records.lines import (
    COMPARED,
    COUNTED,
    corruption_found,
    rank_hung,
    train_line,
    validation_line,
)
from support.records.run_folders import (
    dead_process,
    made_run,
    with_checkpoint,
    with_owner,
    with_status,
)

from run_store.errors import RunMismatchError
from run_store.record.run_status_model import RunStatus
from run_store.record.vitals import Vitals

LINES = (train_line(1), train_line(2), validation_line(2))
ATTACK = "\x1b]0;owned\x07[red]x"


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a run in each state, a file, and a folder that is no run."""
    with_owner(made_run(tmp_path / "a-training", *LINES))
    with_owner(made_run(tmp_path / "b-abandoned", *LINES), process=dead_process())
    with_checkpoint(made_run(tmp_path / "c-finished", *LINES, max_steps=2), 2)
    made_run(tmp_path / "d-stopped", *LINES)
    made_run(tmp_path / f"e{ATTACK}", *LINES)
    (made_run(tmp_path / "f-damaged", *LINES) / "run.json").write_text("{")
    with_status(tmp_path / "f-damaged")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


def test_runs_lists_all_runs_with_their_states(transloom, folder, monkeypatch):
    found = json.loads(transloom("runs", folder, "--json").stdout)
    assert [(one["name"][0], one["state"]) for one in found] == [
        ("a", "training"),
        ("b", "abandoned"),
        ("c", "finished"),
        ("d", "stopped"),
        ("e", "stopped"),
        ("f", "damaged"),
    ]
    monkeypatch.setenv("COLUMNS", "160")
    text = transloom("runs", folder).stdout
    assert "2 of 20" in text
    assert "BLEU 30.0 (greedy)" in text
    assert "training NLL" in text
    assert "0.450" in text  # the NLL of step 2
    assert f"{os.getpid()} on " in text
    assert "\x1b" not in text
    assert r"e\x1b]0;owned\x07[red]x" in text


@pytest.mark.parametrize("command", ["runs", "dashboard"])
def test_runs_and_dashboard_refuse_a_missing_folder(transloom, tmp_path, command):
    with pytest.raises(RunMismatchError):
        transloom(command, tmp_path / "nowhere")


def test_status_shows_what_the_supervisor_waits_for(transloom, folder):
    run = folder / "a-training"
    waits = "waiting_for_capacity"
    with_status(run, vitals=Vitals(time=time.time(), supervisor=waits))
    text = transloom("status", run).stdout
    assert re.search(r"^supervisor +waiting for capacity$", text, re.MULTILINE)
    answer = json.loads(transloom("status", run, "--json").stdout)
    assert answer["supervisor_state"] == "waiting_for_capacity"


def test_status_shows_speed_ranks_log_and_problems_of_a_run(transloom, folder):
    run = folder / "a-training"
    (run / "log.txt").write_text(f"2026-11-22T10:00:00.000+00:00 lost {ATTACK}\n")
    nodes = {"10.0.0.1 (ab)": 1, "10.0.0.2 (cd)": 1}
    vitals = Vitals(time=time.time(), memory_checkpoint=1)
    with_status(run, ranks=2, nodes=nodes, vitals=vitals)
    text = transloom("status", run).stdout
    assert "training" in text
    assert "10 target tokens/s\n" in text
    assert re.search(r"^time left +18 s$", text, re.MULTILINE)
    assert "2 ranks: 1 on 10.0.0.1 (ab), 1 on 10.0.0.2 (cd)" in text
    assert "in memory" in text
    assert "step 1, from which lost ranks restart" in text
    assert r"lost \x1b]0;owned\x07[red]x" in text
    assert "\x1b" not in text
    answer = json.loads(transloom("status", run, "--json").stdout)
    assert answer["numbers"]["target_tokens_per_second"] == 10.0
    assert RunStatus.model_validate_json(json.dumps(answer)).step == 2
    text = transloom("status", folder / "f-damaged").stdout
    assert "damaged" in text
    assert "run.json is damaged" in text.replace("\n", "")


def test_status_shows_flops_and_mfu_if_recorded(transloom, tmp_path):
    lines = [train_line(step, **COUNTED) for step in (1, 2)]
    text = transloom("status", made_run(tmp_path / "run", *lines)).stdout
    assert re.search(r"^model TFLOP/s +4$", text, re.MULTILINE)
    assert re.search(r"^MFU +20.0%$", text, re.MULTILINE)
    lines = [train_line(step, **COUNTED | {"mfu": None}) for step in (1, 2)]
    text = transloom("status", made_run(tmp_path / "cpu", *lines)).stdout
    assert "model TFLOP/s" in text
    assert "MFU" not in text


def test_status_names_smoothed_loss_nll_and_decoding(transloom, tmp_path):
    smoothed = made_run(tmp_path / "smoothed", *LINES, label_smoothing=0.1)
    text = transloom("status", smoothed).stdout
    assert re.search(
        r"^training loss \(smoothed\) +0.500 nats per target token$", text, re.MULTILINE
    )
    assert re.search(r"^training NLL +0.450 nats per target token, unsmoothed$", text, re.MULTILINE)
    assert re.search(r"^best scores +loss 2.000", text, re.MULTILINE)
    assert "BLEU (greedy) 30.0 (step 2)" in text
    plain = made_run(tmp_path / "plain", train_line(2, loss=0.5, nll=0.5))
    text = transloom("status", plain).stdout
    assert re.search(r"^training loss +0.500 nats", text, re.MULTILINE)
    assert "NLL" not in text


def test_a_run_in_training_without_new_steps_is_marked(transloom, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    lately, long_ago = (datetime.now(UTC) - timedelta(minutes=m) for m in (0, 50))
    stalled = made_run(tmp_path / "stalled", train_line(1, time=long_ago.timestamp() + 1200))
    with_owner(stalled, since=long_ago.isoformat())
    # This run has an old last step, but its owner has only just started again.
    with_owner(made_run(tmp_path / "begins", *LINES), since=lately.isoformat())
    text = transloom("runs", tmp_path).stdout
    assert text.count("no step for") == 1
    assert "training, no step for 30 min" in text
    assert "1 of 20 (5.0%); no new step for 30 min" in transloom("status", stalled).stdout
    stopped = made_run(tmp_path / "stopped", train_line(1))
    assert "no other" not in transloom("status", stopped).stdout
    assert json.loads(transloom("status", stalled, "--json").stdout)["step_age_seconds"] >= 1800


def test_status_and_runs_refuse_wrong_paths(transloom, folder):
    with pytest.raises(RunMismatchError, match=r"dataset is no run: it has neither run\.json"):
        transloom("status", folder / "dataset")
    with pytest.raises(RunMismatchError, match="is itself a run, but a folder"):
        transloom("runs", folder / "d-stopped")
    with pytest.raises(RunMismatchError):
        transloom("runs", folder / "nowhere")


def test_status_names_slow_ranks_of_a_run_that_trains(transloom, tmp_path):
    line = train_line(2, world_size=3, **COMPARED)
    run = with_owner(made_run(tmp_path / "run", line))
    said = "slow rank 2 on node-2: 2 times as long as the others, because it computes longer"
    assert said in " ".join(transloom("status", run).stdout.split())
    (slow,) = json.loads(transloom("status", run, "--json").stdout)["slow_ranks"]
    assert slow == {"rank": 2, "node": "node-2", "cause": "compute", "factor": 2.0}
    stopped = made_run(tmp_path / "stopped", line)
    assert json.loads(transloom("status", stopped, "--json").stdout)["slow_ranks"] == []


def test_status_names_the_collective_that_a_rank_did_not_enter(transloom, tmp_path):
    run = made_run(tmp_path / "run", *LINES, rank_hung(2))
    text = " ".join(transloom("status", run).stdout.split())
    assert "last hang Rank 1 on far did not enter gloo:all_reduce of 7×2 Float" in text
    found = json.loads(transloom("status", run, "--json").stdout)
    assert found["hang_step"] == 3
    assert "which rank 0 entered in step 3" in found["hang"]


def test_status_names_the_rank_that_computed_wrong_bits(transloom, tmp_path):
    run = made_run(tmp_path / "run", *LINES, corruption_found(2))
    text = transloom("status", run).stdout
    assert "corruption" in text
    assert "rank 1 on node far" in " ".join(text.split())
    assert "far" in json.loads(transloom("status", run, "--json").stdout)["corruption"]
