"""Run the commands of docs/how-to/spike-guard.md on a run with one pair of garbage."""

import json

import pytest
from support.poisoned import GARBAGE, poisoned_recipe
from support.runs import Runs

SPIKE = 37  # the garbage in epoch 2; in epoch 1, losses fall too fast to detect a spike
GUARD = "{window: 6, minimum_steps: 6, loss_deviations: 6, norm_deviations: 20}"


@pytest.mark.long
def test_trace_and_replay_show_the_sentences_of_a_skipped_spike(tmp_path, transloom):
    runs = Runs(poisoned_recipe(tmp_path), tmp_path, "")
    overrides = ("checkpoints.every_steps=5", "decoding.max_length_factor=0.2")
    runs.train("run", *overrides, f"trainer.spike_guard={GUARD}", inline=True)
    run = tmp_path / "run"
    (skipped,) = runs.lines("run", "skipped")
    command = f"transloom data trace {run} --steps {SPIKE} --texts"
    assert command in (run / "log.txt").read_text()
    (traced,) = json.loads(transloom(*command.split()[1:], "--json").stdout)
    assert traced["equal"]  # the digest includes the data of the skipped step
    (slot,) = (traced["slots"][slot] for slot in skipped["slots"])
    assert GARBAGE in slot["texts"]["target"]
    assert [slot["slot"] for slot in traced["slots"]] == list(range(5))
    assert GARBAGE[:9] in transloom(*command.split()[1:]).stdout

    again = json.loads(transloom("replay", run, "--steps", "36:38", "--look", "--json").stdout)
    assert again["verdict"]["same"]
    assert again["verdict"]["to_the_last_bit"]
    assert again["replayed_from"] == 35
    (step,) = (step for step in again["steps"] if step["step"] == SPIKE)
    assert step["loss"] == step["recorded_loss"] == skipped["loss"]
    assert step["examples"][0]["slot"] in skipped["slots"]
    assert GARBAGE.replace(" ", "") in json.dumps(step["examples"][0]["texts"]).replace(" ", "")

    metrics = transloom("metrics", run).stdout
    assert 'transloom_run_skipped_spikes{run="run"} 1.0' in metrics
