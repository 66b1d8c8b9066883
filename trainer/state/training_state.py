"""Everything that a checkpoint holds, in its form during training."""

from dataclasses import dataclass

from trainer.state.ema import Ema
from trainer.state.progress import Progress
from trainer.zero.engine import TrainingEngine


@dataclass(frozen=True)
class TrainingState:
    """Progress, engine (weights and moments), and the moving average if the run keeps one."""

    progress: Progress
    engine: TrainingEngine
    ema: Ema | None
