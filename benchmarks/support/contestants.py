"""Programs whose speed is compared; each run is a process that records its steps."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.support.environments import peer_variables
from benchmarks.support.record import Step, read_steps
from benchmarks.support.trainings import train_command
from cluster.recipe import Recipe
from run_store.record.metrics_file import train_lines

ENDLESS = 10_000_000  # number of steps that no run reaches


class Transloom:
    """Contestant that runs the complete `transloom train`; a single rank is trained inline."""

    folder: Path

    def __init__(
        self,
        recipe: str,
        threads: int,
        overrides: list[str],
        ranks: int = 1,
        tokens_of_each: float = 1.0,
        validate_every: int = ENDLESS,
        *,
        inline: bool | None = None,
    ) -> None:
        """Create the contestant.

        Args:
            recipe: name or file of the recipe.
            threads: number of threads of all ranks together.
            overrides: overrides of the recipe, including the locations of corpus and dataset.
            ranks: number of ranks.
            tokens_of_each: number of tokens that each recorded target token represents.
            validate_every: number of steps from one validation to the next.
            inline: train without Ray; None for a single rank only.
        """
        self._tokens_of_each = tokens_of_each
        self._recipe = recipe
        self.environment: dict[str, str] = {}
        self._arguments = [
            *overrides,
            f"trainer.max_steps={ENDLESS}",
            f"trainer.validate_every_steps={validate_every}",
            f"checkpoints.every_steps={ENDLESS}",
            f"cluster.ranks={ranks}",
            f"cluster.cpus_per_rank={threads // ranks}",
            *(["--inline"] if (ranks == 1 if inline is None else inline) else []),
        ]

    def enter(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def command(self) -> list[str]:
        return train_command(self._recipe, self._arguments, self.folder / "run")

    def steps(self) -> list[Step]:
        lines = train_lines(self.folder / "run" / "metrics.jsonl")
        each = self._tokens_of_each
        return [Step(line.time, round(line.target_tokens * each)) for line in lines]


class Script:
    """Contestant that runs a script, which reads its settings as JSON and records its steps."""

    folder: Path
    settings_file = "settings.json"

    def __init__(
        self, script: Path, settings: dict[str, Any], threads: int, python: Path | None = None
    ) -> None:
        self.environment = {"OMP_NUM_THREADS": str(threads), **peer_variables()}
        self._command = [str(python or sys.executable), str(script)]
        self._settings = settings

    def enter(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / self.settings_file).write_text(json.dumps(self._settings))

    def command(self) -> list[str]:
        here = self.folder
        return [*self._command, str(here / self.settings_file), str(here / "steps.jsonl")]

    def steps(self) -> list[Step]:
        return read_steps(self.folder / "steps.jsonl")


def hugging_face_training(recipe: Recipe, rows: int) -> dict[str, Any]:
    """Return Hugging Face's TrainingArguments that correspond to a recipe's training settings."""
    trainer = recipe.trainer
    return {
        "output_dir": "output",
        "max_steps": ENDLESS,
        "per_device_train_batch_size": rows,
        "optim": "adamw_torch_fused",
        "learning_rate": trainer.schedule.peak_learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": trainer.schedule.warmup_steps,
        "adam_beta1": trainer.optimizer.betas[0],
        "adam_beta2": trainer.optimizer.betas[1],
        "adam_epsilon": trainer.optimizer.epsilon,
        "weight_decay": trainer.optimizer.weight_decay,
        "max_grad_norm": trainer.gradient_clipping,
        "use_cpu": True,
        "logging_steps": 100,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
