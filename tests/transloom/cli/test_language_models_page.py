"""The commands of docs/how-to/language-models.md, one after the other, on a smaller recipe."""

from pathlib import Path

import pytest
import yaml
from support.pages import commands, run_inline
from support.tasks import language_model_values

pytestmark = pytest.mark.long

PAGE = "how-to/language-models.md"


def test_the_commands_of_the_page_work(transloom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = language_model_values(Path("datasets/shakespeare-char"), preset="gpt2")
    values |= {"name": "shakespeare-char"}
    values["trainer"] |= {"max_steps": 2, "validate_every_steps": 2}
    Path("shakespeare-char").write_text(yaml.safe_dump(values))  # found before the built-in one
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
