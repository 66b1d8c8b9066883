"""One Ray and one dataset for all integration tests."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from support.recipes import tiny_values

from cluster.train_command import TrainResult, train_run


class Runs:
    """Trains runs of one recipe, each in a folder of its own."""

    def __init__(self, recipe: Path, folder: Path, address: str) -> None:
        self.recipe = recipe
        self.folder = folder
        self.address = address

    def train(self, name: str, *overrides: str, inline: bool = False) -> TrainResult:
        """Train or continue the run of that name, under Ray or inline."""
        return train_run(
            str(self.recipe),
            list(overrides),
            run=self.folder / name,
            address=None if inline else self.address,
            inline=inline,
            console=Console(stderr=True),
        )

    def lines(self, name: str, kind: str = "train") -> list[dict[str, Any]]:
        """The lines of a run's record."""
        text = (self.folder / name / "metrics.jsonl").read_text()
        return [line for line in map(json.loads, text.splitlines()) if line["kind"] == kind]

    def curve(self, name: str) -> list[float]:
        return [line["loss"] for line in self.lines(name)]

    def digests(self, name: str) -> list[str]:
        return [line["data_digest"] for line in self.lines(name)]


@pytest.fixture(scope="session")
def phrasebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared phrase book."""
    from support.recipes import tiny_recipe

    from data_pipeline.prepare import prepare

    dataset = tmp_path_factory.mktemp("phrasebook") / "dataset"
    recipe = tiny_recipe(dataset)
    prepare(recipe.data, recipe.tokenizer, lambda progress: None)
    return dataset


@pytest.fixture
def runs(tmp_path: Path, phrasebook: Path, ray_head: Any) -> Runs:
    """Runs of a tiny recipe on the phrase book."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(tiny_values(phrasebook)))
    return Runs(recipe, tmp_path, ray_head.address)
