"""Sentence embeddings: content of batches, and scores compared with a direct search of pairs."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tasks import embedding_values, prepared_task

from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.task import HeldOut
from data_pipeline.batching.window import WindowReader
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.errors import BatchingError
from data_pipeline.tasks.sentence_embedding import GROUP, cut_to, with_ends
from trainer.tasks.sentence_embedding import SentenceEmbedding

CPU = torch.device("cpu")
PAD = 9
TASK = SentenceEmbedding(
    SimpleNamespace(task="sentence_embedding"), None, {SOURCE: SimpleNamespace(pad_id=PAD)}
)


def micro_batch(sources, targets, pairs=None):
    def flat(sentences):
        return FieldArrays(
            np.array([token for sentence in sentences for token in sentence], dtype=np.uint16),
            np.array([len(sentence) for sentence in sentences], dtype=np.int32),
        )

    numbers = np.array(pairs or range(len(sources)), dtype=np.int64)
    return MicroBatch(numbers, {SOURCE: flat(sources), TARGET: flat(targets)})


sentence = st.lists(st.integers(0, 8), min_size=1, max_size=6)


@given(st.lists(st.tuples(sentence, sentence), min_size=1, max_size=5))
def test_each_sentence_is_one_row_and_sources_come_first(pairs):
    sources, targets = zip(*pairs, strict=True)
    given_batch = micro_batch(sources, targets)
    batch = TASK.collate(given_batch, CPU)
    width = max(map(len, sources + targets))
    expected = []
    for padding, of_sentence in (
        (PAD, list),
        (0, lambda s: [0] * len(s)),
        (0, lambda s: list(range(len(s)))),
        (-1, lambda s: [0] * len(s)),
    ):
        rows = [of_sentence(s) for s in sources + targets]
        expected.append([row + [padding] * (width - len(row)) for row in rows])
    assert [tensor.tolist() for tensor in batch.inputs] == expected
    assert all(tensor.dtype == torch.int64 for tensor in batch.inputs)
    assert batch.positions == 2 * len(pairs) * width
    assert batch.padding == sum(part == -1 for row in expected[3] for part in row)
    assert TASK.data.units(given_batch) == len(pairs)
    assert TASK.targets(given_batch).tolist() == [1] * len(pairs)


PAIR = [[2, 5, 6], [2, 7]], [[2, 1], [2, 8, 3]]


@pytest.mark.parametrize(
    "changed",
    [
        micro_batch(*PAIR, pairs=[0, 5]),
        micro_batch([[2, 5, 6], [2, 7]], [[2, 1], [2, 8, 4]]),
        micro_batch([[2, 5], [6, 2, 7]], [[2, 1], [2, 8, 3]]),
        micro_batch(PAIR[1], PAIR[0]),
    ],
    ids=["pair", "token", "border", "sides"],
)
def test_another_content_or_order_changes_the_digest(changed):
    same = TASK.collate(micro_batch(*PAIR), CPU).digest
    assert same == TASK.collate(micro_batch(*PAIR), CPU).digest
    assert same != TASK.collate(changed, CPU).digest


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Return the data settings, the dataset, and the task with an untrained network."""
    values = embedding_values(tmp_path_factory.mktemp("embedding") / "dataset")
    task, dataset = prepared_task(values)
    return task.recipe.data_settings, dataset, task, task.build_network().eval()


def test_each_micro_batch_has_the_same_number_of_pairs_with_bos_and_eos(opened):
    settings, (store, manifest), task, _ = opened
    reader, special = WindowReader(store, manifest, settings), manifest.special_ids
    seen = []
    for window in range(reader.layout(0, 0).windows_per_epoch):
        units = reader.layout(0, window).units
        assert set(units.tolist()) == {12}
        for batch in reader.fetch(0, window, 0, len(units)):
            seen += batch.pair_ids.tolist()
            for field in batch.fields.values():
                ends = np.cumsum(field.lengths)
                assert (field.ids[ends - 1] == special.eos).all()
                assert (field.ids[ends - field.lengths] == special.bos).all()
                assert field.lengths.max() <= 24
    assert len(seen) == len(set(seen)) > manifest.pairs - 12 * reader.layout(0, 0).windows_per_epoch
    assert task.data.check(manifest, settings) is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "pairs_per_micro_batch",
            10**6,
            r"has \d+ windows? of about [\d,]+ pairs, which is too few for .* of 1,0",
        ),
        ("max_tokens_per_micro_batch", 100, r"One side of 12 pairs .* may have \d+ tok.* most 100"),
    ],
)
def test_batching_settings_that_do_not_fit_the_dataset_are_refused(opened, field, value, message):
    settings, (_, manifest), task, _ = opened
    batching = settings.batching.model_copy(update={field: value})
    other = replace(settings, batching=batching)
    with pytest.raises(BatchingError, match=message):
        task.data.check(manifest, other)


