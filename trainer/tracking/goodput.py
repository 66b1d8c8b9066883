"""Goodput of a run: the share of its time that produced its curve, and its restarts and lost steps.

::

    goodput = counted seconds / wall seconds                    0 … 1

  - *Counted seconds* are the durations of all applied steps. Each step counts once: repetitions of
    recorded steps do not count.
  - *Wall seconds* are the time in which a driver owned the run, up to the last recorded step. Each
    such period is a session. The time between two sessions is not wall time. Work between two
    steps is wall time, but is not counted: validations, stalls for checkpoints, skipped steps.
    After a rank is lost, the time until the first new step is not counted either: detecting the
    loss, starting ranks, repeating steps.
  - *Restarts* are starts of the ranks after the run's first start. *Lost steps* are the recorded
    steps that ranks have to train again after restarts, because they come after the checkpoint that
    the ranks resumed from.

If the clock is set while ranks train, the jump is not wall time. Every train line has the totals up
to its step, and a `resumed` event has the numbers of restarts and lost steps. So the ranks read the
totals from the end of the metrics file when they start. If a start fails before it records
anything, it leaves no trace in the metrics file, and does not count as a restart.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from run_store.record.metrics_lines import Line, Resumed, StepLine, TrainLine


@dataclass(frozen=True)
class Goodput:
    """Totals of a run up to a point in time.

    Attributes:
        until: this point in time, in seconds since the epoch.
        restarts: the number of starts of the ranks after the first start.
        lost_steps: the number of recorded steps that had to be trained again.
        wall_seconds: the time for which a driver owned the run.
        counted_seconds: the durations of the steps that counted.
    """

    until: float
    restarts: int = 0
    lost_steps: int = 0
    wall_seconds: float = 0.0
    counted_seconds: float = 0.0

    def after_step(self, ended: float, step_seconds: float) -> "Goodput":
        """Return the totals after a step that the metrics file does not have yet.

        The wall time grows by the time since the last step, but at least by `step_seconds`, even if
        the clock was set back in between.
        """
        return replace(
            self,
            until=ended,
            wall_seconds=self.wall_seconds + max(ended - self.until, step_seconds),
            counted_seconds=self.counted_seconds + step_seconds,
        )

    @property
    def fields(self) -> dict[str, Any]:
        """The totals as fields of a `TrainLine`."""
        wall, counted = self.wall_seconds, self.counted_seconds
        return {
            "restarts": self.restarts,
            "lost_steps": self.lost_steps,
            "wall_seconds": round(wall, 3),
            "counted_seconds": round(counted, 3),
            "goodput": round(counted / wall, 4) if wall > 0 else 1.0,
        }


def goodput_at_start(
    lines_backwards: Iterable[Line], resume_step: int, session_started: float
) -> Goodput:
    """Return the totals at a start of the ranks, from the end of the metrics file.

    If a version that did not record totals wrote the lines, the totals begin with this start.

    Args:
        lines_backwards: the lines of the metrics file, last line first; read up to the last train
            line.
        resume_step: the step of the checkpoint that this start resumes from, or 0.
        session_started: when the driver began to own the run, in seconds since the epoch.
    """
    tail: list[Line] = []  # the lines back to the last train line, last line first
    for line in lines_backwards:
        tail.append(line)
        if isinstance(line, TrainLine):
            break
    train = next((line for line in tail if isinstance(line, TrainLine)), None)
    counted = next((line for line in tail if isinstance(line, TrainLine | Resumed)), None)
    restarts, lost_steps = (counted.restarts, counted.lost_steps) if counted else (None, None)
    last_step = next((line.step for line in tail if isinstance(line, StepLine)), 0)
    return Goodput(
        # Wall time continues from the last step if the last step was in this session, and otherwise
        # from the start of the session.
        until=max(train.time if train else 0.0, session_started),
        restarts=(restarts or 0) + 1 if tail else 0,
        lost_steps=(lost_steps or 0) + max(0, last_step - resume_step),
        wall_seconds=(train.wall_seconds if train else None) or 0.0,
        counted_seconds=(train.counted_seconds if train else None) or 0.0,
    )
