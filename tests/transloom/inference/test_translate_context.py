"""`transloom translate` with a model that reads preceding sentences as context."""

import json
from types import SimpleNamespace

import pytest
from support.recipes import SHORT_TRANSLATIONS, tiny_values, write_yaml
from support.runs import Runs

from cluster.recipe import load_recipe
from data_pipeline.corpora.context import in_context
from data_pipeline.preparation.prepare import prepare
from run_store.errors import RunMismatchError
from transloom.inference import translate
from transloom.inference.translate import LineOptions, translated_lines
from transloom.inference.translator import Translator

LINES = ["je suis étudiant", "elle sera journaliste demain", "non", "", "tu es grand", "oui"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of two steps whose model reads two preceding sentences."""
    folder = tmp_path_factory.mktemp("context")
    values = tiny_values(folder / "dataset", max_steps=2, validate_every_steps=2)
    values["data"]["context_sentences"] = 2
    held_out = folder / "held-out.txt"
    held_out.write_text("".join(f"{line}\n" for line in LINES if line), encoding="utf-8")
    values["data"]["validation"] = {"source": str(held_out), "target": str(held_out)}
    values["decoding"] = SHORT_TRANSLATIONS
    recipe = write_yaml(folder / "recipe.yaml", values)
    prepare(load_recipe(recipe).data_settings, lambda progress: None)
    Runs(recipe, folder, address="").train("run", inline=True)
    return folder / "run"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "document.txt"
    path.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    return path


@pytest.mark.long
def test_lines_of_a_file_get_context_up_to_an_empty_line(transloom, run, file):
    result = transloom("translate", run, file, "--json")
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    translator = Translator.load(run)
    assert translator.sentences_before == 2
    joined = list(in_context(LINES, 2))
    assert joined[2] == "je suis étudiant ␞ elle sera journaliste demain ␞ non"
    assert joined[4:] == ["tu es grand", "tu es grand ␞ oui"]
    assert [line["source"] for line in found] == joined
    made = [line["translations"][0]["text"] for line in found]
    assert made == translator.translate(joined)


def test_typed_lines_get_preceding_lines_as_context(transloom, run, monkeypatch):
    monkeypatch.setattr(translate, "typed_lines", lambda: iter(LINES))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    found = translated_lines(Translator.load(run), "-", LineOptions(as_json=True))
    assert [json.loads(line)["source"] for line in found] == list(in_context(LINES, 2))


def test_options_that_do_not_support_context_are_refused(transloom, run, file, tmp_path):
    for wanted in (
        ["--alignments"],
        ["--long-lines", "split"],
        ["--on-cluster", "--output", tmp_path / "out.txt"],
    ):
        with pytest.raises(RunMismatchError, match=r"reads 2 preceding sentences .*=2\)"):
            transloom("translate", run, file, *wanted)


def test_an_ensemble_requires_equal_context_sentences(run, untrained_run):
    with pytest.raises(RunMismatchError, match=r"context_sentences is 2 in .* and 0 in"):
        Translator.load_ensemble([(run, None), (untrained_run.path, None)])
