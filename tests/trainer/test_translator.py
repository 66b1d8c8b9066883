"""Translating with a run: which weights, in which order, and equal to the searched model."""

import pytest
import torch
import yaml

from model.decoding import beam_search
from trainer.errors import CheckpointError, RunMismatchError
from trainer.translator import Translator

SENTENCES = ["je suis étudiant", "", "elle sera journaliste demain", "non"]


def test_each_sentence_is_translated_as_if_alone_and_in_order(untrained_run):
    translator = Translator.load(untrained_run.path)
    together = translator.translate(SENTENCES)
    assert together == [translator.translate([sentence])[0] for sentence in SENTENCES]
    assert translator.translate([]) == []


def test_it_is_beam_search_over_the_checkpoints_weights(untrained_run):
    translator = Translator.load(untrained_run.path)
    tokenizer = translator._tokenizers["src"]
    source = torch.tensor([[*tokenizer.encode(SENTENCES[:1])[0], tokenizer.eos_id]])
    expected = beam_search(translator.model, source, translator.decoding)[0]
    found = translator.translate_n_best(SENTENCES[:1])[0]
    assert [t.score for t in found] == pytest.approx([h.score for h in expected])
    assert found == sorted(found, key=lambda t: -t.score)


def test_the_newest_weights_or_those_of_a_step(untrained_run):
    newest, first = (
        Translator.load(untrained_run.path),
        Translator.load(untrained_run.path, checkpoint=1),
    )
    assert (newest.checkpoint.step, first.checkpoint.step) == (2, 1)
    pairs = zip(newest.model.parameters(), first.model.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_what_is_not_there_is_named(untrained_run, tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7; it has \[1, 2\]"):
        Translator.load(untrained_run.path, checkpoint=7)
    with pytest.raises(RunMismatchError, match=r"is no run: it has no run\.json"):
        Translator.load(tmp_path)


def test_the_resolved_recipe_lies_in_the_run(untrained_run):
    resolved = yaml.safe_load(untrained_run.recipe.read_text())
    assert resolved["trainer"]["label_smoothing"] == 0.1  # a default
    assert resolved["cluster"]["ranks"] == 1
