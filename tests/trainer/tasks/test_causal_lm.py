"""Language modelling: tensors of a batch, and scores equal to those of each document alone."""

import hashlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.ranks.validation_jobs import validate_language_model
from support.tasks import language_model_values, opened_task
from torch.testing import assert_close

from cluster.recipe import Recipe
from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.task import HeldOut
from model.blocks.packing import packing_of_parts
from model.config.decoder_only import SamplingConfig
from model.generation.sampling import generate
from trainer.process.placement import Placement
from trainer.tasks.causal_lm import SAMPLES, CausalLanguageModel

CPU = torch.device("cpu")
PAD = 9
TASK = CausalLanguageModel(
    SimpleNamespace(task="causal_lm"), None, {"text": SimpleNamespace(pad_id=PAD)}
)


def micro_batch(rows, documents=None, starts=None):
    """Return rows of parts, each given by its ids: a previous token and the tokens to predict."""
    parts = [part for row in rows for part in row]
    return MicroBatch(
        np.array(documents or range(len(parts)), dtype=np.int64),
        {
            "text": FieldArrays(
                np.array([token for part in parts for token in part], dtype=np.int32),
                np.array([len(part) for part in parts], dtype=np.int32),
            )
        },
        starts=np.array(starts or [0] * len(parts), dtype=np.int64),
        rows=np.array([n for n, row in enumerate(rows) for _ in row], dtype=np.int32),
    )


def plainly(rows):
    """Return inputs, targets and part numbers of the rows, computed with lists."""
    width = max(sum(len(part) - 1 for part in row) for row in rows)
    arrays = []
    for padding, of_part in (
        (PAD, lambda number, part: part[:-1]),
        (PAD, lambda number, part: part[1:]),
        (-1, lambda number, part: [number] * (len(part) - 1)),
    ):
        filled = [[x for p in enumerate(row) for x in of_part(*p)] for row in rows]
        arrays.append([row + [padding] * (width - len(row)) for row in filled])
    return arrays


parts = st.lists(st.integers(0, 8), min_size=2, max_size=6)


@given(st.lists(st.lists(parts, min_size=1, max_size=4), min_size=1, max_size=4))
def test_batches_have_rows_parts_padding_and_targets_one_token_later(rows):
    batch = TASK.collate(micro_batch(rows), CPU)
    expected = plainly(rows)
    assert [tensor.tolist() for tensor in batch.inputs] == expected
    assert all(tensor.dtype == torch.int64 for tensor in batch.inputs)
    (packing,) = batch.packings
    assert_close(list(packing), list(packing_of_parts(batch.inputs[2])), rtol=0, atol=0)
    assert batch.padding == sum(part == -1 for row in expected[2] for part in row)
    assert batch.positions == batch.inputs[0].numel()
    sizes = [len(part) - 1 for row in rows for part in row]
    assert TASK.targets(micro_batch(rows)).tolist() == sizes
    assert TASK.data.units(micro_batch(rows)) == sum(sizes)


ROWS = [[[2, 5, 6], [2, 7, 3]], [[1, 4, 4]]]


@pytest.mark.parametrize(
    "changed",
    [
        micro_batch(ROWS, documents=[0, 5, 2]),
        micro_batch(ROWS, starts=[0, 4, 0]),
        micro_batch([ROWS[0][:1], [*ROWS[0][1:], *ROWS[1]]]),
        micro_batch([[[2, 5, 6], [2, 8, 3]], [[1, 4, 4]]]),
        micro_batch([[[2, 5, 6], [2, 7, 3]], [[0, 4, 4]]]),
        micro_batch([[[2, 5, 6, 7], [7, 3]], [[1, 4, 4]]]),
    ],
    ids=["document", "start", "row", "target", "input", "cut"],
)
def test_another_content_or_layout_changes_the_digest(changed):
    same = TASK.collate(micro_batch(ROWS), CPU).digest
    assert same == TASK.collate(micro_batch(ROWS), CPU).digest
    assert same != TASK.collate(changed, CPU).digest


def test_the_digest_does_not_include_padding():
    """Records rely on its content: documents, their starts and rows, inputs and targets."""
    numbers = [[0, 1, 2], [0, 0, 0], [0, 0, 1]]
    fed = [[2, 5, 2, 7, 1, 4], [5, 6, 7, 3, 4, 4], [0, 0, 1, 1, 0, 0]]
    state = hashlib.blake2b(digest_size=32)
    for array in numbers:
        state.update(np.array(array, dtype="<i8").tobytes())
    for array in fed:
        state.update(np.array(array, dtype="<i4").tobytes())
    assert TASK.collate(micro_batch(ROWS), CPU).digest == state.digest()
    other_padding = CausalLanguageModel(
        SimpleNamespace(task="causal_lm"), None, {"text": SimpleNamespace(pad_id=0)}
    )
    assert other_padding.collate(micro_batch(ROWS), CPU).digest == state.digest()


