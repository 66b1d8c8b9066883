"""Small text in two corpora, and commands that process it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from support.invocation import invoke
from support.recipes import tiny_values, write_yaml

WORDS = ("le", "la", "chat", "maison", "petit", "grande", "voit", "aime", "rouge", "été")


@pytest.fixture
def transloom(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command in a terminal of 80 columns, and raise its own errors."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def run(*arguments: object) -> Result:
        return invoke(*arguments, code=None)

    return run


@pytest.fixture(scope="session")
def two_corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recipe with the corpora `plain` (320 pairs) and `tagged` (100, 9 are dropped)."""
    folder = tmp_path_factory.mktemp("two_corpora")
    rng = random.Random(1)
    pairs = {
        name: [(_sentence(rng), _sentence(rng)) for _ in range(count)]
        for name, count in (("plain", 320), ("tagged", 100), ("heldout", 10))
    }
    for number in range(7):
        pairs["tagged"][3 * number] = ("", f"to nothing {number}")
    pairs["tagged"][50] = ("\x1b[31m[bold]même", "\x1b[31m[bold]même")
    pairs["tagged"][51] = ("x", "much longer than that")
    for name, text in pairs.items():
        lines = "".join(f"{source}\t{target}\n" for source, target in text)
        (folder / f"{name}.tsv").write_text(lines, encoding="utf-8")
    return write_yaml(folder / "recipe.yaml", _values(folder))


def _values(folder: Path) -> dict[str, Any]:
    values = tiny_values(folder / "dataset", max_steps=7)
    heldout = {"files": [str(folder / "heldout.tsv")]}
    values["data"] |= {
        "train": [
            {"name": "plain", "files": [str(folder / "plain.tsv")]},
            {"name": "tagged", "files": [str(folder / "tagged.tsv")], "tag": "<2en>"},
        ],
        "validation": heldout,
        "tests": {"final": {**heldout, "tag": "<2en>"}},
        "cleaning": {"drop_identical": True, "max_length_ratio": 15},
        "pairs_per_block": 16,
        "blocks_per_shard": 2,
    }
    values["tokenizer"]["vocabulary_size"] = 90
    return values


def _sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(2, 6)))
