"""State of a run during training: everything that a checkpoint stores."""

from dataclasses import dataclass

from trainer.state.ema import Ema
from trainer.state.progress import Progress
from trainer.zero.engine import TrainingEngine


@dataclass(frozen=True)
class TrainingState:
    """Progress, engine with weights and moments, and the moving average if the run keeps one."""

    progress: Progress
    engine: TrainingEngine
    ema: Ema | None
