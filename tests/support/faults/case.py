"""A fault at a moment: what it took, and whether the run is the undisturbed one all the same."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from support.cluster.processes import wait_until
from support.faults.cluster import FaultCluster
from support.faults.faults import Fault
from support.faults.moments import MID_STEP, RECOVERY, Moment
from support.faults.trial import Curve, Trial
from trainer.record.metrics_lines import Event, Preempted, RankHung, Resumed, TrainLine


@dataclass(frozen=True)
class Result:
    """A row of the table.

    Attributes:
        seconds: from the fault to the first step that the record had not got yet; None if it had
            them all.
        lost_steps: recorded steps that had to be trained again.
    """

    fault: str
    moment: str
    seconds: float | None
    lost_steps: int
    outcome: str


def undergo(
    cluster: FaultCluster,
    recipe: Path,
    location: Path | str,
    fault: Fault,
    moment: Moment,
    oracle: Curve,
    options: Sequence[str] = (),
) -> Result:
    """Train a run that is struck at a moment, and compare it with the undisturbed one."""
    trial = Trial(cluster, recipe, location, *fault.options, *options)
    try:
        if fault.poisons:
            cluster.orders.poison(*fault.poisons)
        fault.prepare(trial)
        trial.start()
        if moment is RECOVERY:
            _lose_a_rank(trial)
        reached = trial.reach(moment, fault.rank)
        before, struck = _totals(trial), time.time()
        fault.strike(trial, reached)
        if not fault.holds:
            reached.release()
        fault.mend(trial)
        exit_code = trial.end()
        assert fault.is_expected(exit_code), f"exit code {exit_code}\n{trial.story()}"
        if fault.again:
            trial.start()
            assert trial.end() == 0, trial.story()
        assert trial.outcome == "finished"
        check_is_undisturbed(trial, oracle)
        fault.check(trial)
        trial.check_nothing_is_left()
        return Result(
            fault=fault.name,
            moment=moment.name,
            seconds=_seconds_to_first_new(trial, before, struck),
            lost_steps=_totals(trial).lost_steps - before.lost_steps,
            outcome="same curve" + (", same command again" if fault.again else ""),
        )
    finally:
        cluster.orders.clear()
        trial.kill()
        fault.clean_up(trial)


def check_is_undisturbed(trial: Trial, oracle: Curve) -> None:
    """Bitwise the oracle's curve, each step once, and nothing in the record that says otherwise."""
    assert trial.curve() == oracle, trial.story()
    assert all(isinstance(event, Resumed | Preempted | RankHung) for event in trial.lines(Event))


def _lose_a_rank(trial: Trial) -> None:
    """Start a recovery that loads a checkpoint, for the fault to strike."""
    reached = trial.reach(MID_STEP, rank=1)
    wait_until(lambda: trial.checkpoint)  # commits trail the steps on a busy machine
    os.kill(reached.process_id, signal.SIGKILL)
    reached.release()


class Totals(NamedTuple):
    """The record's last step, with the totals up to there."""

    step: int = 0
    restarts: int = 0
    lost_steps: int = 0


def _totals(trial: Trial) -> Totals:
    lines = trial.lines(TrainLine)
    if not lines:
        return Totals()
    last = lines[-1]
    return Totals(last.step, last.restarts or 0, last.lost_steps or 0)


def _seconds_to_first_new(trial: Trial, before: Totals, struck: float) -> float | None:
    """If the ranks were started again, to the first step after that: what a struck run still
    recorded until it noticed is no recovery.
    """
    new = [line for line in trial.lines(TrainLine) if line.step > before.step]
    recovered = [line for line in new if (line.restarts or 0) > before.restarts]
    return next((line.time - struck for line in recovered or new), None)
