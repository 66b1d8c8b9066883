"""Translating with a run: which weights, in which order, and equal to the searched model."""

import pytest
import torch
import yaml
from support.checkpoints import save_checkpoint
from support.recipes import tiny_recipe

from data_pipeline.preparation.prepare import prepare
from model.decoding import beam_search
from trainer.checkpoints.format import CheckpointHeader
from trainer.errors import CheckpointError, RunMismatchError
from trainer.fragments import Fragment
from trainer.network import build_model
from trainer.recipe import identity_of
from trainer.run_folder import RunFolder
from trainer.translator import Translator


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with two checkpoints of untrained weights, made without training."""
    from data_pipeline.dataset.manifest import open_dataset
    from data_pipeline.pieces.tokenizer import load_tokenizers

    folder = tmp_path_factory.mktemp("run")
    recipe = tiny_recipe(folder / "dataset")
    prepare(recipe.data, recipe.tokenizer, lambda progress: None)
    store, manifest = open_dataset(recipe.data)
    run = RunFolder(folder / "tiny")
    run.open(recipe, store, manifest, "")
    tokenizers = load_tokenizers(store, manifest)
    for step in (1, 2):
        training = recipe.training().model_copy(update={"seed": step})
        model = build_model(training, tokenizers)
        weights = dict(model.named_parameters())
        fragments = [Fragment("master", n, 0, p.detach().view(-1)) for n, p in weights.items()]
        header = CheckpointHeader(
            step=step,
            optimizer_step=step,
            cursor={"epoch": 0, "window": 0, "offset": 0},
            data_digest="0" * 64,
            dataset_identity=manifest.identity,
            recipe=training.model_dump(mode="json"),
            identity=identity_of(training),
            numerics={},
            parameters={name: list(p.shape) for name, p in weights.items()},
            parameter_groups=[],
            validation_loss=None,
            target_tokens_seen=0,
        )
        save_checkpoint(run.checkpoints, header, [fragments])
    return run


SENTENCES = ["je suis étudiant", "", "elle sera journaliste demain", "non"]


def test_each_sentence_is_translated_as_if_alone_and_in_order(run):
    translator = Translator.load(run.path)
    together = translator.translate(SENTENCES)
    assert together == [translator.translate([sentence])[0] for sentence in SENTENCES]
    assert translator.translate([]) == []


def test_it_is_beam_search_over_the_checkpoints_weights(run):
    translator = Translator.load(run.path)
    tokenizer = translator._tokenizers["src"]
    source = torch.tensor([[*tokenizer.encode(SENTENCES[:1])[0], tokenizer.eos_id]])
    expected = beam_search(translator.model, source, translator.decoding)[0]
    found = translator.translate_n_best(SENTENCES[:1])[0]
    assert [t.score for t in found] == pytest.approx([h.score for h in expected])
    assert found == sorted(found, key=lambda t: -t.score)


def test_the_newest_weights_or_those_of_a_step(run):
    newest, first = Translator.load(run.path), Translator.load(run.path, step=1)
    assert (newest.checkpoint.step, first.checkpoint.step) == (2, 1)
    pairs = zip(newest.model.parameters(), first.model.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_what_is_not_there_is_named(run, tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7; it has \[1, 2\]"):
        Translator.load(run.path, step=7)
    with pytest.raises(RunMismatchError, match=r"is no run: it has no run\.json"):
        Translator.load(tmp_path)


def test_the_resolved_recipe_lies_in_the_run(run):
    resolved = yaml.safe_load(run.recipe.read_text())
    assert resolved["trainer"]["label_smoothing"] == 0.1  # a default
    assert resolved["cluster"]["ranks"] == 1
