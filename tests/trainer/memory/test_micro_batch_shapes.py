"""The widest shapes, compared with all micro-batches that the plan makes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from support.ranks.engine_jobs import SPECIAL, VOCABULARY
from support.recipes import tiny_recipe, tiny_values

from cluster.recipe import Recipe
from data_pipeline.batching.plan import plan_window
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import Manifest, open_dataset
from data_pipeline.tasks.translation import TASK, PairShape
from trainer.tasks.batch import to_device


@pytest.fixture(scope="module")
def dataset(phrasebook):
    return open_dataset(tiny_recipe(phrasebook).data)


def settings_of(phrasebook, budget, alpha=0.0):
    values = tiny_values(phrasebook)
    values["batching"]["max_tokens_per_micro_batch"] = budget
    values["tokenizer"]["sampling"] = {"alpha": alpha}
    return Recipe.of(values).training().data_settings


def tokens(rows, source, target):
    return rows * (source + target)


def scores(rows, source, target):
    return rows * (source**2 + source * target + target**2)


def assert_covered(real: list[tuple[int, int, int]], widest: list[PairShape]) -> None:
    bounds = [(shape.rows, shape.source_length, shape.target_length) for shape in widest]
    for measure in (tokens, scores):
        assert max(measure(*shape) for shape in real) <= max(measure(*shape) for shape in bounds)


@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("budget", [41, 64, 1000])
def test_no_micro_batch_of_a_dataset_exceeds_the_widest_shapes(phrasebook, dataset, budget, alpha):
    store, manifest = dataset
    settings = settings_of(phrasebook, budget, alpha)
    reader = WindowReader(store, manifest, settings)
    windows = reader.layout(0, 0).windows_per_epoch
    real = []
    for window in range(min(windows, 3)):
        count = len(reader.layout(0, window).units)
        for batch in reader.fetch(0, window, 0, count):
            lengths = [int(batch.fields[name].lengths.max()) for name in ("src", "tgt")]
            real.append((len(batch.pair_ids), *lengths))
    assert_covered(real, TASK.widest(manifest, settings))


@pytest.mark.parametrize("seed", range(20))
def test_no_micro_batch_of_random_lengths_exceeds_the_widest_shapes(phrasebook, dataset, seed):
    random = np.random.default_rng(seed)
    longest = random.integers(2, 60, size=2)
    lengths = random.integers(1, longest + 1, size=(random.integers(1, 300), 2)).astype(np.int32)
    budget = int(lengths.max() + random.integers(0, 200))
    plan = plan_window(lengths, budget, seed, 0, 0)
    real = [
        (stop - start, *lengths[plan.order[start:stop]].max(axis=0).tolist())
        for start, stop in pairwise(plan.bounds.tolist())
    ]
    counts = {name: tuple(np.bincount(lengths[:, n])) for n, name in enumerate(("src", "tgt"))}
    manifest: Manifest = dataset[1].model_copy(update={"lengths": counts})
    assert_covered(real, TASK.widest(manifest, settings_of(phrasebook, budget)))


def test_the_widest_shapes_maximize_length_tokens_and_attention_scores(phrasebook, dataset):
    manifest = dataset[1].model_copy(
        update={"lengths": {"src": (0, 0, 0, 5, 5, 5, 5), "tgt": (0, 0, 0, 0, 5, 5, 5, 5, 5, 5)}}
    )
    widest = TASK.widest(manifest, settings_of(phrasebook, 40))
    longest, most_tokens = PairShape(4, 6, 9), PairShape(10, 4, 4)
    most_scores = PairShape(5, 6, 8)  # because 40 is not a multiple of 9
    assert widest == [longest, most_tokens, most_scores]


def test_widest_shapes_with_subword_sampling_have_the_maximum_lengths(phrasebook, dataset):
    settings = settings_of(phrasebook, 1000, alpha=0.1)
    shape = TASK.widest(dataset[1], settings)[0]
    assert (shape.source_length, shape.target_length) == (
        settings.data.max_source_length,
        settings.data.max_target_length,
    )


def test_a_synthetic_micro_batch_has_no_padding_and_valid_pieces():
    micro_batch = TASK.synthetic(PairShape(3, 4, 2), SPECIAL)
    batch = to_device(micro_batch, VOCABULARY, torch.device("cpu"))
    assert batch.source.shape == (3, 4)
    assert batch.inputs[2].shape == batch.target_input.shape == (3, 2)
    assert batch.padding == 0
    assert batch.source.tolist() == [[1, 1, 1, 3]] * 3
    assert batch.target_input.tolist() == [[2, 1]] * 3
