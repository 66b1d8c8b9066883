"""Faults at exact moments, the most telling ones: each run's curve is the undisturbed one.

The short form of tests/chaos/test_fault_matrix.py and test_preemptions.py.
"""

import pytest
from support.faults.faults import FullDisk, KilledRank, StoppedRank
from support.faults.matrix import name_of
from support.faults.moments import COPY, VALIDATION, WRITE
from support.faults.preemptions import preempt_at
from support.faults.stage import opened_stage

CASES = [
    (KilledRank(0), COPY),
    (StoppedRank(), VALIDATION),
    (FullDisk(), WRITE),
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


def test_a_run_that_is_preempted_goes_on_where_it_stopped(stage):
    trial = stage.trial()
    preempt_at(trial, [VALIDATION, WRITE])
    trial.start()
    assert trial.end() == 0
    assert trial.curve() == stage.undisturbed()
    trial.check_nothing_is_left()
