"""Record the steps of Hugging Face's Trainer, for scripts that run in a peer's environment."""

from typing import Any

from transformers import Trainer, TrainerCallback  # type: ignore[import-not-found]

from benchmarks.support.record import StepRecord


class CountingTrainer(Trainer):  # type: ignore[misc]
    """Trainer with the number of tokens in the newest step."""

    tokens = 0

    def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
        self.tokens = inputs["input_ids"].numel()
        return super().training_step(model, inputs, *rest)


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Callback that records each step."""

    def __init__(self, record: StepRecord) -> None:
        self.record = record
        self.trainer: Any  # trainer that counts `tokens`

    def on_step_end(self, *arguments: Any, **by_name: Any) -> None:
        self.record.step(self.trainer.tokens)
