"""Faults at exact moments: the curve of each run equals that of an undisturbed run.

These are the most telling cases of tests/chaos/test_fault_matrix.py, test_preemptions.py and
test_data_matrix.py; for a full disk see tests/trainer/state/test_checkpoint_writer.py.
"""

import os
import signal
from dataclasses import replace

import pytest
from support.faults.case import check_is_undisturbed
from support.faults.cluster import FaultCluster
from support.faults.faults import KilledRank, StoppedRank
from support.faults.moments import COPY, FETCH, VALIDATION, WRITE
from support.faults.preemptions import preempt_at
from support.faults.stage import opened_stage
from support.faults.trial import Trial

from run_store.record.metrics_lines import Resumed


@pytest.fixture(scope="module")
def stage(tmp_path_factory, ray_head, orders):
    with opened_stage(tmp_path_factory.mktemp("faults"), (ray_head, orders)) as stage:
        yield stage


def test_a_run_that_is_struck_twice_has_the_curve_of_an_undisturbed_run(
    undisturbed, tmp_path, ray_head, orders
):
    """A rank is suspended in a validation; the next rank is killed while it copies a checkpoint."""
    cluster = FaultCluster(tmp_path, (ray_head, orders))
    stopped = StoppedRank()
    shape = ("cluster.ranks=2", "trainer.max_steps=60", "trainer.validate_every_steps=30")
    options = (*shape, "checkpoints.every_steps=20", *stopped.options)
    trial = Trial(cluster, undisturbed.recipe, tmp_path / "struck", *options)
    strikes = ((stopped, replace(VALIDATION, step=30)), (KilledRank(0), replace(COPY, step=40)))
    try:
        trial.start()
        for fault, moment in strikes:
            reached = trial.reach(moment, fault.rank)
            fault.strike(trial, reached)
            reached.release()
        assert trial.end() == 0, trial.story()
        assert trial.outcome == "finished"
        assert len(trial.lines(Resumed)) == 2
        stopped.check(trial, trial.run.log.read_text())
        trial.check_nothing_is_left()
    finally:
        orders.clear()
        trial.kill()
    oracle = Trial(cluster, undisturbed.recipe, undisturbed.folder / "undisturbed").curve()
    check_is_undisturbed(trial, oracle)


@pytest.mark.chaos  # shorter form: the test of Ctrl-C in test_private_places.py
def test_a_preempted_run_continues_where_it_stopped(stage):
    trial = stage.trial()
    preempt_at(trial, [VALIDATION, WRITE])
    trial.start()
    assert trial.end() == 0
    assert trial.curve() == stage.undisturbed()
    trial.check_nothing_is_left()


@pytest.mark.chaos  # shorter forms: test_one_curve.py and test_data_workers.py
def test_the_data_does_not_depend_on_ranks_data_workers_or_kills(stage):
    """Train with one rank and data worker, then with two ranks and three workers, one of them
    killed.
    """
    begun = stage.trial("cluster.ranks=1", "cluster.data_workers=1", "trainer.max_steps=10")
    begun.start()
    assert begun.end() == 0, begun.story()
    trial = stage.trial("cluster.data_workers=3", folder=begun.run.path)
    trial.start()
    reached = trial.reach(replace(FETCH, step="any"), rank=0)  # windows follow from the corpus
    os.kill(reached.process_id, signal.SIGKILL)
    reached.release()
    assert trial.end() == 0, trial.story()
    assert "was lost; sending its request (fetch of window" in trial.run.log.read_text()
    assert trial.curve().digests == stage.undisturbed().digests
