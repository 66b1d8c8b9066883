"""Exported classifiers, read by transformers: tokenizer, logits and labels."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support.tasks import case_values, language_values
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from cluster.recipe import Recipe
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from model.errors import ModelError
from trainer.tasks.network import build_network
from transloom.inference.export.hugging_face import write_bert_labels
from transloom.inference.labeller import Labeller
from transloom.inference.trained_network import TrainedNetwork

TEXTS = ["a man rides a bike", "two dogs", "un homme et deux chiens.", "é"]


def of_texts(labeller, theirs, fed, _):
    """Return the probability of each label of a text by our network, and by transformers."""
    (found,) = labeller.label([fed.text])
    assert found.tokens == fed["input_ids"].shape[1]
    expected = theirs(**fed).logits[0].softmax(-1).tolist()
    names = theirs.config.id2label.values()
    return found.probabilities, dict(zip(names, expected, strict=True))


def of_words(labeller, theirs, fed, pieces):
    """Return each word's label and probability, ours and theirs; words begin at a space."""
    (found,) = labeller.tag([fed.text])
    firsts = [1, *(n for n, piece in enumerate(pieces) if n > 1 and piece.startswith("▁"))]
    best = theirs(**fed).logits[0].softmax(-1)[firsts].max(dim=-1)
    words = enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    expected = {(n, theirs.config.id2label[label]): value for n, (label, value) in words}
    return {(n, w.label): w.probability for n, w in enumerate(found.words)}, expected


CLASSES = {
    "text_classification": (
        *(language_values, AutoModelForSequenceClassification),
        *("BertForSequenceClassification", of_texts),
    ),
    "token_classification": (
        *(case_values, AutoModelForTokenClassification),
        *("BertForTokenClassification", of_words),
    ),
}


@pytest.fixture(scope="module", params=CLASSES)
def trained(request, tmp_path_factory):
    """Return an untrained network with large weights, as if it was loaded from a run."""
    values = CLASSES[request.param][0](tmp_path_factory.mktemp("dataset"), dropout=0.0)
    recipe = Recipe.of(values).training()
    config = recipe.tokenizer.model_copy(update={"vocabulary_size": 60, "type": "bpe"})
    lines = [*TEXTS, "the man's bike", "le chien de l'homme", "abcdefghijklmnopqrstuvwxyz"] * 3
    tokenizer = SentencePieceTokenizer.train(lines, config, "tests' model")
    network = build_network(recipe, {"text": tokenizer}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(6).add_(0.1 * torch.randn_like(parameter))
    return TrainedNetwork(
        network,
        {"text": tokenizer},
        recipe,
        checkpoint=None,
        weights=SimpleNamespace(run="run"),
        passed_over=[],
    )


@torch.no_grad()
def test_transformers_predicts_the_same_labels_and_probabilities(trained, tmp_path):
    kind = trained.recipe.task
    _, theirs_of, architecture, both = CLASSES[kind]
    assert write_bert_labels(trained, tmp_path) == architecture
    theirs, info = theirs_of.from_pretrained(tmp_path, output_loading_info=True)
    assert (type(theirs).__name__, any(info.values())) == (architecture, False)
    labeller = Labeller(trained)
    assert theirs.config.id2label == dict(enumerate(labeller.labels))
    tokenizer, seen = AutoTokenizer.from_pretrained(tmp_path), set()
    for text in TEXTS:
        fed = tokenizer(text, return_tensors="pt")
        fed.text = text
        pieces = tokenizer.convert_ids_to_tokens(fed["input_ids"][0])
        found, expected = both(labeller, theirs.eval(), fed, pieces)
        assert found == pytest.approx(expected, rel=1e-4)
        seen |= {round(value, 3) for value in expected.values()}
    assert len(seen) > 3


def test_exporting_a_pre_norm_classifier_is_refused(trained, tmp_path):
    values = CLASSES[trained.recipe.task][0](tmp_path, norm="pre")
    recipe = Recipe.of(values).training()
    other = replace(trained, model=build_network(recipe, trained.tokenizers))
    with pytest.raises(ModelError):
        write_bert_labels(other, tmp_path / "out")
