"""Run `eole train` in Eole's environment, and record the time of each step.

    python train_eole.py CONFIG STEPS

This file is not called eole.py, which could be imported instead of Eole itself.
"""

import sys
from pathlib import Path
from typing import Any

from eole.bin.main import main  # type: ignore[import-not-found]
from eole.trainer import Trainer  # type: ignore[import-not-found]

from benchmarks.support.record import StepRecord


def record_steps(path: Path) -> None:
    """Make Eole's trainer record each step, with the unpadded target tokens of its statistics."""
    record = StepRecord(path)
    train_step = Trainer._train_step

    def recorded(
        self: Any, batches: Any, normalization: Any, total: Any, *rest: Any, **by_name: Any
    ) -> None:
        before = total.n_tokens
        train_step(self, batches, normalization, total, *rest, **by_name)
        record.step(int(total.n_tokens - before))

    Trainer._train_step = recorded


if __name__ == "__main__":
    config, steps = sys.argv[1:]
    record_steps(Path(steps))
    sys.argv = ["eole", "train", "--config", config]
    main()
