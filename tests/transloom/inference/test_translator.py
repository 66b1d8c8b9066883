"""`Translator`: choice of weights, order of sentences, prefixes, alignments and batches."""

import shutil

import pytest
import torch
import yaml
from support.serving.spoiling import spoil

from model.errors import ModelError
from model.generation.search import beam_search
from run_store.checkpoints.averaging import average
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.errors import CheckpointError, RunMismatchError
from run_store.folder import RunFolder
from transloom.cli.load_translator import load_translator
from transloom.inference.chosen_checkpoint import find_checkpoint
from transloom.inference.translator import Translator

SENTENCES = ["je suis étudiant", "", "elle sera journaliste demain", "non"]


def test_sentences_are_translated_independently_and_in_order(untrained_run):
    translator = Translator.load(untrained_run.path)
    together = translator.translate(SENTENCES)
    assert together == [translator.translate([sentence])[0] for sentence in SENTENCES]
    assert translator.translate([]) == []


def test_translations_equal_beam_search_with_the_checkpoints_weights(untrained_run):
    translator = Translator.load(untrained_run.path)
    tokenizer = translator._tokenizers["src"]
    source = torch.tensor([[*tokenizer.encode(SENTENCES[:1])[0], tokenizer.eos_id]])
    expected = beam_search(translator.model, source, translator.decoding)[0]
    found = translator.translate_n_best(SENTENCES[:1])[0]
    assert [t.score for t in found] == pytest.approx([h.score for h in expected])
    assert found == sorted(found, key=lambda t: -t.score)


