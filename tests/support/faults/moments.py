"""The moments of a run at which a test can strike, and how it waits for one.

What stops the processes there is site/sitecustomize.py.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SITE = Path(__file__).with_name("site")

# The run of the matrix: at each of the moments below that have a step, it has checkpoints of steps
# 6 and 12. Validations are of steps 8, 16 and 24.
STEPS = 24
CHECKPOINT_EVERY = 6
VALIDATE_EVERY = 8


@dataclass(frozen=True)
class Moment:
    """Point in a run at which a fault strikes.

    Attributes:
        name: for people.
        point: where in the program, as sitecustomize.py calls it.
        step: at which step; "any" for the first one that comes. Of a data worker: which
            micro-batch of a window is the first that it is asked for.
        who: comes there; None for a rank.
    """

    name: str
    point: str
    step: int | Literal["any"]
    who: Literal["driver", "worker", "agent"] | None = None


START_UP = Moment("start-up", "joining", "any")
MID_STEP = Moment("mid-step", "step", 15)
COPY = Moment("checkpoint copy", "copy", 18)
WRITE = Moment("checkpoint write", "write", 18)
COMMIT = Moment("checkpoint commit", "commit", 18, who="driver")
VALIDATION = Moment("validation", "validation", 16)
FETCH = Moment("fetch", "fetch", 50, who="worker")  # for the first of two ranks, at step 11
MEMORY_COPY = Moment("copy to memory", "memory-copy", 16)
PULL = Moment("copy between nodes", "pull", "any", who="agent")
# While ranks that were started again after a loss load the checkpoint.
RECOVERY = Moment("recovery", "loading", "any")
LOSS = Moment("loss before a recovery", "step", 21)


@dataclass(frozen=True)
class Reached:
    """A process that has come to a moment and waits there."""

    marker: Path
    process_id: int

    def release(self) -> None:
        self.marker.unlink(missing_ok=True)


class Orders:
    """Moments that are wanted of the processes of a cluster, in a folder that all of them watch."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of processes that shall stop at moments."""
        path = [str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(path), "TRANSLOOM_FAULTS": str(self.folder)}

    def want(self, moment: Moment, rank: int = 0) -> str:
        """Let the next process that comes to the moment stop there; returns the order's name."""
        name = f"{moment.point}.rank-{moment.who or rank}.step-{moment.step}"
        (self.folder / f"wanted.{name}").touch()
        return name

    def look(self, name: str) -> Reached | None:
        """Return the process that waits at the ordered moment."""
        marker = next(self.folder.glob(f"reached.{name}.*"), None)
        return Reached(marker, int(marker.suffix[1:])) if marker else None

    def poison(self, step: int, rank: int) -> None:
        """Let that step's gradients be NaN in the rank's first slot, whenever it is computed."""
        (self.folder / f"nan.rank-{rank}.step-{step}").touch()

    def slow_down(self, rank: int, seconds: float, window: int) -> None:
        """Let a rank sleep in each pass, and ranks that start now compare this number of steps."""
        (self.folder / f"slow.rank-{rank}").write_text(str(seconds))
        (self.folder / "slow.window").write_text(str(window))

    def flip(self, step: int, rank: int) -> None:
        """Let a bit of the rank's weights flip in memory when it first comes to that step."""
        (self.folder / f"flip.rank-{rank}.step-{step}").touch()

    def falsify(self, step: int, rank: int, times: int = 1) -> None:
        """Let an element of the rank's share of that step's sum change this number of times."""
        (self.folder / f"sum.rank-{rank}.step-{step}").write_text(str(times))

    def skip(self, step: int, rank: int) -> None:
        """Let the rank leave out the all-gathers of that step when it first comes to that step."""
        (self.folder / f"skip.rank-{rank}.step-{step}").touch()

    def clear(self) -> None:
        """Cancel the order; processes that wait go on."""
        for file in self.folder.iterdir():
            file.unlink(missing_ok=True)
