"""Masked language modelling: content of batches, and scores equal to those of each text alone."""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tasks import masked_values, prepared_task
from torch.testing import assert_close

from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.window import WindowReader
from data_pipeline.tasks.masked_text import masked_ids, masked_text
from data_pipeline.tasks.masking import IGNORE_INDEX, LABELS_FIELD, MASK
from model.blocks.packing import packing_of_parts
from trainer.tasks.masked_lm import MaskedLanguageModelling

CPU = torch.device("cpu")
PAD = 9
TASK = MaskedLanguageModelling(
    SimpleNamespace(task="masked_lm"), None, {"text": SimpleNamespace(pad_id=PAD)}
)


def flat(parts):
    return FieldArrays(
        np.array([token for part in parts for token in part], dtype=np.int32),
        np.array([len(part) for part in parts], dtype=np.int32),
    )


def micro_batch(rows, told=None, documents=None, starts=None):
    """Return rows of parts, given by their input ids; every other token is to be predicted."""
    parts = [part for row in rows for part in row]
    told = told or [[t + 1 if n % 2 else IGNORE_INDEX for n, t in enumerate(p)] for p in parts]
    return MicroBatch(
        np.array(documents or range(len(parts)), dtype=np.int64),
        {"text": flat(parts), LABELS_FIELD: flat(told)},
        starts=np.array(starts or [0] * len(parts), dtype=np.int64),
        rows=np.array([n for n, row in enumerate(rows) for _ in row], dtype=np.int32),
    )


parts = st.lists(st.integers(0, 8), min_size=1, max_size=6)


