"""Faults at exact moments, the most telling ones: each run's curve is the undisturbed one.

The short form of tests/chaos/test_fault_matrix.py, test_preemptions.py and test_data_matrix.py; for
a full disk see tests/trainer/checkpoints/test_writer.py.
"""

import os
import signal

import pytest
from support.faults.faults import KilledRank, StoppedRank
from support.faults.matrix import name_of
from support.faults.moments import COPY, FETCH, VALIDATION, WRITE
from support.faults.preemptions import preempt_at
from support.faults.stage import opened_stage

CASES = [
    (KilledRank(0), COPY),
    (StoppedRank(), VALIDATION),
]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with opened_stage(tmp_path_factory.mktemp("faults")) as stage:
        yield stage


@pytest.mark.parametrize(
    ("fault", "moment"), [pytest.param(*case, id=name_of(*case)) for case in CASES]
)
def test_the_curve_is_the_undisturbed_one(stage, fault, moment):
    result = stage.undergo(fault, moment)
    assert result.seconds is None or result.seconds > 0


@pytest.mark.chaos  # the short form is the driver's Ctrl-C in test_driver.py
def test_a_run_that_is_preempted_goes_on_where_it_stopped(stage):
    trial = stage.trial()
    preempt_at(trial, [VALIDATION, WRITE])
    trial.start()
    assert trial.end() == 0
    assert trial.curve() == stage.undisturbed()
    trial.check_nothing_is_left()


@pytest.mark.chaos  # the short forms are in test_one_curve.py and test_data_workers.py
def test_the_data_does_not_depend_on_ranks_data_workers_kills_and_restarts(stage):
    """One rank with one data worker, then two with three, of which one is killed as it answers."""
    begun = stage.trial("cluster.ranks=1", "cluster.data_workers=1", "trainer.max_steps=10")
    begun.start()
    assert begun.end() == 0, begun.story()
    trial = stage.trial("cluster.data_workers=3", folder=begun.run.path)
    trial.start()
    reached = trial.reach(FETCH, rank=0)
    os.kill(reached.process_id, signal.SIGKILL)
    reached.release()
    assert trial.end() == 0, trial.story()
    assert "was lost: its fetch of window 0" in trial.run.log.read_text()
    assert trial.curve().digests == stage.undisturbed().digests
