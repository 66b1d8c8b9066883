"""BLEU scores of test sets, computed as in the literature and by sacreBLEU."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import sacrebleu
from support.recipes import tiny_recipe

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.dataset.manifest import open_dataset
from model.config.transformer import DecodingConfig
from run_store.checkpoints.format import HEADER
from trainer.errors import TranslationError
from transloom.inference.evaluation import evaluate, moses
from transloom.inference.translator import Translator


@pytest.mark.parametrize(("language", "differing"), [("de", 0), ("fr", 1)])
def test_moses_tokenization_equals_the_multi30k_tasks_files(multi30k, language, differing):
    """One French line differs: Moses's scripts moved the full stop of a quoted title."""
    raw = (multi30k / f"test_2016_flickr.{language}").read_text().split("\n")[:-1]
    prepared = (multi30k / f"test_2016_flickr.lc.norm.tok.{language}").read_text().split("\n")[:-1]
    ours = moses(raw, language)
    assert sum(a != b for a, b in zip(ours, prepared, strict=True)) == differing


class Oracle:
    """A translator that returns given sentences."""

    precision = "fp32"
    ensemble = None

    def __init__(self, identity, answers, folder):
        path = folder / "step-00000007"
        path.mkdir()
        (path / HEADER).write_text("{}")
        header = SimpleNamespace(dataset_identity=identity)
        self.checkpoint = SimpleNamespace(header=header, path=path, step=7)
        self.decoding = DecodingConfig()
        self._answers = answers
        self.engine = None  # None: transloom's search

    def processes_for(self, sentences):
        return 1

    def in_processes(self, count):
        return nullcontext()

    def translate(self, sources, tag, report, max_tokens):
        assert len(sources) == len(self._answers)
        return self._answers


def evaluated(phrasebook, folder, change):
    """Score changed references; return the scores, the changed texts and the references."""
    data = tiny_recipe(phrasebook).data
    store, manifest = open_dataset(data)
    references = load_heldout(store, manifest, "phrasebook").texts["tgt"]
    answers = [change(reference) for reference in references]
    oracle = Oracle(manifest.identity, answers, folder)
    found = evaluate(oracle, data, "phrasebook", folder, lambda done, total: None)
    return found, answers, references


def test_only_bleu_literature_ignores_case(phrasebook, tmp_path):
    scores, answers, references = evaluated(phrasebook, tmp_path, str.upper)
    assert scores.bleu_literature.score == pytest.approx(100)
    assert scores.bleu.score == sacrebleu.corpus_bleu(answers, [references]).score < 20
    assert "case:mixed" in scores.bleu.signature
    assert Path(scores.hypotheses).read_text() == "".join(f"{line}\n" for line in answers)


def test_text_is_tokenised_by_the_target_languages_rules(phrasebook, tmp_path):
    """English joins an apostrophe to the word after it, French to the word before it."""
    scores, answers, references = evaluated(
        phrasebook, tmp_path, lambda reference: reference.replace(" ", "'", 1)
    )
    english, french = (
        sacrebleu.BLEU(tokenize="none", force=True)
        .corpus_score(moses(answers, language), [moses(references, language)])
        .score
        for language in ("en", "fr")
    )
    assert english != pytest.approx(french)
    assert scores.bleu_literature.score == pytest.approx(english)


def test_evaluate_names_a_test_set_that_does_not_fit_in_memory(
    untrained_run, phrasebook, tmp_path, monkeypatch
):
    translator = Translator.load(untrained_run.path)
    room = translator.memory.bytes(5)
    monkeypatch.setattr("transloom.inference.translator.available_bytes", lambda: room)
    data = tiny_recipe(phrasebook).data
    error = r"held-out set phrasebook cannot be scored: Sentence .*available memory suffices"
    with pytest.raises(TranslationError, match=error):
        evaluate(translator, data, "phrasebook", tmp_path, lambda done, total: None)
