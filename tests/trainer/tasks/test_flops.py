"""Operations of micro-batches of each task, compared with those that torch counts."""

import numpy as np
import pytest
import torch
from support.recipes import tiny_values
from support.tasks import (
    EXTENSIONS,
    case_values,
    copy_values,
    embedding_values,
    language_model_values,
    language_values,
    masked_values,
    opened_task,
    pair_masked_values,
)
from torch.utils.flop_counter import FlopCounterMode

from cluster.recipe import Recipe
from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tasks.masking import IGNORE_INDEX, LABELS_FIELD
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from trainer.tasks.task import training_task

CPU = torch.device("cpu")
VALUES = {
    "translation": tiny_values,
    "causal_lm": language_model_values,
    "masked_lm": masked_values,
    "tlm": pair_masked_values,
    "text_classification": language_values,
    "token_classification": case_values,
    "sentence_embedding": embedding_values,
}
PAIRS = ("translation", "sentence_embedding")
LENGTHS = (5, 9, 2, 7)  # tokens of each part or source sentence
TARGET_LENGTHS = (6, 3, 3, 11)
ROWS = (0, 1, 1, 2)  # row of each part: the second row has two parts


def field(lengths, value=5):
    return FieldArrays(np.full(sum(lengths), value, np.int32), np.array(lengths, np.int32))


def micro_batch_of(task):
    """Return sentences or parts of different lengths, which need padding."""
    numbers = np.arange(len(LENGTHS))
    if task in PAIRS:
        return MicroBatch(numbers, {SOURCE: field(LENGTHS), TARGET: field(TARGET_LENGTHS)})
    fields = {TEXT: field(LENGTHS)}
    if task != "causal_lm":
        told = field(LENGTHS, IGNORE_INDEX)
        told.ids[[0, 3, 6, 14, 20]] = 1
        fields[LABELS_FIELD] = told
    return MicroBatch(numbers, fields, np.zeros(4, np.int64), np.array(ROWS, np.int32))


@pytest.fixture
def task_of(phrasebook):
    store, manifest = open_dataset(Recipe.of(tiny_values(phrasebook)).data)
    tokenizers = load_tokenizers(store, manifest)

    def make(name, *, trainer=None, **engine):
        values = VALUES[name](phrasebook)
        values["trainer"] = values["trainer"] | (trainer or {})
        values["engine"] = values["engine"] | engine
        recipe = Recipe.of(values).training()
        own = tokenizers if name in (*PAIRS, "tlm") else {TEXT: tokenizers[SOURCE]}
        return training_task(recipe, manifest, own)

    return make


def measured(task, batch):
    network = task.build_network().train()
    network.checkpoint_activations(task.recipe.engine.activation_checkpointing)
    with FlopCounterMode(display=False) as counter:
        network(*batch.inputs, task.loss)[0].backward()
    return counter.get_total_flops()


@pytest.mark.matrix
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", VALUES)
def test_flops_of_a_batch_equal_those_that_its_network_computes(task_of, name, again):
    task = task_of(name, activation_checkpointing=again)
    batch = task.collate_for_training(micro_batch_of(name), CPU)
    assert batch.flops.hardware == measured(task, batch)
    assert batch.padding > 0
    assert batch.flops.model < batch.flops.hardware


def test_both_passes_of_r_drop_are_counted_in_flops(task_of):
    one, two = task_of("translation"), task_of("translation", trainer={"r_drop": 5.0})
    batch = two.collate_for_training(micro_batch_of("translation"), CPU)
    assert batch.flops.hardware == measured(two, batch)
    assert batch.flops.model == 2 * one.flops(micro_batch_of("translation")).model


# Sentence embedding is left out, because its loss compares all pairs of a batch.
@pytest.mark.parametrize("name", sorted(VALUES.keys() - {"sentence_embedding"}))
def test_model_flops_of_a_batch_are_the_sum_over_its_sentences(task_of, name):
    """Batching does not change the model's operations, and packed rows compute only these."""
    task = task_of(name)
    whole = micro_batch_of(name)
    bounds = {n: np.cumsum([0, *f.lengths]) for n, f in whole.fields.items()}
    alone = [
        MicroBatch(
            whole.pair_ids[n : n + 1],
            {
                name: FieldArrays(f.ids[slice(*bounds[name][n : n + 2])], f.lengths[n : n + 1])
                for name, f in whole.fields.items()
            },
            None if whole.starts is None else whole.starts[n : n + 1],
            None if whole.rows is None else np.zeros(1, np.int32),
        )
        for n in range(len(LENGTHS))
    ]
    each = [task.flops(micro_batch) for micro_batch in alone]
    assert sum(flops.model for flops in each) == task.flops(whole).model
    packed = task_of(name, attention="varlen").flops(whole)
    assert packed.hardware == sum(flops.hardware for flops in each)


def test_gradients_of_frozen_weights_are_not_counted_in_flops(task_of):
    frozen = task_of("translation", trainer={"frozen": ["encoder.*"]})
    batch = frozen.collate_for_training(micro_batch_of("translation"), CPU)
    network = frozen.build_network().train()
    network.encoder.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network(*batch.inputs, frozen.loss)[0].backward()
    assert batch.flops.hardware == counter.get_total_flops()
    assert batch.flops.model < task_of("translation").flops(micro_batch_of("translation")).model


def test_batches_of_a_task_without_flops_have_none(phrasebook_documents, monkeypatch):
    monkeypatch.syspath_prepend(EXTENSIONS)
    recipe = Recipe.of(copy_values(phrasebook_documents)).training()
    task, _ = opened_task(recipe)
    assert task.dummy(CPU).flops is None