def test_long_sentences_are_cut_and_still_end_with_eos(opened):
    *_, task, _ = opened
    tokenizer = task.tokenizers[SOURCE]
    text = "il détestait la salade"
    (ids,) = (tokenizer.encode([text])[0].tolist(),)
    whole = [tokenizer.bos_id, *ids, tokenizer.eos_id]
    field = encoded(tokenizer, [text, "", text], len(whole) - 2)
    lengths = field.lengths.tolist()
    assert lengths == [len(whole) - 2, 2, len(whole) - 2]
    cut = [*whole[: len(whole) - 3], tokenizer.eos_id]
    assert field.ids.tolist() == [*cut, tokenizer.bos_id, tokenizer.eos_id, *cut]
    assert encoded(tokenizer, [text], 24).ids.tolist() == whole


def encoded(tokenizer, texts, longest):
    return cut_to(with_ends(tokenizer, texts), longest, tokenizer.eos_id)


def vectors_of(task, network, texts):
    """Return the vector of each sentence, computed alone and without padding."""
    tokenizer = task.tokenizers[SOURCE]
    found = []
    for text in texts:
        ids = torch.from_numpy(encoded(tokenizer, [text], 24).ids).long().unsqueeze(0)
        zeros = torch.zeros_like(ids)
        position = torch.arange(ids.shape[1]).unsqueeze(0)
        with torch.no_grad():
            found.append(network.embed(ids, zeros, position, zeros)[0])
    return torch.stack(found).double()


@pytest.mark.parametrize(
    "pairs", [2 * GROUP + 30, 30], ids=["groups and a rest", "one that is less"]
)
def test_scores_equal_those_of_a_direct_search_for_the_nearest_sentence(opened, pairs):
    _, (store, manifest), task, network = opened
    whole = load_heldout(store, manifest, "validation")
    heldout = HeldOut({name: texts[:pairs] for name, texts in whole.texts.items()}, {})
    scoring = task.scoring(heldout)
    sizes = [GROUP] * (pairs // GROUP) or [pairs]
    compared = sum(sizes)
    assert [len(batch.pair_ids) for batch in scoring.batches] == sizes
    table = np.zeros((scoring.rows, scoring.columns))
    for number, batch in enumerate(scoring.batches):
        for row, values in scoring.score(network, batch, number, CPU):
            table[row] = values
    source, target = (
        vectors_of(task, network, heldout.texts[side][:compared]) for side in (SOURCE, TARGET)
    )
    cosines = [s @ t.T for s, t in zip(source.split(sizes), target.split(sizes), strict=True)]
    losses, found = [], []
    for of_group in cosines:
        right = torch.arange(len(of_group))
        for of in (of_group, of_group.T):
            losses.append(torch.nn.functional.cross_entropy(of / 0.05, right))
            found.append((of.argmax(dim=1) == right).double().mean())
    scores = scoring.summarise(table).scores
    assert scores["loss"].value == pytest.approx(np.mean(losses), rel=1e-5)
    assert scores["retrieval_accuracy"].value == pytest.approx(100 * np.mean(found))
    assert scores["retrieval_accuracy"].more_is_better
    assert not scores["loss"].more_is_better
    samples = scoring.samples(network)
    for number, sample in enumerate(samples):
        assert sample.given == heldout.texts[SOURCE][number]
        assert sample.expected == heldout.texts[TARGET][number]
        assert sample.made == heldout.texts[TARGET][int(cosines[0][number].argmax())]
    losses_of_pairs = [task.example_losses(network, batch, CPU) for batch in scoring.batches]
    assert np.mean(losses_of_pairs) == pytest.approx(scores["loss"].value, rel=1e-5)


def test_a_loss_that_is_nan_is_recorded_without_a_value(opened):
    _, (store, manifest), task, _ = opened
    scoring = task.scoring(load_heldout(store, manifest, "validation"))
    table = np.full((scoring.rows, scoring.columns), np.nan)
    table[:, 1] = 0
    assert scoring.summarise(table).scores["loss"].value is None


def test_the_widest_batch_and_the_dummy_batch_can_be_trained_on(opened):
    settings, (_, manifest), task, network = opened
    (shape,) = task.data.widest(manifest, settings)
    longest = manifest.longest()
    assert str(shape) == f"12 × ({longest[SOURCE]} source + {longest[TARGET]} target) tokens"
    for batch, rows in ((task.synthetic(shape, CPU), 24), (task.dummy(CPU), 2)):
        assert len(batch.inputs[0]) == rows
        assert network(*batch.inputs, task.loss).nll.isfinite()
    assert task.dummy(CPU).positions == 2
