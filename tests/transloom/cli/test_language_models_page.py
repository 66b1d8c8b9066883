"""Run the commands of docs/how-to/language-models.md in order with a smaller recipe."""

from pathlib import Path

import pytest
import yaml
from support.pages import commands, run_inline
from support.tasks import language_model_values

pytestmark = pytest.mark.long

PAGE = "how-to/language-models.md"


def test_the_commands_of_the_language_models_page_succeed(transloom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = language_model_values(Path("datasets/shakespeare-char"), preset="gpt2")
    values |= {"name": "shakespeare-char"}
    values["trainer"] |= {"max_steps": 2, "validate_every_steps": 2}
    Path("shakespeare-char").write_text(yaml.safe_dump(values))  # overrides the built-in recipe
    found = commands(PAGE)
    assert [command for command, *_ in found] == [
        *("prepare", "train", "generate", "evaluate", "export"),
        *("import", "generate", "train"),
    ]
    for command in found:
        run_inline(transloom, command)
    runs = sorted(path.name for path in Path("runs").iterdir())
    assert runs == ["again", "shakespeare-char", "shakespeare-char,trainer.init_from=runs_again"]
    assert (Path("exported") / "config.json").is_file()
