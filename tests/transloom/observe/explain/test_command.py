"""`transloom explain`: the page that it writes, and its errors."""

import json
import re
import runpy
from html import escape
from pathlib import Path

import pytest
from support.explained_page import PageReader
from support.invocation import invoke

from data_pipeline.errors import CorpusError, TokenizerError
from run_store.errors import CheckpointError
from trainer.errors import TranslationError
from transloom.inference.translator import Translator
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.translation_page import section_count

SENTENCE = "je suis étudiant"


def command(*arguments):
    return invoke("explain", *arguments, code=None).stdout


def walk_of(page):
    return next(data for _, data in page.sections[0].figures if "checkpoint" in data)


def test_explain_writes_a_page_and_prints_its_path(untrained_run, tmp_path):
    file = tmp_path / "new" / "page.html"
    said = json.loads(command(untrained_run.path, SENTENCE, "--output", file, "--json"))
    text = file.read_text(encoding="utf-8")
    page = PageReader(text)
    assert said["file"] == str(file)
    assert said["bytes"] == file.stat().st_size < 2_000_000
    assert said["sections"] == section_count(explain(Translator.load(untrained_run.path), SENTENCE))
    assert walk_of(page)["checkpoint"] == "step-00000002"
    assert f'data-first="made">{escape(said["translation"])}</output>' in text


def test_explain_writes_the_page_to_the_run_by_default(untrained_run):
    said = command(untrained_run.path, SENTENCE, "--checkpoint", 1)
    file = untrained_run.path / "explain.html"
    assert said.splitlines()[-1] == str(file)
    page = PageReader(file.read_text(encoding="utf-8"))
    assert walk_of(page)["checkpoint"] == "step-00000001"


@pytest.mark.long
def test_max_tokens_allows_a_sentence_longer_than_in_training(untrained_run, tmp_path):
    long = "je suis étudiant " * 90
    with pytest.raises(TranslationError, match=r"has \d+ tokens.*--max-tokens"):
        command(untrained_run.path, long)
    file = tmp_path / "long.html"
    said = command(untrained_run.path, long, "--max-tokens", 1000, "-o", file)
    assert said.splitlines()[-1] == str(file)
    assert file.stat().st_size > 0


def test_explain_refuses_unknown_checkpoints_tags_bytes_and_outputs(untrained_run, tmp_path):
    with pytest.raises(CheckpointError):
        command(untrained_run.path, SENTENCE, "--checkpoint", 7)
    with pytest.raises(TokenizerError, match="<2de> must be a control symbol"):
        command(untrained_run.path, SENTENCE, "--tag", "<2de>")
    with pytest.raises(CorpusError, match="is not UTF-8"):
        command(untrained_run.path, "\udcff")
    with pytest.raises(OSError, match="Is a directory"):
        command(untrained_run.path, SENTENCE, "--output", tmp_path)


def test_the_python_example_in_looking_inside_runs(untrained_run, tmp_path, capsys):
    document = Path(__file__).parents[4] / "docs" / "how-to" / "looking-inside.md"
    (example,) = re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.S)
    assert '"runs/phrasebook"' in example
    program = tmp_path / "example.py"
    program.write_text(example.replace('"runs/phrasebook"', repr(str(untrained_run.path))))
    runpy.run_path(str(program))
    assert re.fullmatch(r"\['.+', '.+', '.+'\]\n", capsys.readouterr().out)
