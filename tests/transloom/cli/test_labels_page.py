"""Run the commands of docs/how-to/labels.md in order with smaller recipes."""

from pathlib import Path

import pytest
import yaml
from support.pages import commands, run_inline
from support.tasks import case_values, language_values

pytestmark = pytest.mark.long

PAGE = "how-to/labels.md"


def test_the_commands_of_the_labels_page_succeed(transloom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, values_of in (("multi30k-language", language_values), ("multi30k-case", case_values)):
        values = values_of(Path("datasets") / name) | {"name": name}
        values["data"]["train"][0]["part"] = [0, 0.05]
        values["trainer"] |= {"max_steps": 2, "validate_every_steps": 2}
        Path(name).write_text(yaml.safe_dump(values))  # takes precedence over the built-in recipe
    found = commands(PAGE)
    assert [command for command, *_ in found] == [
        *("prepare", "train", "classify", "evaluate"),
        *("prepare", "train", "classify", "export"),
    ]
    outputs = [run_inline(transloom, command).stdout for command in found]
    assert set(outputs[2].split("\n")) <= {"en", "fr", ""}
    assert outputs[2].count("\n") == 2
    assert "macro_f1" in outputs[3]
    assert [line.split("\t")[0] for line in outputs[6].split("\n")[:5]] == [
        *("ein", "mann", "hält", "eine", "gitarre"),
    ]
    assert "BertForSequenceClassification" in outputs[7]
