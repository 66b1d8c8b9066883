"""Detect a run's events from what the driver gets: lines, notices, vitals, errors."""

import random
import time

import pytest
import torch
from support.recipes import tiny_values
from support.records.checkpoints import make_header, save_checkpoint
from support.records.lines import (
    corruption_found,
    rank_hung,
    skipped_line,
    train_line,
    validation_line,
    wrong_reduction,
)

from cluster.errors import ClusterError, EmbeddedRayError, RankLostError
from cluster.notify import run_events
from cluster.notify.run_events import RunEvents
from cluster.recipe import Recipe
from cluster.supervision.restart_loop import excluded_nodes_text
from run_store.checkpoints.fragment import Fragment
from run_store.folder import RunFolder
from run_store.record.metrics_lines import RankRecovered, SlowRankFound
from run_store.record.notify_event import EVENTS
from run_store.record.vitals import RankVitals, Restart, Vitals
from run_store.start import StopOrder


class Clock:
    """Clock that a test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Detected(RunEvents):
    """Event detector of a run, with the events that it has found."""

    def __init__(self, folder, events=EVENTS, **trainer):
        self.found = []
        self.ticks = Clock()
        values = tiny_values(folder / "dataset", max_steps=100, **trainer)
        values["tracking"]["notify"] = {"events": list(events), "stalled_minutes": 2}
        super().__init__(
            Recipe.of(values), RunFolder(folder / "tiny"), self.found.append, self.ticks
        )

    @property
    def names(self):
        return [event.event for event in self.found]

    def seconds_pass(self, seconds):
        for _ in range(seconds):
            self.ticks.now += 1.0
            self.poll()


@pytest.fixture
def events(tmp_path):
    (tmp_path / "tiny").mkdir()
    return Detected(tmp_path)


def test_only_a_validation_better_than_all_before_is_an_event(events):
    for step, loss in ((10, 3.0), (20, 2.5), (30, 2.6), (40, 2.5), (50, 2.4)):
        events.line(validation_line(step, loss=loss))
    assert events.names == ["best_score"] * 3
    assert [(event.step, event.score.value) for event in events.found] == [
        (10, 3.0),
        (20, 2.5),
        (50, 2.4),
    ]
    assert "best validation loss so far: 2.4 at step 50 of 100" in events.found[-1].text
    assert "Before: 2.5 at step 20" in events.found[-1].text


def test_the_best_score_of_earlier_sessions_is_read_from_the_metrics_file(tmp_path):
    (tmp_path / "tiny").mkdir()
    lines = [validation_line(10, loss=2.0), validation_line(20, loss=3.0)]
    (tmp_path / "tiny" / "metrics.jsonl").write_text("".join(f"{x.to_json()}\n" for x in lines))
    events = Detected(tmp_path)
    events.line(validation_line(20, loss=3.0))
    events.line(validation_line(30, loss=2.5))
    assert events.names == []
    events.line(validation_line(40, loss=1.9))
    assert events.names == ["best_score"]


@pytest.mark.parametrize("text", ["", "{\n", "not json\n" * 3])
def test_a_damaged_metrics_file_counts_as_missing(tmp_path, text):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "metrics.jsonl").write_text(text)
    events = Detected(tmp_path)
    events.line(validation_line(10))
    assert events.names == ["best_score"]


def test_the_best_score_is_the_one_by_which_checkpoints_are_kept(tmp_path):
    (tmp_path / "tiny").mkdir()
    events = Detected(tmp_path)
    better = events._recipe.checkpoints.model_copy(update={"best_by": "bleu"})
    events._recipe = events._recipe.model_copy(update={"checkpoints": better})
    events.line(validation_line(10, loss=2.0, bleu=10.0))
    events.line(validation_line(20, loss=1.0, bleu=9.0))
    assert [(e.score.name, e.score.value) for e in events.found] == [("bleu", 10.0)]


def test_skipped_steps_in_a_row_are_one_event(events):
    events.line(train_line(1))
    events.line(skipped_line(2, in_a_row=1))
    assert events.names == []
    events.line(skipped_line(3, in_a_row=2))
    events.line(skipped_line(4, in_a_row=3))
    assert events.names == ["skipped_steps"]
    assert "has skipped 2 steps in a row, up to step 3" in events.found[0].text
    for step in (1, 2, 3):  # a restart repeats these steps
        events.line(skipped_line(step, in_a_row=step - 1))
    assert events.names == ["skipped_steps"]
    events.line(skipped_line(11, in_a_row=2))
    assert events.names == ["skipped_steps"] * 2


def test_a_step_that_the_spike_guard_skips_is_a_spike(events):
    spike = {"cause": "spike", "loss": 9.0, "grad_norm": 1.0}
    limits = {"loss_threshold": 4.0, "grad_norm_threshold": 5.0}
    events.line(skipped_line(5, in_a_row=1, **spike, **limits))
    events.line(skipped_line(5, in_a_row=1, **spike, **limits))  # the same step, after a restart
    assert events.names == ["loss_spike"]
    assert "skipped step 5, because its loss 9 was above the threshold 4" in events.found[0].text
    assert events.found[0].score.value == 9.0
    events.line(skipped_line(6, in_a_row=2, **spike, **limits))
    assert events.names == ["loss_spike", "skipped_steps"]
    assert "up to step 6, because its loss 9 was above" in events.found[1].text


def test_a_loss_that_jumps_and_stays_high_is_one_event(events):
    draw = random.Random(1)
    for step in range(1, 200):
        level = 2.0 if step < 150 else 5.0
        events.line(train_line(step, loss=level + draw.gauss(0, 0.05)))
    assert events.names == ["loss_spike"]
    assert 150 < events.found[0].step < 155
    assert events.found[0].score.value > 4


def test_steps_repeated_after_a_restart_are_no_spike(events):
    """After a restart, the losses of repeated steps are higher than the last losses before it."""
    for step in [*range(1, 150), *range(80, 200)]:
        events.line(train_line(step, loss=max(10.0 - 0.1 * step, 0.5)))
    assert events.names == []


def test_a_run_without_steps_is_reported_as_stalled_once_until_the_next_step(events):
    events.seconds_pass(119)
    assert events.names == []
    events.seconds_pass(300)
    assert events.names == ["stalled"]
    assert "no step for 2 min, after step 0. No ranks are running." in events.found[0].text
    events.line(train_line(1))
    events.seconds_pass(119)
    events.line(skipped_line(2))  # a skipped step also counts
    events.seconds_pass(119)
    assert events.names == ["stalled"]
    ranks = tuple(
        RankVitals(rank=n, node="a", phase=phase, step=2, silent_seconds=1)
        for n, phase in enumerate(("validation", "save", "save"))
    )
    events.vitals(Vitals(time=1.0, ranks=ranks))
    events.seconds_pass(10)
    assert events.names == ["stalled"] * 2
    assert "after step 2. Phase of its ranks: save (2 ranks), validation (1 rank)." in (
        events.found[1].text
    )


def test_a_suspended_machine_is_not_stalled(events):
    events.seconds_pass(60)
    events.ticks.now += 3600.0
    events.poll()
    assert events.names == []


def vitals_with(*ages):
    now = time.time()
    restarts = tuple(Restart(time=now - age, cause=f"{age} s ago") for age in ages)
    return Vitals(time=now, restarts=restarts)


def test_three_restarts_within_half_an_hour_are_an_event(events):
    events.vitals(vitals_with(4000, 2000, 600, 300))
    assert events.names == []
    three = vitals_with(4000, 2000, 600, 300, 10)
    events.vitals(three)
    events.vitals(three)
    assert events.names == ["restarts"]
    assert "3 times within 30 min" in events.found[0].text
    assert "The last cause: 10 s ago" in events.found[0].text
    more = three.restarts + vitals_with(3, 2).restarts
    events.vitals(three.model_copy(update={"restarts": more}))
    assert events.names == ["restarts"]
    more += vitals_with(1).restarts
    events.vitals(three.model_copy(update={"restarts": more}))
    assert events.names == ["restarts"] * 2


def test_thresholds_equal_those_of_the_prometheus_alerts():
    from pathlib import Path

    rules = Path(__file__).parents[3] / "deploy/prometheus/transloom.rules.yml"
    text = rules.read_text()
    minutes = int(run_events.RESTARTS_SECONDS // 60)
    expected = f"transloom_run_restarts[{minutes}m]) >= {run_events.RESTARTS}"
    assert expected in text
    default = tiny_values(Path("d")) | {"tracking": {}}
    seconds = 60 * Recipe.of(default).tracking.notify.stalled_minutes
    assert f"transloom_run_step_age_seconds > {seconds:g}" in text


def test_a_node_that_is_left_out_is_an_event_with_the_node_s_problem(events):
    (notice,) = excluded_nodes_text(["Node b cannot write the run's folder"], 2, 1)
    events.notice("starting 2 ranks")
    events.notice(notice)
    assert events.names == ["bad_node"]
    assert "leaves out a node: Node b cannot write the run's folder." in events.found[0].text


def test_a_stop_by_a_user_is_one_event(events):
    events.notice("SIGTERM was received: the ranks leave after a checkpoint")
    events.notice(f"{StopOrder(by='ada@host', at=0.0).text}: the ranks leave after a checkpoint")
    events.notice(StopOrder(by="ada@host", at=0.0).text)  # repeated when the ranks have left
    (found,) = events.found
    assert found.event == "stopped"
    assert "stops: ada@host stopped the run at 1970-01-01 00:00:00 UTC" in found.text


def test_corruption_is_an_event_that_names_rank_node_step_slot_and_parameter(events):
    events.line(corruption_found(7))
    assert events.names == ["bad_node"]
    (found,) = events.found
    assert found.step == 7
    for part in ("rank 1 on node far", "slot 3 of step 8", "x.weight"):
        assert part in found.text


def test_a_wrong_reduction_is_an_event(events):
    events.line(wrong_reduction(7))
    assert events.names == ["bad_node"]
    assert "the sum of the gradients of x.weight" in events.found[0].text


def test_an_error_that_ends_the_run_is_an_event(events):
    error = ClusterError("The cluster has no room")
    error.add_note("Add nodes.")
    events.ended_by(error)
    (found,) = events.found
    assert (found.event, found.ended) == ("failed", True)
    assert "has failed after step 0: The cluster has no room Add nodes." in found.text


@pytest.mark.parametrize("error", [RankLostError("rank 1 died"), EmbeddedRayError("raylet ended")])
@pytest.mark.parametrize(
    ("chosen", "event"),
    [(("failed", "restarts"), "failed"), (("restarts",), "restarts"), (("failed",), "failed")],
)
def test_repeated_failed_attempts_are_one_event_of_a_selected_kind(tmp_path, error, chosen, event):
    events = Detected(tmp_path, events=chosen)
    events.ended_by(error)
    assert events.names == [event]


def test_a_run_that_was_already_complete_causes_no_event(events):
    events.ended()
    assert events.names == []


def test_a_run_that_ends_without_its_last_checkpoint_is_not_finished(events):
    events.line(train_line(1))
    events.ended()
    assert events.names == []


def test_a_hang_is_an_event(events):
    events.line(rank_hung(6))
    assert events.names == ["hang"]
    assert "Rank 1 on far did not enter gloo:all_reduce" in events.found[0].text


def test_a_slow_rank_is_an_event_and_its_recovery_is_not(events):
    slow = {"rank": 3, "node": "node-2", "factor": 1.87}
    events.line(SlowRankFound(step=60, **slow, cause="data", seconds=0.374, other_seconds=0.2))
    events.line(RankRecovered(step=90, rank=3, node="node-2", factor=1.01))
    assert events.names == ["slow_rank"]
    assert events.found[0].step == 60
    assert (
        "rank 3 on node-2 needs 1.87 times as long as the others, because it waits longer for data "
        "(0.374 s per step, the others 0.2 s)."
    ) in events.found[0].text


def test_a_complete_run_is_finished_only_in_a_session_that_trained(tmp_path):
    """The record and the last checkpoint are from an earlier session."""
    run = RunFolder(tmp_path / "tiny")
    run.path.mkdir()
    run.metrics.write_text(train_line(100).to_json() + "\n")
    share = [Fragment("master", "w", 0, torch.ones(4))]
    save_checkpoint(run.checkpoints, make_header(100), [share])
    for lines, names in (([], []), ([train_line(100)], ["finished"])):
        events = Detected(tmp_path)
        for line in lines:
            events.line(line)
        events.ended()
        assert events.names == names
