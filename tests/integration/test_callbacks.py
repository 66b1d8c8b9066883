"""A guard and an observer of an extension: the same bits after a kill, and on several ranks."""

import json
import shutil
import signal
from pathlib import Path

import pytest
from support.command import transloom
from support.recipes import SHORT_TRANSLATIONS, tiny_values, write_yaml
from support.tasks import EXTENSIONS

from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import folder_name
from transloom.observe.comparison.comparison import compare_runs

STEPS, STRUCK_AFTER = 16, 13  # checkpoints at 5, 10, 15
GUARD = {"type": "loss_ceiling", "options": {"factor": 1.001, "decay": 0.5}}
COST = {"type": "step_cost", "options": {"every": 2}}
KILLERS = Path(__file__).parents[1] / "support" / "extension" / "killer.py"


class Commands:
    """Runs, each trained by a command in a separate process."""

    def __init__(self, folder, dataset):
        extensions = folder / "extensions"
        extensions.mkdir()
        for file in (EXTENSIONS / "loss_ceiling.py", EXTENSIONS / "step_cost.py", KILLERS):
            shutil.copy(file, extensions)
        values = tiny_values(dataset, max_steps=STEPS, stop_after_skipped_steps=STEPS)
        # With this rate, losses vary more than they fall.
        values["trainer"]["schedule"]["peak_learning_rate"] = 1e-4
        values |= {
            "extensions": ["loss_ceiling", "step_cost", "killer"],
            "extension_folder": str(extensions),
            "engine": {"numerics": "exact"},
            "checkpoints": {"every_steps": 5},
            "decoding": SHORT_TRANSLATIONS,
        }
        self.folder, self._recipe = folder, folder / "tiny.yaml"
        write_yaml(self._recipe, values)

    def train(self, name, *callbacks, how=("--inline",)):
        options = [f"callbacks={json.dumps([GUARD, *callbacks])}", "--run", self.folder / name]
        return self.run("train", self._recipe, *how, *options)

    def run(self, *arguments):
        """Return the exit status of a command, and its output."""
        done = transloom(*arguments, cwd=self.folder)
        return done.returncode, done.stdout + done.stderr

    def lines(self, name):
        text = (self.folder / name / "metrics.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def header(self, name):
        return Checkpoint(self.folder / name / "checkpoints" / folder_name(STEPS)).header

    def steps(self, name):
        return [line for line in self.lines(name) if line["kind"] in ("train", "skipped")]

    def assert_same(self, name, other):
        compared = compare_runs(self.folder / name, self.folder / other)
        assert compared.is_same, compared
        assert (compared.steps, compared.checkpoint_step) == (STEPS, STEPS)
        kinds = [
            [(s["kind"], s.get("refusal"), s.get("slots")) for s in self.steps(one)]
            for one in (name, other)
        ]
        assert kinds[0] == kinds[1]
        assert self.header(name).guards == self.header(other).guards


@pytest.fixture(scope="module")
def commands(tmp_path_factory, phrasebook):
    """Return commands with a run named "whole", which has only the guard and is not disturbed."""
    commands = Commands(tmp_path_factory.mktemp("callbacks"), phrasebook)
    status, said = commands.train("whole")
    assert status == 0, said
    return commands


def test_a_guard_refuses_steps_by_its_state(commands):
    steps = commands.steps("whole")
    mean, refused = None, []
    for step in steps:
        if mean is not None and step["loss"] > GUARD["options"]["factor"] * mean:
            refused.append(step["step"])
        else:
            mean = step["loss"] if mean is None else 0.5 * mean + 0.5 * step["loss"]
    skipped = [step for step in steps if step["kind"] == "skipped"]
    assert [step["step"] for step in skipped] == refused
    assert any(step > STRUCK_AFTER - 3 for step in refused), "none is repeated"
    assert {step["cause"] for step in skipped} == {"guard"}
    assert all("loss_ceiling" in step["refusal"] for step in skipped)
    header = commands.header("whole")
    assert header.guards == {"callbacks.loss_ceiling": {"mean": mean}}
    assert (header.skipped_steps, header.optimizer_step) == (len(refused), STEPS - len(refused))


def test_a_run_killed_between_steps_continues_with_the_same_bits(commands):
    """The undisturbed run has no observers, because they do not belong to a run's identity."""
    killer = {"type": "killer", "options": {"step": STRUCK_AFTER}}
    status, said = commands.train("killed", COST, killer)
    assert status == -signal.SIGKILL, said
    assert commands.steps("killed")[-1]["step"] == STRUCK_AFTER
    status, said = commands.train("killed", COST)
    assert status == 0, said
    assert [line["event"] for line in commands.lines("killed") if "event" in line] == ["resumed"]
    commands.assert_same("killed", "whole")
    numbers = {step["step"]: step.get("observed", {}) for step in commands.steps("killed")}
    assert {step for step, added in numbers.items() if added} == {*range(2, STEPS + 1, 2)}
    assert numbers[2].keys() == {"step_cost/cpu_seconds", "step_cost/peak_megabytes"}
    assert not any("observed" in step for step in commands.steps("whole"))


def test_a_replay_uses_the_guard_and_its_state_and_cannot_omit_it(commands):
    folder = f"extension_folder={commands.folder / 'extensions'}"
    replay = ("replay", commands.folder / "whole", "--steps", f"12:{STEPS}", folder)
    status, said = commands.run(*replay)
    assert status == 0, said
    status, said = commands.run(*replay, "callbacks=[]")
    assert status != 0
    assert "callbacks" in said


def test_a_guard_is_part_of_a_run_s_identity(commands):
    status, said = commands.train("whole", {"type": "loss_ceiling", "options": {}})
    assert status != 0
    assert "callbacks" in said


def test_a_killed_rank_is_restarted_but_an_error_of_an_observer_ends_the_run(commands, ray_head):
    how = [f"cluster.address={ray_head.address}", "cluster.ranks=2"]
    killer = {"type": "killer", "options": {"step": STRUCK_AFTER, "rank": 1}}
    status, said = commands.train("ranks", COST, killer, how=how)
    assert status == 0, said
    assert "resumed" in [line.get("event") for line in commands.lines("ranks")]
    commands.assert_same("ranks", "whole")
    killer["options"] |= {"step": 3, "raises": True}
    status, said = commands.train("failed", killer, how=how)
    text = " ".join(said.split())
    assert status == 1, said
    for part in ("'killer'", "extension killer failed at step 3", "an observer's own mistake"):
        assert part in text
    assert [line for line in commands.lines("failed") if line.get("event") == "resumed"] == []
