"""Thirty kills at random moments: the curve stays the undisturbed one, to the last bit.

What is killed, and when, are random: ranks, spares, data workers, while the run trains and while it
recovers. `make chaos` runs it.
"""

import random
import time

import psutil
import pytest
from support.faults.case import check_is_undisturbed
from support.faults.stage import opened_stage
from support.processes import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

STEPS, KILLS = 300, 30
OPTIONS = (f"trainer.max_steps={STEPS}", "trainer.validate_every_steps=50")
ACTORS = ("RankActor", "DataWorker")
A_RECOVERY_SECONDS = 3.0


@pytest.mark.parametrize("seed", [1])
def test_ranks_spares_and_data_workers_killed_at_random(tmp_path, seed):
    dice = random.Random(seed)
    with opened_stage(tmp_path) as stage:
        trial = stage.trial(*OPTIONS)
        trial.start()
        for number in range(1, KILLS + 1):
            # So that the last one comes before the run's end. Every third one comes early, when
            # the run may still be recovering from the one before.
            step = 0 if number % 3 == 0 else number * (STEPS - 20) // KILLS
            wait_until(lambda step=step: trial.recorded_step >= step, 120)
            time.sleep(dice.uniform(0, A_RECOVERY_SECONDS))
            kill_one(stage.cluster, dice)
        assert trial.end() == 0, trial.story()
        check_is_undisturbed(trial, stage.undisturbed(*OPTIONS))
        trial.check_nothing_is_left()


def kill_one(cluster, dice):
    """One of all processes of the run but its driver."""
    wait_until(lambda: any(cluster.actors(name) for name in ACTORS), 60)
    victims = [process for name in ACTORS for process in cluster.actors(name)]
    try:
        dice.choice(victims).kill()
    except psutil.NoSuchProcess:
        kill_one(cluster, dice)