def test_the_translator_loads_the_newest_checkpoint_or_a_named_one(untrained_run):
    newest, first = (
        Translator.load(untrained_run.path),
        Translator.load(untrained_run.path, checkpoint=1),
    )
    assert (newest.checkpoint.step, first.checkpoint.step) == (2, 1)
    pairs = zip(newest.model.parameters(), first.model.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def only_averages(untrained_run, tmp_path) -> RunFolder:
    """Return a run that has averages but no longer the averaged checkpoints."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(untrained_run.path, run.path)
    of = [Checkpoint(path) for path in list_checkpoints(run.checkpoints)]
    average(run.checkpoints, of[:1])
    average(run.checkpoints, of)
    for checkpoint in of:
        shutil.rmtree(checkpoint.path)
    return run


@pytest.mark.usefixtures("preloaded_processes")
def test_the_newest_average_is_used_with_a_warning_if_no_step_is_left(only_averages, capsys):
    translator = load_translator(only_averages.path, None)
    assert translator.checkpoint.path.name == "average-of-1-2"
    warning = capsys.readouterr().err
    assert str(only_averages.path) in warning
    assert "average-of-1-2" in warning
    with translator.in_processes(2):  # the processes load the same weights
        assert translator.translate(SENTENCES) == Translator.load(
            only_averages.path, "average-of-1-2"
        ).translate(SENTENCES)


def test_an_older_average_is_used_if_the_newest_is_damaged(only_averages):
    newest = only_averages.checkpoints / "average-of-1-2"
    spoil(newest)
    found, passed_over = find_checkpoint(only_averages, None)
    assert found.path.name == "average-of-1"
    assert any("average-of-1-2" in reason for reason in passed_over)


def test_a_missing_checkpoint_or_run_is_refused(untrained_run, tmp_path):
    with pytest.raises(CheckpointError):
        Translator.load(untrained_run.path, checkpoint=7)
    with pytest.raises(RunMismatchError):
        Translator.load(tmp_path)


def test_a_runs_folder_contains_the_recipe_with_defaults(untrained_run):
    resolved = yaml.safe_load(untrained_run.recipe.read_text())
    assert resolved["trainer"]["label_smoothing"] == 0.1  # a default value
    assert resolved["cluster"]["ranks"] == 1


def test_translations_start_with_their_prefixes(untrained_run):
    translator = Translator.load(untrained_run.path)
    prefixes = ["he is", "", "", "she will"]
    found = translator.translate_n_best(SENTENCES, prefixes=prefixes)
    for translations, prefix in zip(found, prefixes, strict=True):
        assert translations
        assert all(t.text.startswith(prefix) for t in translations)
    free = translator.translate_n_best(SENTENCES)
    assert [found[row] for row in (1, 2)] == [free[row] for row in (1, 2)]
    assert found[0] != free[0]
    with pytest.raises(ModelError, match="tokens, but its translation may have"):
        translator.translate_n_best(["non"], prefixes=["he is " * 50])


def test_every_piece_of_a_translation_is_aligned(untrained_run):
    translator = Translator.load(untrained_run.path)
    best = [translations[0] for translations in translator.translate_n_best(SENTENCES)]
    alignments = translator.align(SENTENCES, best)
    for sentence, translation, pairs in zip(SENTENCES, best, alignments, strict=True):
        assert translator.target_text(translation.ids) == translation.text
        assert [target for _, target in pairs] == list(range(len(translation.ids)))
        pieces = max(1, len(translator.source_ids(sentence)) - 1)  # without EOS
        assert all(0 <= source < pieces for source, _ in pairs)
    assert translator.align(SENTENCES[:1], best[:1]) == alignments[:1]


def test_word_alignments_follow_from_piece_alignments(untrained_run):
    """By hand: a piece belongs to the word that begins at the nearest ▁ up to this piece."""
    translator = Translator.load(untrained_run.path)
    sentences = [sentence for sentence in SENTENCES if sentence]
    best = [translations[0] for translations in translator.translate_n_best(sentences)]
    pieces = translator.align(sentences, best)
    found = translator.align_words(sentences, best)
    assert found != pieces  # some words have several pieces
    for sentence, translation, pairs, words in zip(sentences, best, pieces, found, strict=True):
        source_ids = translator.source_ids(sentence)
        expected = {
            (
                translator.target_text(source_ids[: source + 1]).count(" "),
                translator.target_text(translation.ids[: target + 1]).count(" "),
            )
            for source, target in pairs
        }
        assert words == tuple(sorted(expected))
        assert {target for _, target in words} == set(range(len(translation.text.split())))
        assert all(source < len(sentence.split()) for source, _ in words)


def test_an_empty_sentence_has_no_words_to_align(untrained_run):
    translator = Translator.load(untrained_run.path)
    (translations,) = translator.translate_n_best([""], prefixes=["he is"])
    assert translations[0].text
    assert translator.align_words([""], translations[:1]) == [()]
    assert translator.align_words([], []) == []


def test_scores_in_bf16_are_close_to_fp32(untrained_run):
    """Only scores are compared, because bf16 may choose a different piece of almost equal score."""
    exact = Translator.load(untrained_run.path)
    rounded = Translator.load(untrained_run.path, precision="bf16")
    assert {p.dtype for p in rounded.model.parameters()} == {torch.bfloat16}
    found = [one.translate_n_best(SENTENCES) for one in (exact, rounded)]
    for ours, theirs in zip(*found, strict=True):
        assert theirs[0].score == pytest.approx(ours[0].score, rel=0.02)


def test_the_cache_size_limits_the_tokens_of_a_batch(untrained_run, monkeypatch):
    translator = Translator.load(untrained_run.path, precision="bf16")
    assert translator._tokens_per_batch() == 8192
    config, beam = translator.model.config, translator.decoding.beam_size
    monkeypatch.setattr("transloom.inference.translator.CACHE_BYTES_PER_BATCH", 2**16)
    expected = 2**16 // (2 * config.decoder_layers * config.width * 2 * beam)
    assert 1 < translator._tokens_per_batch() == expected < 8192
    monkeypatch.setattr("transloom.inference.translator.CACHE_BYTES_PER_BATCH", 1)
    assert translator._tokens_per_batch() == 1
