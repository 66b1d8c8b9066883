"""Run the commands of docs/how-to/your-corpus.md in order with a small corpus and few steps."""

from pathlib import Path

import pytest
import yaml
from support.pages import commands

from data_pipeline.storage.locations import cache_folder, open_location

pytestmark = pytest.mark.long

PAGE = "how-to/your-corpus.md"
LINES = 600
MONOLINGUAL_LINES = 20


def write_corpus():
    for language in ("fr", "en"):
        place = f"builtin:phrasebook/train.{language}"
        with open_location(place, mirror=None, cache=cache_folder(None), sha256=None) as stream:
            lines = stream.read().decode().splitlines()[:LINES]
        Path(f"corpus.{language}").write_text("".join(f"{line}\n" for line in lines))


def test_the_commands_of_the_your_corpus_page_succeed(transloom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus()
    found = commands(PAGE)
    assert [name for name, *_ in found] == [
        *("init", "prepare", "plan", "train", "evaluate"),
        "translate",
        *("init", "prepare", "train", "translate"),  # back-translation
    ]
    lines = Path("corpus.en").read_text().splitlines(keepends=True)
    Path("mono.en").write_text("".join(lines[:MONOLINGUAL_LINES]))
    fewer = ["trainer.max_steps=2", "decoding.max_extra_length=5", "tracking.wandb=disabled"]
    translated = []
    for name, *arguments in found:
        if name == "train":
            recipe = Path(arguments[0])
            arguments += [*fewer, "--inline", "--run", f"runs/{recipe.stem}"]
        if "--on-cluster" in arguments:  # tested elsewhere; the output is the same
            arguments = arguments[: arguments.index("--output")]
        result = transloom(name, *arguments)
        assert result.exit_code == 0, (name, arguments, result.output)
        if name == "translate":
            translated.append(len(result.stdout.splitlines()))
    assert translated == [LINES, MONOLINGUAL_LINES]
    for kept in Path("runs").glob("*/recipe.yaml"):  # for use from other folders
        assert Path(yaml.safe_load(kept.read_text())["data"]["dataset"]).is_absolute(), kept
