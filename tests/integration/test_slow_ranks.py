"""A slow rank of a run on a cluster is named in the log, the record, `watch` and a notification."""

import json
import re

import pytest
from typer.testing import CliRunner

from trainer.training.slow_ranks import SLOW_FACTOR
from transloom.cli.app import app

WINDOW, STEPS = 12, 26
SECONDS = 0.4  # sleep of a rank in each pass, much longer than a pass takes


@pytest.mark.long
def test_a_slow_rank_is_named_with_its_node_in_log_record_and_notification(runs, orders, notified):
    setting, received = notified
    orders.slow_down(1, SECONDS, WINDOW)
    runs.train("slow", "cluster.ranks=2", f"trainer.max_steps={STEPS}", setting)
    orders.clear()
    run = runs.folder / "slow"
    (event,) = runs.lines("slow", "event")
    assert (event["event"], event["rank"], event["cause"]) == ("slow_rank", 1, "compute")
    assert WINDOW < event["step"] < STEPS
    assert event["factor"] > SLOW_FACTOR
    lines = runs.lines("slow")
    assert [line["step"] for line in lines if "slow_ranks" in line] == list(
        range(event["step"] + 1, STEPS + 1)
    )
    node = re.escape(event["node"])
    said = rf"Slow: rank 1 on {node} needs [\d.]+ times as long as the others, because it computes"
    assert len(re.findall(said, (run / "log.txt").read_text())) == 1
    assert re.search(rf"2 on {node}", CliRunner().invoke(app, ["watch", str(run), "--once"]).stdout)
    messages = map(json.loads, received.read_text().splitlines())
    (message,) = [one for one in messages if one["event"] == "slow_rank"]
    assert (message["step"], message["run"]) == (event["step"], "slow")
    assert f"rank 1 on {event['node']} needs" in message["text"]
