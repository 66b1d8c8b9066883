"""Twenty preemptions in a row at random moments: each exits with 75, and the curve is undisturbed.

The long form of a test in tests/integration/test_faults.py; `make chaos` runs it.
"""

import random

import pytest
from support.faults.preemptions import LONGEST_WAY, preempt_at, random_moments
from support.faults.stage import opened_stage

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

TIMES = 20
STEPS = f"trainer.max_steps={(TIMES + 1) * LONGEST_WAY}"


@pytest.mark.parametrize("seed", [1])
def test_twenty_random_preemptions_exit_with_75_and_keep_the_curve(tmp_path, seed):
    with opened_stage(tmp_path) as stage:
        trial = stage.trial(STEPS)
        preempt_at(trial, random_moments(trial, random.Random(seed), TIMES))
        trial.start()
        assert trial.end() == 0
        assert trial.exit_codes == [75] * TIMES + [0]
        assert trial.curve() == stage.undisturbed(STEPS)
        trial.check_nothing_is_left()
