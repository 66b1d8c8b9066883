"""Translation language modelling: pairs, or each side alone, with the same tokens masked."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from support.tasks import pair_masked_values, prepared_task

from data_pipeline.arrays import concatenate
from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.task import HeldOut
from data_pipeline.batching.window import WindowReader
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.config.text import TEXT
from data_pipeline.errors import BatchingError
from data_pipeline.random_keys import MASKED_TOKENS, example_seeds, uniform_at_positions
from data_pipeline.tasks import masked_lm
from data_pipeline.tasks.masking import IGNORE_INDEX, LABELS_FIELD, MASK, SEGMENTS

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Return the recipe, the dataset, and the task with an untrained network."""
    values = pair_masked_values(tmp_path_factory.mktemp("tlm") / "dataset")
    # Long enough that held-out pairs are not cut.
    values["batching"] |= {"context_length": 160, "max_tokens_per_micro_batch": 320}
    task, dataset = prepared_task(values)
    return task.recipe, dataset, task, task.build_network().eval()


def settings_with(recipe, **batching):
    changed = recipe.batching.model_copy(update=batching)
    return recipe.model_copy(update={"batching": changed}).data_settings


def parts_of(batches):
    """Yield each part's example, its offset there, its inputs, its targets, and its segments."""
    for batch in batches:
        arrays = (batch.fields[name].rows() for name in (TEXT, LABELS_FIELD, SEGMENTS))
        for number, start, *part in zip(batch.pair_ids, batch.starts, *arrays, strict=True):
            yield int(number), int(start), *part


def windows(opened, count=2, **batching):
    recipe, dataset, task, _ = opened
    reader = WindowReader(*dataset, settings_with(recipe, **batching))
    for window in range(count):
        layout = reader.layout(0, window)
        batches = reader.fetch(0, window, 0, len(layout.units))
        assert layout.units.tolist() == [task.data.units(batch) for batch in batches]
        yield from batches


def stored_pairs(opened):
    """Return the ids of both sides of each pair, by its number in the manifest's order."""
    recipe, dataset, *_ = opened
    reader = WindowReader(*dataset, replace(recipe.data_settings, task="translation"))
    found = {}
    for window in range(reader.layout(0, 0).windows_per_epoch):
        for batch in reader.fetch(0, window, 0, len(reader.layout(0, window).units)):
            sides = (batch.fields[name].rows() for name in (SOURCE, TARGET))
            for number, *pair in zip(batch.pair_ids.tolist(), *sides, strict=True):
                found[number] = pair
    return found


def test_each_pair_is_whole_or_split_into_its_two_sides(opened):
    stored, bos, whole, alone = stored_pairs(opened), opened[2].tokenizers[SOURCE].bos_id, 0, 0
    for number, start, seen, told, segments in parts_of(windows(opened)):
        source, target = ([bos, *side] for side in stored[number])
        sides = [(source, 0)] * (start == 0) + [(target, 1)] * (start > 0 or 1 in segments)
        assert [t if t != IGNORE_INDEX else s for s, t in zip(seen, told, strict=True)] == [
            token for side, _ in sides for token in side
        ]
        assert segments == [segment for side, segment in sides for _ in side]
        assert start in (0, len(source))
        whole, alone = whole + (len(sides) == 2), alone + (len(sides) == 1)
    assert whole > 1000
    assert alone / 2 / (whole + alone / 2) == pytest.approx(0.33, abs=0.03)


@pytest.mark.parametrize(("alone", "sides"), [(0.0, 2), (1.0, 1)])
def test_all_pairs_whole_or_all_sides_alone_have_the_same_masked_tokens(opened, alone, sides):
    def hidden(batches):
        return {
            (number, start + place)
            for number, start, _, told, _ in parts_of(batches)
            for place in np.flatnonzero(np.array(told) != IGNORE_INDEX).tolist()
        }

    batches = list(windows(opened, 1, alone=alone))
    assert {len(set(segments)) for *_, segments in parts_of(batches)} == {sides}
    assert hidden(batches) == hidden(windows(opened, 1))


def test_masks_depend_on_seed_pass_example_side_and_position(opened):
    recipe, *_ = opened
    share, checked = recipe.batching.masking.share, 0
    for number, start, _, told, segments in parts_of(windows(opened, 1)):
        for segment in set(segments):
            ids = np.array([t for t, s in zip(told, segments, strict=True) if s == segment])
            if start and not segment:
                continue
            lengths = np.array([len(ids)], dtype=np.int32)
            found = [
                uniform_at_positions(
                    example_seeds(MASKED_TOKENS, recipe.seed, of_pass, segment, np.array([number])),
                    lengths,
                )
                for of_pass in (0, 1)  # corpora's weights can repeat a pair in an epoch
            ]
            wanted = (ids != IGNORE_INDEX).nonzero()[0].tolist()
            ordinary = slice(1, -1)
            drawn = [
                ((d[ordinary] < share) | (d[ordinary] == d[ordinary].min())).nonzero()[0] + 1
                for d in found
            ]
            assert wanted in [d.tolist() for d in drawn]
            checked += 1
    assert checked > 2000


