"""Translation: losses and validations compared with those of each pair alone."""

import numpy as np
import pytest
import torch
from support.recipes import tiny_recipe
from support.tasks import opened_task

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tasks.translation import heldout_pairs, pair_micro_batches
from model.generation.search import greedy_search

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def task(phrasebook):
    recipe = tiny_recipe(phrasebook).training()
    return opened_task(recipe)[0]


def test_the_loss_of_an_example_equals_that_of_its_pair_alone(task):
    network = task.build_network().eval()
    store, manifest = open_dataset(task.recipe.data)
    texts = load_heldout(store, manifest, "validation").texts
    sources, targets = texts["src"][:20], texts["tgt"][:20]
    (batch,) = pair_micro_batches(heldout_pairs(sources, targets), task.tokenizers, 10_000)
    found = task.example_losses(network, batch, CPU)
    for pair, loss in zip(batch.pair_ids.tolist(), found.tolist(), strict=True):
        alone = heldout_pairs([sources[pair]], [targets[pair]])
        (single,) = pair_micro_batches(alone, task.tokenizers, 10_000)
        with torch.no_grad():
            inputs = task.collate(single, CPU).inputs
            hidden_nd, weight_vd, target_n = network(*inputs, lambda *tensors: tensors)
        logits = (hidden_nd @ weight_vd.detach().T).double()
        expected = torch.nn.functional.cross_entropy(logits, target_n, reduction="sum")
        assert loss == pytest.approx(float(expected), rel=1e-5)


# Batches are sorted by the longer side, so the longest source is not in the last batch.
SOURCES = ["il est là . " * 4, "non", "oui , elle est ici", "elle", "je suis là"]
TARGETS = ["yes", "no no no " * 9, "she is here", "she", "no , i am not there"]


def test_a_validation_translates_each_sentence_as_if_it_were_alone(task):
    network = task.build_network().eval()
    store, manifest = open_dataset(task.recipe.data)
    texts = load_heldout(store, manifest, "validation").texts
    heldout = heldout_pairs([*SOURCES, *texts["src"][:20]], [*TARGETS, *texts["tgt"][:20]])
    scoring = task.scoring(heldout)
    longest = [int(batch.fields["src"].lengths.max()) for batch in scoring.batches]
    assert len(longest) > 1
    assert longest[-1] < max(longest)
    table = np.zeros((scoring.rows, scoring.columns))
    for number, batch in enumerate(scoring.batches):
        for row, values in scoring.score(network, batch, number, CPU):
            table[row, : len(values)] = values
    result = scoring.summarise(table)
    sources = task.tokenizers["src"].encode_field(heldout.texts["src"])
    made = []
    for ids in sources.rows():
        (found,) = greedy_search(network, torch.tensor([ids]), task.recipe.decoding)
        made.append(task.tokenizers["tgt"].decode([list(found.ids)])[0])
    assert result.texts == made
    assert [example.expected for example in result.examples] == heldout.texts["tgt"]
    assert len(set(made)) > 1
