"""After thirty kills at random moments, the curve is the undisturbed one, bit by bit.

The killed processes are random, too: ranks, spares and data workers, while the run trains and while
it recovers. `make chaos` runs this test.
"""

import random
from dataclasses import replace

import psutil
import pytest
from support.cluster.processes import wait_until
from support.faults.case import check_is_undisturbed
from support.faults.moments import MID_STEP
from support.faults.stage import opened_stage

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

STEPS, KILLS = 300, 30
OPTIONS = (f"trainer.max_steps={STEPS}", "trainer.validate_every_steps=50")
ACTORS = ("RankActor", "DataWorker")


@pytest.mark.parametrize("seed", [1])
def test_random_kills_of_ranks_spares_and_data_workers_keep_the_curve(tmp_path, seed):
    dice = random.Random(seed)
    with opened_stage(tmp_path) as stage:
        trial = stage.trial(*OPTIONS)
        orders = {
            number: order_for(stage.cluster, dice, number)
            for number in range(1, KILLS + 1)
            if number % 3
        }
        trial.start()
        for number in range(1, KILLS + 1):
            # Every third kill is early, while the run may still recover from the previous one.
            reached = trial.wait_for(orders[number]) if number in orders else None
            kill_one(stage.cluster, dice)
            if reached:
                reached.release()
        assert trial.end() == 0, trial.story()
        check_is_undisturbed(trial, stage.undisturbed(*OPTIONS))
        trial.check_nothing_is_left()


def order_for(cluster, dice, number):
    """Order a rank to wait in the middle of a step for its kill, and return the order."""
    step = number * (STEPS - 20) // KILLS + dice.randrange(5)
    return cluster.orders.want(replace(MID_STEP, step=step), dice.randrange(2))


def kill_one(cluster, dice):
    """Kill one process of the run at random, but not its driver."""
    wait_until(lambda: any(cluster.actors(name) for name in ACTORS))
    victims = [process for name in ACTORS for process in cluster.actors(name)]
    try:
        dice.choice(victims).kill()
    except psutil.NoSuchProcess:
        kill_one(cluster, dice)