def test_a_heldout_set_has_the_masks_of_a_masked_language_model(opened):
    recipe, (store, manifest), task, _ = opened
    heldout, settings = load_heldout(store, manifest, "validation"), recipe.data_settings
    together = task.data.heldout_micro_batches(heldout, task.tokenizers, settings)
    alone = task.data.single_side_micro_batches(heldout, task.tokenizers, settings)
    lines = HeldOut({TEXT: heldout.texts[SOURCE] + heldout.texts[TARGET]}, {})
    tokenizer = task.tokenizers[SOURCE]
    theirs = masked_lm.TASK.heldout_micro_batches(lines, {TEXT: tokenizer}, settings)

    def texts(batches):
        """Return the inputs of each text next to its targets, sorted."""
        arrays = [concatenate([b.fields[name] for b in batches]) for name in (TEXT, LABELS_FIELD)]
        both = zip(*(array.rows() for array in arrays), strict=True)
        found = np.concatenate([np.stack(pair, axis=1) for pair in both])
        begins = np.flatnonzero(found[:, 0] == tokenizer.bos_id)
        return sorted(text.tolist() for text in np.split(found, begins[1:]))

    assert texts(together) == texts(alone) == texts(theirs)
    assert len(texts(alone)) == 2 * len(heldout)


def of_texts(network, seen, told, segments):
    """Return the loss, right answers and number of predictions of a part."""
    ids, segments = torch.tensor([seen]), torch.tensor(segments)
    begins = segments.diff().nonzero().flatten().tolist()
    positions = torch.cat([torch.arange(n) for n in split_sizes(len(seen), begins)])
    with torch.no_grad():
        hidden = network.encoder(ids, segments[None], positions[None], torch.zeros_like(ids))
        logits = network.logits(hidden)[0].double()
    places = [n for n, token in enumerate(told) if token != IGNORE_INDEX]
    wanted = torch.tensor([told[n] for n in places], dtype=torch.int64)
    nll = torch.nn.functional.cross_entropy(logits[places], wanted, reduction="sum")
    right = int((logits[places].argmax(-1) == wanted).sum())
    return float(nll), right, len(places)


def split_sizes(length, begins):
    return [b - a for a, b in pairwise([0, *(n + 1 for n in begins), length])]


def test_scores_equal_those_of_each_pair_and_of_each_side_alone(opened):
    _, (store, manifest), task, network = opened
    heldout = load_heldout(store, manifest, "validation")
    heldout = HeldOut({name: texts[:60] for name, texts in heldout.texts.items()}, {})
    # With these weights, segments and positions change the output.
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    scoring = task.scoring(heldout)
    table = np.zeros((scoring.rows, scoring.columns))
    for number, batch in enumerate(scoring.batches):
        for row, values in scoring.score(network, batch, number, CPU):
            table[row] = values
    scores = scoring.summarise(table).scores
    whole = [len(set(part[-1])) == 2 for part in parts_of(scoring.batches)]
    sums = np.array([of_texts(network, *part[2:]) for part in parts_of(scoring.batches)])
    together, alone = sums[whole].sum(axis=0), sums[~np.array(whole)].sum(axis=0)
    assert together[2] == alone[2] > 100
    assert scores["loss"].value == pytest.approx(together[0] / together[2], rel=1e-5)
    assert scores["perplexity"].value == pytest.approx(math.exp(scores["loss"].value))
    assert scores["accuracy"].value == pytest.approx(100 * together[1] / together[2])
    assert scores["alone_loss"].value == pytest.approx(alone[0] / alone[2], rel=1e-5)
    assert scores["alone_loss"].value != pytest.approx(scores["loss"].value, rel=1e-3)
    assert not scores["alone_loss"].more_is_better
    for sample in scoring.samples(network):
        assert "[MASK]" in sample.given
        source, target = sample.expected.split(" ||| ")
        assert (source, target) in set(zip(*heldout.texts.values(), strict=True))


def test_the_digest_depends_on_the_side_of_a_token(opened):
    *_, task, _ = opened
    (batch, *_) = windows(opened, 1)
    first = task.collate(batch, CPU).digest
    batch.fields[SEGMENTS].ids[:] = 1 - batch.fields[SEGMENTS].ids
    assert task.collate(batch, CPU).digest != first


def test_examples_of_a_step_are_shown_as_pairs(opened):
    *_, task, _ = opened
    (batch, *_) = windows(opened, 1, alone=0.0)
    shown = task.example_texts(batch)
    assert list(shown) == ["pair", "to predict"]
    assert len(shown["pair"]) == len(batch.pair_ids)
    assert all(text.count("|||") == 1 for text in shown["pair"])
    mask = task.tokenizers[SOURCE].tag_id(MASK)
    masks = sum(text.count("[MASK]") for text in shown["pair"])
    assert masks == (batch.fields[TEXT].ids == mask).sum()


def test_a_pair_longer_than_the_context_is_refused(opened):
    recipe, (_, manifest), task, _ = opened
    longest = sum(manifest.longest().values()) + 2
    task.data.check(manifest, settings_with(recipe, context_length=longest))
    with pytest.raises(
        BatchingError, match=rf"{longest} with BOS .*context_length to {longest} or"
    ):
        task.data.check(manifest, settings_with(recipe, context_length=longest - 1))


def test_the_widest_batch_and_the_dummy_batch_can_be_trained_on(opened):
    recipe, (_, manifest), task, network = opened
    (shape,) = task.data.widest(manifest, recipe.data_settings)
    assert str(shape) == "2 × 160 tokens"
    for batch, tokens in ((task.synthetic(shape, CPU), 320), (task.dummy(CPU), 1)):
        assert (batch.positions, batch.padding, len(batch.inputs[-1])) == (tokens, 0, tokens)
        assert network(*batch.inputs, task.loss).nll.isfinite()
    assert all(task.collate(batch, CPU).positions <= 320 for batch in windows(opened))
