"""The plan of every task: golden values, and dependence on seed, epoch and window.

A plan decides what was read by the run of a released checkpoint and what a resumed run reads next.
"""

import hashlib

import numpy as np
import pytest
from support.recipes import tiny_values
from support.tasks import (
    case_values,
    embedding_values,
    language_model_values,
    language_values,
    masked_values,
    pair_masked_values,
)

from cluster.recipe import Recipe
from data_pipeline.arrays import flattened
from data_pipeline.batching.task import DATA_TASKS
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.config.text import TEXT
from data_pipeline.tasks.masking import SEGMENTS

EXAMPLES = 60
OURS = "data_pipeline."
RECIPES = {
    "translation": tiny_values,
    "causal_lm": language_model_values,
    "masked_lm": masked_values,
    "tlm": pair_masked_values,
    "text_classification": language_values,
    "token_classification": case_values,
    "sentence_embedding": embedding_values,
}
OF_PAIRS = {"translation", "sentence_embedding"}  # the other tasks plan by their texts
COORDINATES = [(3, 0, 0), (4, 0, 0), (3, 1, 0), (3, 0, 1)]  # seed, epoch, window
GOLDEN: dict[str, list[str]] = {
    "translation": ["77a2f1507bb9252a", "f906753a3be08869", "aca38704bf2fd5fa", "5abf7111d0c28db6"],
    "causal_lm": ["1f4984ccb5710ea8", "c16025e985fc6e9e", "af01cef0ff47f1ee", "0719e4b3723f9121"],
    "masked_lm": ["544b16e87d8cd33a", "e46974f2482c9185", "e798e699166d6f15", "5ca7a353d0668f16"],
    "tlm": ["9c1fc63e7764c040", "3ce90e2429b392f4", "e2e48b3b35606323", "a21e581ff78f2fe2"],
    "text_classification": [
        "f5c17b3ea75398f6",
        "479e3f5474160e13",
        "94824434203bdeb7",
        "f1b9daf6804e07ca",
    ],
    "token_classification": [
        "544b16e87d8cd33a",
        "e46974f2482c9185",
        "e798e699166d6f15",
        "5ca7a353d0668f16",
    ],
    "sentence_embedding": [
        "04c055affa47559e",
        "57f1f5e5fb6fdee7",
        "e2afc582dfdc5946",
        "0a2f448fe20976fd",
    ],
}


def fields():
    """Return sequences of 3 to 20 tokens; the last third of a pair's text is its target."""
    lengths = [3 + 7 * number % 18 for number in range(EXAMPLES)]
    text = flattened([[9] * length for length in lengths])
    segments = flattened([[0] * (n - n // 3) + [1] * (n // 3) for n in lengths])
    sides = {SOURCE: text, TARGET: flattened([[9] * (23 - length) for length in lengths])}
    return {TEXT: text, SEGMENTS: segments, **sides}


def digest(plan):
    cuts = [plan.cuts.starts, plan.cuts.stops, plan.cuts.rows] if plan.cuts else []
    arrays = [np.asarray(array, "<i8").tobytes() for array in (plan.order, plan.bounds, *cuts)]
    return hashlib.sha256(b"|".join(arrays)).hexdigest()[:16]


@pytest.fixture(scope="module", params=sorted(RECIPES))
def digests(request, tmp_path_factory):
    """Return a task's name, and the digests of its plans at the coordinates."""
    values = RECIPES[request.param](tmp_path_factory.mktemp("unread"))
    names = (SOURCE, TARGET) if request.param in OF_PAIRS else (TEXT, SEGMENTS)
    given = {name: field for name, field in fields().items() if name in names}
    task = DATA_TASKS[request.param]
    settings = [Recipe.of(values | {"seed": seed}).data_settings for seed, _, _ in COORDINATES]
    plans = [
        task.plan(given, one, epoch, window)
        for one, (_, epoch, window) in zip(settings, COORDINATES, strict=True)
    ]
    return request.param, [digest(plan) for plan in plans]


def test_every_task_of_transloom_has_golden_plans():
    """Tasks of extensions, which other tests may have registered, have no golden plans."""
    own = {name for name in DATA_TASKS if type(DATA_TASKS[name]).__module__.startswith(OURS)}
    assert own == set(RECIPES) == set(GOLDEN)


def test_the_plans_of_a_task_equal_golden_digests(digests):
    """Never change these values: every released checkpoint depends on them."""
    task, found = digests
    assert found == GOLDEN[task]


def test_plans_differ_by_seed_epoch_and_window(digests):
    _, found = digests
    assert len(set(found)) == len(COORDINATES)
