"""Pairs of garbage cause a spike, which is skipped on any number of ranks and after a kill."""

import pytest
from support.poisoned import poisoned_recipe
from support.ranks import spike_jobs
from support.records.checkpoints import commit_state, work_folder
from support.records.run_folders import opened_run

from cluster.recipe import load_recipe
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import folder_name
from run_store.record.facts import MEASURED
from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import ReplayMismatch, SkippedLine, StepLine, TrainLine
from transloom.observe.comparison.comparison import compare_runs

STEPS = 40
SPIKE = 37  # step of the second epoch with the garbage; in the first epoch, losses fall too fast
DIES_IN = 39
GUARD = "{window: 6, minimum_steps: 6, loss_deviations: 6, norm_deviations: 20}"
SAVING = ("checkpoints.every_steps=5", "decoding.max_length_factor=0.2")
# Fields of a line that depend on machine, time or ranks.
OF_THE_PLACE = {*(fact.name for fact in MEASURED), "ranks"}


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """Return the folder of the recipe and its dataset."""
    folder = tmp_path_factory.mktemp("poisoned")
    poisoned_recipe(folder)
    return folder


class Run:
    """Run that processes of this test train, without Ray."""

    def __init__(self, rank_pools, poisoned, path, *overrides):
        recipe = load_recipe(
            poisoned / "recipe.yaml", [*SAVING, f"trainer.spike_guard={GUARD}", *overrides]
        )
        self.folder = opened_run(path, recipe)
        self.recipe = recipe
        self.notices = []
        self._pools = rank_pools

    def train(self, ranks, *, stage=1, checkpoint=None, dies_in=None):
        engine = self.recipe.engine.model_copy(update={"zero_stage": stage})
        recipe = self.recipe.model_copy(update={"engine": engine}).training()
        start = self.folder.checkpoints / folder_name(checkpoint) if checkpoint else None
        results = self._pools(ranks).run(
            spike_jobs.train_run, recipe, self.folder.path, start, dies_in
        )
        self.notices += results[0][1]
        for parts in zip(*(written for written, _ in results), strict=True):
            header = parts[0][1]
            commit_state(work_folder(self.folder.checkpoints), header, [file for file, _ in parts])

    def header(self, step):
        return Checkpoint(self.folder.checkpoints / folder_name(step)).header

    def curve(self):
        """Return the lines of the run's steps without fields that depend on machine or ranks."""
        lines = [line for line in read_metrics(self.folder.metrics) if isinstance(line, StepLine)]
        return [line.model_dump(exclude=OF_THE_PLACE) for line in lines]


@pytest.fixture(scope="module")
def exact(rank_pools, poisoned, tmp_path_factory):
    """Return an undisturbed run with exact numerics, on one rank."""
    run = Run(rank_pools, poisoned, tmp_path_factory.mktemp("exact") / "run")
    run.train(1)
    return run


def assert_same(run, other):
    assert run.curve() == other.curve()
    for step in (35, STEPS):
        mine, theirs = run.header(step), other.header(step)
        assert mine.recent_steps == theirs.recent_steps
        assert mine.gradient_peaks == theirs.gradient_peaks
    compared = compare_runs(run.folder.path, other.folder.path)
    assert compared.is_same, compared
    assert (compared.steps, compared.checkpoint_step) == (STEPS, STEPS)
    assert compared.tensors > 50


def test_only_the_step_with_the_garbage_is_skipped(exact):
    lines = read_metrics(exact.folder.metrics)
    (skipped,) = (line for line in lines if isinstance(line, SkippedLine))
    assert (skipped.step, skipped.cause, len(skipped.slots)) == (SPIKE, "spike", 1)
    assert skipped.loss > skipped.loss_threshold
    assert skipped.grad_norm < skipped.grad_norm_threshold
    assert exact.header(STEPS).optimizer_step == STEPS - 1
    assert exact.header(STEPS).skipped_spikes == 1
    before = [line for line in lines if isinstance(line, TrainLine) and line.step < SPIKE]
    assert exact.header(35).recent_steps.losses == tuple(line.loss for line in before[29:35])


@pytest.mark.parametrize(("ranks", "stage"), [(3, 0), pytest.param(2, 3, marks=pytest.mark.chaos)])
def test_any_number_of_ranks_and_stage_skip_the_same_step_to_the_last_bit(
    rank_pools, poisoned, tmp_path, exact, ranks, stage
):
    run = Run(rank_pools, poisoned, tmp_path / "run")
    run.train(ranks, stage=stage)
    assert_same(run, exact)


def test_a_killed_run_skips_the_same_step_on_other_ranks(rank_pools, poisoned, tmp_path, exact):
    """Half of the window that decides is before the checkpoint, half after it."""
    run = Run(rank_pools, poisoned, tmp_path / "run")
    run.train(2, dies_in=DIES_IN)
    assert run.header(35).step < SPIKE < DIES_IN
    run.train(3, stage=2, checkpoint=35)
    told = [text for text in run.notices if f"step {SPIKE} is skipped" in text]
    assert len(told) == 2  # once each time that the step is trained
    assert not [
        line for line in read_metrics(run.folder.metrics) if isinstance(line, ReplayMismatch)
    ]
    assert_same(run, exact)


def test_with_fast_numerics_a_killed_run_on_as_many_ranks_has_the_same_bits(
    rank_pools, poisoned, tmp_path
):
    whole, killed = (
        Run(rank_pools, poisoned, tmp_path / name, "engine.numerics=fast")
        for name in ("whole", "killed")
    )
    whole.train(2)
    killed.train(2, dies_in=DIES_IN)
    killed.train(2, checkpoint=35)
    (skipped,) = (line for line in whole.curve() if line["kind"] == "skipped")
    assert skipped["step"] == SPIKE
    assert_same(killed, whole)