@given(st.lists(st.lists(parts, min_size=1, max_size=4), min_size=1, max_size=4))
def test_batches_have_rows_positions_parts_padding_and_masked_places(rows):
    batch = TASK.collate(micro_batch(rows), CPU)
    width = max(sum(map(len, row)) for row in rows)
    expected = []
    for padding, of_part in (
        (PAD, lambda number, part: part),
        (0, lambda number, part: [0] * len(part)),
        (0, lambda number, part: list(range(len(part)))),
        (-1, lambda number, part: [number] * len(part)),
    ):
        filled = [[x for p in enumerate(row) for x in of_part(*p)] for row in rows]
        expected.append([row + [padding] * (width - len(row)) for row in filled])
    *padded, place, target = batch.inputs
    assert [tensor.tolist() for tensor in padded] == expected
    positions = np.array(expected[2])
    odd = (positions % 2 == 1) & (np.array(expected[3]) >= 0)
    assert place.tolist() == np.flatnonzero(odd).tolist()
    assert target.tolist() == (np.array(expected[0])[odd] + 1).tolist()
    assert all(tensor.dtype == torch.int64 for tensor in batch.inputs)
    (packing,) = batch.packings
    assert_close(list(packing), list(packing_of_parts(batch.inputs[3])), rtol=0, atol=0)
    assert batch.padding == sum(part == -1 for row in expected[3] for part in row)
    assert batch.positions == padded[0].numel()
    told = [len(part) // 2 for row in rows for part in row]
    assert TASK.targets(micro_batch(rows)).tolist() == told
    assert TASK.data.units(micro_batch(rows)) == sum(told)


ROWS = [[[2, 5, 6], [2, 7, 3]], [[1, 4, 4]]]


@pytest.mark.parametrize(
    "changed",
    [
        micro_batch(ROWS, documents=[0, 5, 2]),
        micro_batch(ROWS, starts=[0, 4, 0]),
        micro_batch([ROWS[0][:1], [*ROWS[0][1:], *ROWS[1]]]),
        micro_batch([ROWS[0], [[1, 4, 3]]]),
        micro_batch(ROWS, told=[[-1, 6, -1], [-1, 8, -1], [-1, -1, 5]]),
        micro_batch([[[2, 5, 6, 2], [7, 3]], [[1, 4, 4]]]),
    ],
    ids=["document", "start", "row", "seen", "told", "cut"],
)
def test_another_content_or_layout_changes_the_digest(changed):
    same = TASK.collate(micro_batch(ROWS), CPU).digest
    assert same == TASK.collate(micro_batch(ROWS), CPU).digest
    assert same != TASK.collate(changed, CPU).digest


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Return the data settings, the dataset, and the task with an untrained network."""
    values = masked_values(tmp_path_factory.mktemp("masked") / "dataset")
    values["data"]["train"] = [  # little text, of which a part is repeated within an epoch
        {**corpus, "part": part}
        for corpus, part in zip(values["data"]["train"], ([0, 0.005], [0, 0.02]), strict=True)
    ]
    task, dataset = prepared_task(values)
    return task.recipe.data_settings, dataset, task, task.build_network().eval()


def windows(opened, epochs=1):
    """Yield all micro-batches of the epochs."""
    settings, dataset, task, _ = opened
    reader = WindowReader(*dataset, settings)
    for epoch in range(epochs):
        for window in range(reader.layout(epoch, 0).windows_per_epoch):
            layout = reader.layout(epoch, window)
            batches = reader.fetch(epoch, window, 0, len(layout.units))
            assert layout.units.tolist() == [task.data.units(batch) for batch in batches]
            yield from batches


def hidden_by_example(batches):
    """Return for each example the sets of its masked positions, one for each time it was read."""
    found = {}
    for batch in batches:
        told, ends = batch.fields[LABELS_FIELD], np.cumsum(batch.fields[LABELS_FIELD].lengths)
        parts = np.split(told.ids, ends[:-1])
        for number, start, ids in zip(batch.pair_ids.tolist(), batch.starts, parts, strict=True):
            places = start + np.flatnonzero(ids != IGNORE_INDEX)
            found.setdefault(number, []).append(frozenset(places.tolist()))
    return found


def test_an_example_repeated_within_an_epoch_has_another_mask(opened):
    masks = hidden_by_example(windows(opened))
    # Count only examples that are read whole: longer examples may be cut into several parts.
    again = [found for found in masks.values() if len(found) == 2 and all(map(len, found))]
    assert len(again) > 20
    assert sum(len(set(found)) == 2 for found in again) > 0.9 * len(again)
    assert hidden_by_example(windows(opened)) == masks


def nll_and_right(task, network, seen, told):
    """Return the summed loss and the numbers of right and of predicted tokens of a text alone."""
    ids = torch.tensor([seen])
    zeros = torch.zeros_like(ids)
    with torch.no_grad():
        hidden = network.encoder(ids, zeros, torch.arange(len(seen)).unsqueeze(0), zeros)
        logits = network.logits(hidden)[0].double()
    places = [n for n, token in enumerate(told) if token != IGNORE_INDEX]
    wanted = torch.tensor([told[n] for n in places], dtype=torch.int64)
    nll = torch.nn.functional.cross_entropy(logits[places], wanted, reduction="sum")
    return float(nll), int((logits[places].argmax(-1) == wanted).sum()), len(places)


def test_scores_equal_those_of_each_text_alone(opened):
    _, (store, manifest), task, network = opened
    heldout = load_heldout(store, manifest, "validation")
    scoring, again = task.scoring(heldout), task.scoring(heldout)
    table, expected = np.zeros((scoring.rows, 2)), np.zeros(3)
    for number, batch in enumerate(scoring.batches):
        for name, field in batch.fields.items():
            assert field.ids.tolist() == again.batches[number].fields[name].ids.tolist()
        for row, values in scoring.score(network, batch, number, CPU):
            table[row] = values
        bounds = pairwise([0, *np.cumsum(batch.fields["text"].lengths).tolist()])
        sums = [
            nll_and_right(
                task, network, *(batch.fields[f].ids[a:b].tolist() for f in ("text", LABELS_FIELD))
            )
            for a, b in bounds
        ]
        expected += np.sum(sums, axis=0)
        if number < 3:
            found = task.example_losses(network, batch, CPU).tolist()
            assert found == pytest.approx([nll for nll, *_ in sums], rel=1e-5, abs=1e-6)
    nll, right, tokens = expected
    scores = scoring.summarise(table).scores
    assert scores["loss"].value == pytest.approx(nll / tokens, rel=1e-6)
    assert scores["perplexity"].value == pytest.approx(math.exp(nll / tokens), rel=1e-5)
    assert scores["accuracy"].value == pytest.approx(100 * right / tokens)
    assert scores["accuracy"].more_is_better
    samples = scoring.samples(network)
    assert len(samples) == 2  # because the first batch has two rows
    assert all("[MASK]" in sample.given for sample in samples)
    for sample in samples:
        assert any(text.startswith(sample.expected) for text in heldout.texts["text"])


def test_the_widest_batch_and_the_dummy_batch_can_be_trained_on(opened):
    settings, (_, manifest), task, network = opened
    (shape,) = task.data.widest(manifest, settings)
    assert str(shape) == "2 × 24 tokens"
    for batch, tokens in ((task.synthetic(shape, CPU), 48), (task.dummy(CPU), 1)):
        assert (batch.positions, batch.padding, len(batch.inputs[-1])) == (tokens, 0, tokens)
        assert network(*batch.inputs, task.loss).nll.isfinite()
    assert all(batch.fields["text"].lengths.sum() <= 48 for batch in windows(opened))


def test_a_text_with_masks_is_encoded_and_decoded(opened):
    *_, task, _ = opened
    tokenizer = task.tokenizers["text"]
    text = "the [MASK]at is[MASK] here[MASK]"
    ids = masked_ids(tokenizer, text)
    assert ids.count(tokenizer.tag_id(MASK)) == 3
    assert len(ids) == len(text) - 3 * (len("[MASK]") - 1)  # because a piece is one character
    assert masked_text(tokenizer, ids) == text
    plain = masked_ids(tokenizer, "the cat")
    assert plain == tokenizer.encode(["the cat"])[0].tolist()
    assert tokenizer.tag_id(MASK) not in tokenizer.encode([f"a {MASK} b"])[0]


def test_examples_are_shown_with_masks_and_the_pieces_to_predict(opened):
    task, batch = opened[2], next(windows(opened))
    texts, tokenizer = task.example_texts(batch), task.tokenizers["text"]
    seen, told = batch.fields["text"].rows(), batch.fields[LABELS_FIELD].rows()
    for text, names, ids, hidden in zip(
        texts["document"], texts["to predict"], seen, told, strict=True
    ):
        assert text == masked_text(tokenizer, ids)
        pieces = [
            tokenizer.decode([[token]])[0].strip() for token in hidden if token != IGNORE_INDEX
        ]
        assert names == ", ".join(pieces)
