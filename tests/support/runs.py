"""Training runs of the tiny recipe through the real path."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.recipe import load_recipe
from data_pipeline.preparation.prepare import prepare
from run_store.folder import StepRange
from support.recipes import write_yaml
from transloom.cli.train_run import TrainOptions, TrainResult, train_run


class Runs:
    """Runs of one recipe, each in a separate folder."""

    def __init__(self, recipe: Path, folder: Path, address: str) -> None:
        self.recipe = recipe
        self.folder = folder
        self.address = address

    def train(
        self,
        name: str,
        *overrides: str,
        inline: bool = False,
        profile: StepRange | None = None,
    ) -> TrainResult:
        """Train or continue the run with this name, under Ray or inline."""
        return self.train_at(self.folder / name, *overrides, inline=inline, profile=profile)

    def train_at(
        self,
        location: Path | str,
        *overrides: str,
        inline: bool = False,
        profile: StepRange | None = None,
    ) -> TrainResult:
        """Train or continue the run in a folder or at a URL."""
        address = None if inline else self.address
        options = TrainOptions(location, address, inline, profile)
        # Tests stop ranks in the middle of a step for longer than the adaptive deadline allows.
        changed = [*overrides, "cluster.deadlines.adaptive_step=false"]
        return train_run(str(self.recipe), changed, options, Console(stderr=True))

    def lines(self, name: str, kind: str = "train") -> list[dict[str, Any]]:
        """Return the lines of a run's record."""
        text = (self.folder / name / "metrics.jsonl").read_text()
        return [line for line in map(json.loads, text.split("\n")[:-1]) if line["kind"] == kind]

    def log(self, name: str = "run") -> str:
        """Return the text of a run's log."""
        return (self.folder / name / "log.txt").read_text()

    def curve(self, name: str) -> list[float]:
        return [line["loss"] for line in self.lines(name)]

    def digests(self, name: str) -> list[str]:
        return [line["data_digest"] for line in self.lines(name)]


def trained_run(values: dict[str, Any], folder: Path, steps: int, name: str = "run") -> Path:
    """Prepare the dataset of a recipe's values, train a run of some steps; return its folder."""
    values["trainer"] |= {"max_steps": steps, "validate_every_steps": steps}
    recipe = write_yaml(folder / f"{name}.yaml", values)
    prepare(load_recipe(recipe).data_settings, lambda progress: None)
    Runs(recipe, folder, address="").train(name, inline=True)
    return folder / name
