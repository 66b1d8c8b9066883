"""State of a run during training: everything that a checkpoint stores."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import nn

from trainer.state.ema import Ema
from trainer.state.progress import Progress
from trainer.zero.engine import TrainingEngine


@dataclass(frozen=True)
class TrainingState:
    """Progress, engine with weights and moments, and the moving average if the run keeps one."""

    progress: Progress
    engine: TrainingEngine
    ema: Ema | None

    def inference_model(self) -> AbstractContextManager[nn.Module]:
        """Return a context with the model for validation: the moving average, or the weights.

        A collective, see `TrainingEngine.inference_model`.
        """
        return (self.ema or self.engine).inference_model()
