"""The checkpoint that a server uses when checkpoints are added, damaged or removed."""

import shutil

import pytest
from support.serving.spoiling import spoil

from run_store.checkpoints.averaging import average
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.format import read_header
from run_store.errors import CheckpointError, RunMismatchError
from transloom.inference.serving.checkpoint_reloader import CheckpointReloader, candidates
from transloom.inference.serving.facts import facts_of
from transloom.inference.serving.replica_process import load
from transloom.inference.serving.settings import ReplicaSettings


class Loads:
    """Loader of translators that records the requested checkpoints."""

    def __init__(self, run):
        self.settings, self.asked = ReplicaSettings(run), []

    def __call__(self, checkpoint):
        self.asked.append(checkpoint)
        return load(self.settings, checkpoint)


def reloader(run, loads=None, **options):
    return CheckpointReloader(ReplicaSettings(run, **options), loads or Loads(run))


def test_the_reloader_loads_a_newer_checkpoint_unless_it_is_damaged(run_with, add):
    run = run_with(20)
    loads = Loads(run)
    now = reloader(run, loads)
    now.reload()
    assert (now.name, now.changes) == ("step-00000020", 0)
    file = spoil(add(run, 60))
    now.reload()
    now.reload()
    assert now.changes == 0
    assert loads.asked == ["20", "60"]  # a damaged checkpoint is read only once
    assert str(file) in now.damaged[0]
    add(run, 40)
    now.reload()
    assert (now.name, now.changes, now.current.checkpoint.step) == ("step-00000040", 1, 40)
    assert len(now.damaged) == 1
    shutil.rmtree(run / "checkpoints" / "step-00000060")
    add(run, 60)  # this time intact
    now.reload()
    assert (now.name, now.damaged) == ("step-00000060", [])
    assert loads.asked == ["20", "60", "40", "60"]


def test_the_reloader_starts_with_the_newest_intact_checkpoint(run_with):
    run = run_with(20, 40)
    spoil(run / "checkpoints" / "step-00000040")
    now = reloader(run)
    assert now.name == "step-00000020"
    assert "step-00000040" in now.damaged[0]
    spoil(run / "checkpoints" / "step-00000020")
    with pytest.raises(CheckpointError, match=r"no checkpoint to translate with: .*00000040"):
        reloader(run)


def test_with_follow_best_candidates_are_sorted_by_validation_loss(run_with):
    run = run_with(20, 40, 60)
    scores = {path: read_header(path).scores for path in candidates(ReplicaSettings(run))}
    assert len(scores) == 3
    costs = [scores[path]["loss"].cost for path in candidates(ReplicaSettings(run, follow="best"))]
    assert len(costs) == 2  # one checkpoint has no validation scores
    assert costs == sorted(costs)


def test_with_follow_average_the_reloader_uses_the_newest_average(run_with):
    run = run_with(20, 40, 60)
    with pytest.raises(CheckpointError, match="none for --follow average yet"):
        reloader(run, follow="average")
    of = [Checkpoint(run / "checkpoints" / f"step-{n:08d}") for n in (20, 40, 60)]
    average(run / "checkpoints", of[:2])
    now = reloader(run, follow="average")
    assert now.name == "average-of-20-40"
    average(run / "checkpoints", of[1:])
    now.reload()
    assert now.name == "average-of-40-60"


def test_an_average_is_served_until_the_run_has_a_checkpoint(run_with, add):
    run = run_with(20, 40)
    of = [Checkpoint(run / "checkpoints" / f"step-{n:08d}") for n in (20, 40)]
    average(run / "checkpoints", of)
    for checkpoint in of:
        shutil.rmtree(checkpoint.path)
    now = reloader(run)
    now.reload()
    assert now.name == "average-of-20-40"
    add(run, 60)
    now.reload()
    assert now.name == "step-00000060"


def test_the_reloader_keeps_a_named_checkpoint(run_with, add):
    run = run_with(20, 40)
    now = reloader(run, checkpoint="20")
    now.reload()
    assert (now.name, now.changes) == ("step-00000020", 0)


def test_settings_with_a_missing_checkpoint_or_run_are_refused(run_with, tmp_path):
    run = run_with(20)
    facts = facts_of(ReplicaSettings(run))
    assert (facts.source_language, facts.target_language) == ("fr", "en")
    assert facts_of(ReplicaSettings(run, max_tokens=7)).longest == 7
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 30\. .*\[20\]"):
        facts_of(ReplicaSettings(run, checkpoint="30"))
    with pytest.raises(RunMismatchError):
        facts_of(ReplicaSettings(tmp_path))


def test_each_change_and_each_damaged_checkpoint_is_logged_once(run_with, add, caplog):
    run = run_with(20)
    caplog.set_level("INFO")
    now = reloader(run)
    spoil(add(run, 60))
    for _ in range(2):
        now.reload()
    (warning,) = caplog.records
    assert "step-00000060" in warning.getMessage()
    assert warning.getMessage().endswith("keeps step-00000020")
    add(run, 40)
    now.reload()
    assert [one.getMessage() for one in caplog.records[1:]] == [
        "now translating with step-00000040"
    ]
