"""Apply a fault at a moment, measure its cost, and compare the run with the undisturbed run."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from run_store.record.metrics_lines import Event, Preempted, RankHung, Resumed, TrainLine
from support.cluster.processes import wait_until
from support.faults.cluster import FaultCluster
from support.faults.faults import Fault
from support.faults.moments import LOSS, RECOVERY, WRITE, Moment, Reached
from support.faults.trial import Curve, Trial

NOTICED = "of this session"  # end of the log line that the driver writes when it restarts ranks


@dataclass(frozen=True)
class Result:
    """Row of the table.

    Attributes:
        seconds: time from the fault to the first step that the record did not have yet; None if it
            had all steps.
        lost_steps: number of recorded steps that were trained again.
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
    moments: Sequence[Moment],
    oracle: Curve,
    options: Sequence[str] = (),
) -> list[Result]:
    """Train a run with a fault at each of the moments, and compare it with the undisturbed run.

    moments: in the order in which the run reaches them.
    """
    trial = Trial(cluster, recipe, location, *fault.options, *options)
    results: list[Result] = []
    try:
        if fault.poisons:
            cluster.orders.poison(*fault.poisons)
        fault.prepare(trial)
        trial.start()
        strike, orders = None, {moments[0]: _want(trial, fault, moments[0])}
        # order all moments at once, because no rank is restarted and reaches a moment twice
        if fault.goes_on:
            orders = {moment: _want(trial, fault, moment) for moment in moments}
        for moment, following in zip_longest(moments, moments[1:]):
            reached = _reached(trial, fault, moment, orders[moment])
            if strike:
                results.append(strike.result(trial))
            strike = _Strike.at(moment, fault, trial)
            fault.strike(trial, reached)
            # a rank whose writer hangs continues to train until the driver notices the hang
            if fault.holds:
                wait_until(lambda strike=strike: NOTICED in strike.told(trial))
            else:
                reached.release()
            fault.mend(trial)
            if fault.again:
                _require_expected_end(trial, fault)
                trial.start()
            # order this only now, because a dying rank might have reached the moment earlier
            if following and not fault.goes_on:
                orders[following] = _want(trial, fault, following)
        exit_code = trial.end()
        assert exit_code == 0, f"exit code {exit_code}\n{trial.story()}"
        assert trial.outcome == "finished"
        assert strike
        results.append(strike.result(trial))
        check_is_undisturbed(trial, oracle)
        trial.check_nothing_is_left()
        return results
    finally:
        cluster.orders.clear()
        trial.kill()
        fault.clean_up(trial)


@dataclass(frozen=True)
class _Strike:
    """Fault that has been applied, and the run's record at that time."""

    moment: Moment
    fault: Fault
    before: "Totals"
    time: float
    log_bytes: int

    @classmethod
    def at(cls, moment: Moment, fault: Fault, trial: Trial) -> "_Strike":
        log = trial.run.log
        size = log.stat().st_size if log.exists() else 0
        return cls(moment, fault, _totals(trial), time.time(), size)

    def told(self, trial: Trial) -> str:
        """Return the part of the run's log since the fault."""
        return trial.run.log.read_bytes()[self.log_bytes :].decode(errors="replace")

    def result(self, trial: Trial) -> Result:
        """Check the run after it has reached the next moment or ended; return the result."""
        self.fault.check(trial, self.told(trial))
        return Result(
            fault=self.fault.name,
            moment=self.moment.name,
            seconds=_seconds_to_first_new(trial, self.before, self.time),
            lost_steps=_totals(trial).lost_steps - self.before.lost_steps,
            outcome="same curve" + (", same command again" if self.fault.again else ""),
        )


def _want(trial: Trial, fault: Fault, moment: Moment) -> str:
    """Order a stop at the moment; for a recovery, order one at the earlier loss of a rank."""
    if moment is RECOVERY:
        return trial.cluster.orders.want(LOSS, rank=1)
    return trial.cluster.orders.want(moment, fault.rank)


def _reached(trial: Trial, fault: Fault, moment: Moment, order: str) -> Reached:
    reached = trial.wait_for(order)
    if moment is not RECOVERY:
        return reached
    # Kill a rank, so that a recovery starts that loads a checkpoint, in which the fault occurs.
    # On a busy machine, commits and records lag behind the steps, and without a recorded step this
    # attempt would be the third in a row without progress.
    wait_until(lambda: trial.checkpoint and trial.recorded_step > WRITE.step)
    os.kill(reached.process_id, signal.SIGKILL)
    reached.release()
    return trial.reach(RECOVERY, fault.rank)


def _require_expected_end(trial: Trial, fault: Fault) -> None:
    exit_code = trial.end()
    assert fault.is_expected(exit_code), f"exit code {exit_code}\n{trial.story()}"


def check_is_undisturbed(trial: Trial, oracle: Curve) -> None:
    """Check that the curve equals the oracle's bit by bit, without unexpected events."""
    assert trial.curve() == oracle, trial.story()
    assert all(isinstance(event, Resumed | Preempted | RankHung) for event in trial.lines(Event))


class Totals(NamedTuple):
    """Last step of the record, with the totals up to this step."""

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
    """Return the seconds from the fault to the first new step.

    If the ranks were restarted, only steps after the restart count, because a run may record steps
    until it notices the fault.
    """
    new = [line for line in trial.lines(TrainLine) if line.step > before.step]
    recovered = [line for line in new if (line.restarts or 0) > before.restarts]
    return next((line.time - struck for line in recovered or new), None)