@pytest.fixture(scope="module")
def untrained(phrasebook_documents):
    """Return the task, an untrained network, and the validation set."""
    recipe = Recipe.of(language_model_values(phrasebook_documents)).training()
    task, (store, manifest) = opened_task(recipe)
    heldout = load_heldout(store, manifest, "validation")
    return task, task.build_network().eval(), heldout


def nll_of(network, ids):
    """Return the loss of a part alone, given by a previous token and its tokens."""
    given, expected = torch.tensor([ids[:-1]]), torch.tensor(ids[1:])
    with torch.no_grad():
        logits = network.logits(network.hidden(given, torch.zeros_like(given)))[0]
    return float(torch.nn.functional.cross_entropy(logits.double(), expected, reduction="sum"))


def test_the_validation_loss_equals_that_of_each_document_alone(untrained, phrasebook_documents):
    task, network, heldout = untrained
    tokenizer, context = task.tokenizers["text"], task.recipe.batching.context_length
    nll, tokens = 0.0, 0
    for text in heldout.texts["text"]:
        ids = [tokenizer.bos_id, *tokenizer.encode([text])[0].tolist(), tokenizer.eos_id]
        tokens += len(ids) - 1
        for start in range(0, len(ids) - 1, context):
            nll += nll_of(network, ids[start : start + context + 1])
    assert any(len(text) > 2 * context for text in heldout.texts["text"])
    scores = validate_language_model(Placement(), phrasebook_documents).scores
    size = sum(len(text.encode()) for text in heldout.texts["text"])
    assert scores["loss"].value == pytest.approx(nll / tokens, rel=1e-6)
    assert scores["perplexity"].value == pytest.approx(math.exp(nll / tokens), rel=1e-5)
    assert scores["byte_perplexity"].value == pytest.approx(math.exp(nll / size), rel=1e-5)
    assert not any(score.more_is_better for score in scores.values())


def test_scores_are_the_same_on_any_number_of_ranks(rank_pools, phrasebook_documents):
    (alone,) = rank_pools(1).run(validate_language_model, phrasebook_documents)
    for ranks in (2, 3):
        first, *others = rank_pools(ranks).run(validate_language_model, phrasebook_documents)
        assert first == alone
        assert all(other.scores == alone.scores for other in others)
        assert not any(other.examples for other in others)  # only one rank makes samples


def test_the_loss_of_an_example_equals_that_of_its_part_alone(untrained):
    task, network, heldout = untrained
    batches = task.data.heldout_micro_batches(heldout, task.tokenizers, task.recipe.data_settings)
    assert len(batches) >= 3
    for batch in batches[:3]:
        found = task.example_losses(network, batch, CPU)
        ids = np.split(batch.fields["text"].ids, np.cumsum(batch.fields["text"].lengths)[:-1])
        expected = [nll_of(network, part.tolist()) for part in ids]
        assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_samples_continue_the_beginning_of_documents(untrained):
    task, network, heldout = untrained
    scoring = task.scoring(heldout)
    for sample, text in zip(scoring.samples(network), heldout.texts["text"], strict=False):
        assert sample.given
        assert text.startswith(sample.given + sample.expected)
    assert scoring.samples(network) == scoring.samples(network)


def test_a_sample_is_given_half_of_a_short_document_or_the_start_of_a_long_one(untrained):
    task, network, _ = untrained
    context = task.recipe.batching.context_length
    texts = ["the cat", "a", "a dog and a cat and a bird are in the house of Marie", "left out"]
    scoring = task.scoring(HeldOut({"text": texts}, {}))
    samples = scoring.samples(network)
    tokenizer = task.tokenizers["text"]
    assert len(samples) == SAMPLES == len(texts) - 1
    for sample, text in zip(samples, texts, strict=False):
        ids = tokenizer.encode([text])[0].tolist()
        given, expected = (
            tokenizer.encode([part])[0].tolist() for part in (sample.given, sample.expected)
        )
        assert sample.given == tokenizer.decode([ids[: max(1, min(32, len(ids) // 2))]])[0]
        assert len(given) <= 33
        assert len(expected) <= context // 2 + 1
        # Generate the same greedily from this prompt alone.
        prompt = [tokenizer.bos_id, *ids[: max(1, min(32, len(ids) // 2))]][:context]
        sampling = SamplingConfig(temperature=0, max_new_tokens=context // 2)
        (made,) = generate(network, [prompt], sampling, tokenizer.eos_id)
        assert sample.made == tokenizer.decode([list(made.ids)])[0]
