"""A run that is preempted repeatedly, each time by SIGTERM to a new driver."""

import os
import random
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace

from support.cluster.processes import wait_until
from support.faults.moments import (
    CHECKPOINT_EVERY,
    COMMIT,
    COPY,
    MID_STEP,
    RECOVERY,
    START_UP,
    VALIDATE_EVERY,
    VALIDATION,
    WRITE,
    Moment,
)
from support.faults.trial import Trial

# Maximum number of steps to any moment that `random_moments` chooses.
LONGEST_WAY = max(CHECKPOINT_EVERY, VALIDATE_EVERY)

# Points at which training would continue to its end while another thread is held.
BESIDE_TRAINING = (WRITE.point, COMMIT.point)


def preempt_at(trial: Trial, moments: Iterable[Moment]) -> None:
    """Preempt a run at each moment: the exit code is 75, and its last step has a checkpoint.

    Each moment is requested after the driver of the previous one has ended.
    """
    for moment in moments:
        trial.start()
        wanted = [trial.cluster.orders.want(moment)]
        if moment.point in BESIDE_TRAINING and isinstance(moment.step, int):
            following = replace(MID_STEP, step=moment.step + 1)
            wanted.append(trial.cluster.orders.want(following))
        held = [trial.wait_for(order) for order in wanted]
        heard = _times_heard(trial)
        os.kill(trial.driver, signal.SIGTERM)
        if moment.who == "driver":  # the driver handles signals while it is held
            held.pop(0).release()
        wait_until(lambda heard=heard: _times_heard(trial) > heard or trial.has_ended)
        for reached in held:
            reached.release()
        exit_code = trial.end()
        assert exit_code == 75, f"exit code {exit_code} at {moment}\n{trial.story()}"
        assert (trial.checkpoint.step if trial.checkpoint else 0) == trial.recorded_step, moment


def _times_heard(trial: Trial) -> int:
    """Return how many times drivers of the run have received SIGTERM."""
    log = trial.run.log
    return log.read_text().count("SIGTERM was received") if log.exists() else 0


def random_moments(trial: Trial, dice: random.Random, count: int) -> Iterator[Moment]:
    """Yield random moments of all kinds, each later than the run's current step."""
    for _ in range(count):
        header = trial.checkpoint.header if trial.checkpoint else None
        step = header.step if header else 0
        ahead = [
            START_UP,
            replace(MID_STEP, step=step + dice.randint(1, LONGEST_WAY)),
            *(replace(m, step=_next(step, CHECKPOINT_EVERY)) for m in (COPY, WRITE, COMMIT)),
            replace(VALIDATION, step=_next(step, VALIDATE_EVERY)),
        ]
        if header:
            ahead.append(RECOVERY)  # the run loads a checkpoint, as in any continuation
            if header.validation_due:
                ahead.append(replace(VALIDATION, step=step))
        yield dice.choice(ahead)


def _next(step: int, every: int) -> int:
    return (step // every + 1) * every
