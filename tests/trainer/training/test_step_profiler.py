"""Torch's profile of selected steps of a rank."""

import gzip
import json

import pytest
import torch

from run_store.folder import RunFolder, StepRange, profile_folder
from trainer.training.step_profiler import StepProfiler


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def train(profiler, steps):
    """Train a rank's steps, each a multiplication and its gradient."""
    weight = torch.ones(8, 8, requires_grad=True)
    for step in steps:
        with profiler.around(step):
            (weight @ weight).sum().backward()


def names_in(path):
    return {
        event["name"] for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    }


def test_requested_steps_are_traced_forward_and_backward(run):
    notices = []
    train(StepProfiler(StepRange(3, 4), run, 1, notices.append), range(1, 7))
    (path,) = profile_folder(run, StepRange(3, 4)).iterdir()
    assert path.name == "rank-1.json.gz"
    names = names_in(path)
    assert {name for name in names if name.startswith("step ")} == {"step 3", "step 4"}
    assert "aten::mm" in names
    assert any("MmBackward" in name for name in names)
    assert notices == []  # only rank 0 sends notices


def test_without_a_request_no_profile_is_written(run):
    profiler = StepProfiler(None, run, 0, pytest.fail)
    train(profiler, range(1, 7))
    profiler.close()
    assert not run.profiles.exists()


def test_a_rank_that_leaves_early_writes_its_profile_and_the_next_start_keeps_it(run):
    steps, notices = StepRange(3, 6), []
    first = StepProfiler(steps, run, 0, notices.append)
    train(first, range(1, 5))
    first.close()
    train(StepProfiler(steps, run, 0, notices.append), range(5, 7))
    folder = profile_folder(run, steps)
    assert "step 4" in names_in(folder / "rank-0.json.gz")
    assert "step 6" in names_in(folder / "rank-0.2.json.gz")
    assert len(list(folder.iterdir())) == 2
    assert notices == [f"the profile of steps 3:6 is in {folder}"] * 2


def test_a_profile_that_cannot_be_written_does_not_end_the_run(run):
    run.profiles.write_text("in the way")
    notices = []
    train(StepProfiler(StepRange(1, 1), run, 0, notices.append), [1, 2])
    assert "the profile of steps 1:1 cannot be saved" in notices[0]
