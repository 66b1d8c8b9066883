"""The form of numbers, lists and changes in messages."""

import math
import re
from pathlib import Path

import pytest

from cluster.packages import PACKAGES
from data_pipeline.batching.plan import Cursor
from foundation.wording import (
    byte_count,
    counted,
    format_value,
    join_first,
    join_items,
    span,
    steps_of,
)

ROOT = Path(__file__).resolve().parents[2]
NOUNS = (
    "ranks|data workers|workers|steps|shards|pairs|lines|files|tensors|micro-batches|runs|rows|"
    "jobs|CPUs|GPUs|nodes|layers|words|tags|weights|replicas|pages|windows|checkpoints|problems|epochs|"
    "attempts|sessions|hours|minutes|seconds|days"
)
# A plural noun after a variable number that may be 1.
# Constants, whose names are in capitals, are larger than 1.
UNCOUNTED = re.compile(rf"\{{(?![A-Z_]+[:}}])[^{{}}]*\}} ({NOUNS})\b")


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (0, "rank", "0 ranks"),
        (1, "rank", "1 rank"),
        (1, "data worker", "1 data worker"),
        (2, "micro-batch", "2 micro-batches"),
        (1_000, "pair", "1,000 pairs"),
        (1.0, "CPU", "1 CPU"),
        (0.5, "CPU", "0.5 CPUs"),
    ],
)
def test_counted_uses_the_singular_only_for_one(count: float, noun: str, words: str) -> None:
    assert counted(count, noun) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"),
        (0.2, "0 s"),
        (12.4, "12 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3 * 3600, "3 h"),
        (3 * 3600 + 5 * 60 + 9, "3 h 5 min"),
        (51 * 3600, "2 d 3 h"),
    ],
)
def test_a_time_span_has_at_most_two_units(seconds: float, words: str) -> None:
    assert span(seconds) == words
    assert " d " in span(math.inf)


@pytest.mark.parametrize(
    ("step", "max_steps", "words"),
    [(7, 20, "7 of 20"), (20, 20, "20 of 20"), (40, 20, "40 (max_steps is 20)"), (7, None, "7")],
)
def test_a_step_beyond_max_steps_is_not_shown_as_a_fraction(
    step: int, max_steps: int | None, words: str
) -> None:
    assert steps_of(step, max_steps) == words


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (8_150_000, "8.2 MB"),
        (99_949_000, "99.9 MB"),
        (755e6, "0.76 GB"),
        (12_440_000_000, "12.4 GB"),
    ],
)
def test_byte_counts_have_two_or_three_digits(amount: float, words: str) -> None:
    assert byte_count(amount) == words


def test_values_are_not_formatted_like_python_literals() -> None:
    assert join_items([1.0, None, True]) == "1.0, null, true"
    assert join_items([]) == "none"
    assert join_first(["a", "b"], 2, 2) == join_first(["a", "b"], 2) == "a, b"
    assert join_first(["a", "b", "c"], 1) == "a and 2 others"
    assert join_first(["a", "b", "c"], 2, 4, "rank") == "a, b and 2 ranks"
    assert join_first(["a"], 2, 2) == "a and 1 other"
    assert join_first(["a", "b"], 1, 2001, None) == "a and 2,000 more"
    assert format_value({"src": 2, "tgt": 3}) == "src 2, tgt 3"
    assert format_value({"ranks": [1, 2], "files": ["a"]}) == "ranks 1 → 2, files a"
    assert str(Cursor(1, 2, 3)) == "epoch 1, window 2, micro-batch 3"


def test_no_message_has_a_fixed_plural_after_a_number_that_may_be_one() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for match in UNCOUNTED.finditer(path.read_text(encoding="utf-8"))
    ]
    assert sorted(found) == [
        "cluster/launchers/ray_job/submit_checks.py: {head} runs",  # not a number
        "model/config/transformer.py: {self.decoder_layers} layers",  # of two stacks: 1+1 layers
        "trainer/exact/grids.py: {most} micro-batches",  # always thousands
        "trainer/zero/engine.py: {ranks} ranks",  # at least 3
        "transloom/cli/demo.py: {command} checkpoints",  # not a number
        "transloom/cli/jobs.py: {own_command()} jobs",  # not a number
        "transloom/cli/jobs.py: {own_command()} jobs",
        "transloom/cli/load_translator.py: {len(names)} runs",  # at least 2
        "transloom/cli/plan.py: {rounded} steps",  # a singular form exists
        "transloom/observe/explain/live/packing.py: {count:,} weights",  # always millions
    ]
