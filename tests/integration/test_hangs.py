"""Ranks that hang: log, status and notification name the collective and the rank."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
from support.cluster.strike import Strike
from support.faults.moments import MID_STEP
from typer.testing import CliRunner

from transloom.cli.app import app

SETTINGS = (
    "trainer.max_steps=20",
    "checkpoints.every_steps=5",
    "trainer.validate_every_steps=20",
    "cluster.placement=pack",
)


def check_is_named(run: Path, messages: Path, rank: int, ranks: int) -> dict:
    """Check that all views name the collective and the rank, and return the event."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    (event,) = (line for line in lines if line.get("event") == "rank_hung")
    assert [absent["rank"] for absent in event["absent"]] == [rank]
    assert event["waiting"] == [other for other in range(ranks) if other != rank]
    collective = event["collective"]
    shape = "×".join(map(str, collective["shape"]))
    named = f"{collective['operation']} of {shape} {collective['dtype']} (number "
    node = event["absent"][0]["node"]
    status = CliRunner().invoke(app, ["status", str(run)]).stdout
    (message,) = (
        told
        for line in messages.read_text().splitlines()
        if line and (told := json.loads(line))["event"] == "hang"
    )
    log = (run / "log.txt").read_text()
    for text in (log, " ".join(status.split()), message["text"]):
        assert named in text
        assert re.search(rf"[Rr]ank {rank} on {re.escape(node)}", text)
    assert (
        json.loads(CliRunner().invoke(app, ["status", str(run), "--json"]).stdout)["hang_step"]
        == event["hang_step"]
    )
    assert len(list(run.glob("stacks/*/rank-*.txt"))) == ranks
    return event


@pytest.mark.long
def test_a_suspended_rank_is_named_with_the_collective_that_waits_for_it(runs, orders, notified):
    setting, messages = notified
    options = (*SETTINGS, "cluster.ranks=2", "cluster.deadlines.answer_seconds=15", setting)
    with Strike(orders, MID_STEP, lambda at: os.kill(at.process_id, signal.SIGSTOP), rank=1):
        result = runs.train("stopped", *options)
    assert result.outcome == "finished"
    run = runs.folder / "stopped"
    event = check_is_named(run, messages, rank=1, ranks=2)
    assert not event["absent"][0]["has_record"]
    assert event["hang_step"] == MID_STEP.step
    assert len(list(run.glob("stacks/*/rank-0.collectives.json"))) == 1
    assert not list(run.glob("stacks/*/rank-1.collectives.json"))


@pytest.mark.long
def test_a_rank_that_skips_a_collective_is_named_with_it(runs, orders, notified):
    setting, messages = notified
    deadlines = "cluster.deadlines={start_seconds: 120, step_seconds: 20}"
    orders.skip(MID_STEP.step, rank=1)
    try:
        result = runs.train("skipped", *SETTINGS, "cluster.ranks=3", deadlines, setting)
    finally:
        orders.clear()
    assert result.outcome == "finished"
    event = check_is_named(runs.folder / "skipped", messages, rank=1, ranks=3)
    assert "gather" in event["collective"]["operation"]
    assert event["absent"][0]["has_record"]
    assert event["absent"][0]["entered"] is not None  # the collective that it entered instead
    assert event["hang_step"] == MID_STEP.step
