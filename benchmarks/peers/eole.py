"""`eole train`, with the time of each step written down. Runs in Eole's own environment.

python peers_eole.py CONFIG STEPS
"""

import sys
from pathlib import Path
from typing import Any

from eole.bin.main import main  # type: ignore[import-not-found]
from eole.trainer import Trainer  # type: ignore[import-not-found]

from benchmarks.support.record import StepRecord


def record_steps(path: Path) -> None:
    """Lets Eole's trainer write down each step; its statistics count unpadded target tokens."""
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
