"""Points of a run ("moments") at which a test can stop a process, and how a test waits for them.

site/sitecustomize.py stops the processes.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SITE = Path(__file__).with_name("site")

# The run of the matrix has checkpoints of steps 6 and 12 at each of the moments below that have a
# step. It validates at steps 8, 16 and 24.
STEPS = 24
CHECKPOINT_EVERY = 6
VALIDATE_EVERY = 8


@dataclass(frozen=True)
class Moment:
    """Point in a run at which a fault is applied.

    Attributes:
        name: description for people.
        point: name of the place in the program, as in sitecustomize.py.
        step: the step; "any" for the next step. For a data worker: the first micro-batch of a
            window that is requested from it.
        who: the process that reaches the point; None for a rank.
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
# A rank that was restarted after a loss loads the checkpoint.
RECOVERY = Moment("recovery", "loading", "any")
LOSS = Moment("loss before a recovery", "step", 21)


@dataclass(frozen=True)
class Reached:
    """Process that waits at a moment."""

    marker: Path
    process_id: int

    def release(self) -> None:
        self.marker.unlink(missing_ok=True)


class Orders:
    """Requests that processes of a cluster stop at moments, in a folder that all of them read."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables of processes that can stop at moments."""
        path = [str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(path), "TRANSLOOM_FAULTS": str(self.folder)}

    def want(self, moment: Moment, rank: int = 0) -> str:
        """Stop the next process that reaches the moment; return the order's name."""
        name = f"{moment.point}.rank-{moment.who or rank}.step-{moment.step}"
        (self.folder / f"wanted.{name}").touch()
        return name

    def look(self, name: str) -> Reached | None:
        """Return the process that waits at the ordered moment."""
        marker = next(self.folder.glob(f"reached.{name}.*"), None)
        return Reached(marker, int(marker.suffix[1:])) if marker else None

    def poison(self, step: int, rank: int) -> None:
        """Set the gradients of the rank's first slot in this step to NaN, also in repetitions."""
        (self.folder / f"nan.rank-{rank}.step-{step}").touch()

    def slow_down(self, rank: int, seconds: float, window: int) -> None:
        """Slow a rank down in each pass; ranks that start now compare this number of steps."""
        (self.folder / f"slow.rank-{rank}").write_text(str(seconds))
        (self.folder / "slow.window").write_text(str(window))

    def flip(self, step: int, rank: int) -> None:
        """Flip a bit of the rank's weights in memory when the rank first reaches that step."""
        (self.folder / f"flip.rank-{rank}.step-{step}").touch()

    def falsify(self, step: int, rank: int, times: int = 1) -> None:
        """Change an element of the rank's share of that step's sum this number of times."""
        (self.folder / f"sum.rank-{rank}.step-{step}").write_text(str(times))

    def skip(self, step: int, rank: int) -> None:
        """Skip the rank's all-gathers of that step when the rank first reaches it."""
        (self.folder / f"skip.rank-{rank}.step-{step}").touch()

    def clear(self) -> None:
        """Cancel the order; waiting processes continue."""
        for file in self.folder.iterdir():
            file.unlink(missing_ok=True)
