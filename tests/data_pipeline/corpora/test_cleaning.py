"""Cleaning rules, compared with a plain reimplementation of their descriptions in the recipe."""

import itertools
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.config.pair import PairCleaningConfig, PairCorpusConfig, PairDataConfig
from data_pipeline.corpora.cleaning import Cleaner, Dropped, DropReport, pair_rules
from data_pipeline.corpora.formats import Example

SPACES = " \t\u00a0\u2028\u3000"
texts = st.text(alphabet="aé\u0301ﬁ" + SPACES, max_size=6)
pairs = st.lists(
    st.builds(Example, st.tuples(texts, texts), st.none() | st.floats(0, 1, allow_nan=False)),
    max_size=30,
)
rules = st.fixed_dictionaries(
    {},
    optional={
        "normalise": st.sampled_from([None, "NFC", "NFKC"]),
        "max_source_characters": st.integers(1, 5),
        "max_target_characters": st.integers(1, 5),
        "max_length_ratio": st.sampled_from([1, 1.5, 2, 3]),
        "drop_identical": st.booleans(),
    },
)


def make_cleaner(rules: dict[str, Any], min_score: float | None = None) -> Cleaner:
    corpus: dict[str, Any] = {"source": "a", "target": "b"}
    scored = {"files": ["a.tsv"], "columns": {"score": 2}, "min_score": min_score}
    data = PairDataConfig.model_validate(
        {
            "source_language": "xx",
            "target_language": "yy",
            "dataset": "d",
            "train": [corpus if min_score is None else scored],
            "validation": corpus,
            "cleaning": rules,
        }
    )
    return cleaner_of(data)


def cleaner_of(data: PairDataConfig) -> Cleaner:
    return Cleaner(pair_rules(data.cleaning, data.train[0]), data.cleaning.normalise)


def reasons_of(pair: Example, rules: PairCleaningConfig, min_score: float | None) -> list[str]:
    """Return all rules that apply to a pair that is already normalised."""
    (source, target), score = pair
    shorter, longer = min(len(source), len(target)), max(len(source), len(target))
    applies = {
        "empty": source.isspace() or target.isspace() or not source or not target,
        "source_characters": len(source) > (rules.max_source_characters or 10**9),
        "target_characters": len(target) > (rules.max_target_characters or 10**9),
        "length_ratio": rules.max_length_ratio is not None
        and (shorter == 0 or longer / shorter > rules.max_length_ratio),
        "identical": rules.drop_identical and source == target,
        "score": None not in (score, min_score) and score < min_score,
    }
    return [reason for reason, does in applies.items() if does]


@settings(deadline=None)
@given(pairs, rules, st.none() | st.floats(0, 1), st.integers(0, 10**12))
def test_every_pair_is_kept_or_counted_under_its_first_reason(
    pairs: list[Example], rules: dict[str, Any], min_score: float | None, first: int
) -> None:
    config = PairCleaningConfig.model_validate(rules)
    cleaner = make_cleaner(rules, min_score)
    kept, report = cleaner.clean(first, pairs)

    expected_kept, dropped = [], dict.fromkeys(cleaner.reasons, 0)
    for position, pair in enumerate(pairs, first):
        if config.normalise:
            normal = tuple(unicodedata.normalize(config.normalise, text) for text in pair.texts)
            pair = Example(normal, pair.score)
        reasons = reasons_of(pair, config, min_score)
        if reasons:
            dropped[reasons[0]] += 1
        else:
            expected_kept.append((position, pair.texts))
    assert kept == expected_kept
    assert report.counts() == dropped


@pytest.mark.parametrize(
    ("rules", "kept", "dropped"),
    [
        ({"max_source_characters": 3}, ("abc", "x"), ("abcd", "x")),
        ({"max_target_characters": 3}, ("x", "abc"), ("x", "abcd")),
        ({"max_length_ratio": 1.5}, ("aaa", "bb"), ("aaaa", "bb")),
        ({"max_length_ratio": 1.5}, ("bb", "aaa"), ("bb", "aaaa")),
        ({"drop_identical": True}, ("a", "A"), ("a", "a")),
        ({"drop_identical": True, "normalise": "NFC"}, ("é", "e"), ("é", "e\u0301")),
        ({"max_source_characters": 1, "normalise": "NFC"}, ("e\u0301", "x"), ("xx", "x")),
        ({"max_source_characters": 1, "normalise": "NFKC"}, ("f", "x"), ("ﬁ", "x")),
    ],
)
def test_bounds_of_cleaning_rules_are_inclusive(
    rules: dict[str, Any], kept: tuple[str, str], dropped: tuple[str, str]
) -> None:
    given = [Example(kept, None), Example(dropped, None)]
    left, report = make_cleaner(rules).clean(0, given)
    assert [position for position, _ in left] == [0]
    assert sum(report.counts().values()) == 1


def test_a_score_at_the_bound_is_kept() -> None:
    scores = (0.5, 0.4999, 7.0)
    given = [Example(("a", "b"), score) for score in scores]
    kept, report = make_cleaner({}, min_score=0.5).clean(0, given)
    assert [position for position, _ in kept] == [0, 2]
    assert report.counts() == {"empty": 0, "score": 1}


def test_only_rules_that_the_recipe_sets_are_reported() -> None:
    assert make_cleaner({}).reasons == ["empty"]
    assert make_cleaner({"max_length_ratio": 2, "drop_duplicates": True}).reasons == [
        "empty",
        "length_ratio",
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_ten_earliest_examples_are_shown_in_any_order_of_merging(seed: int) -> None:
    rng = random.Random(seed)
    positions = rng.sample(range(1000), 60)
    whole, parts = Dropped(), [Dropped() for _ in range(7)]
    for position in positions:
        for dropped in (whole, rng.choice(parts)):
            dropped.add(position, (f"source {position}", f"target {position}"))
    rng.shuffle(parts)
    merged = DropReport(["x"])
    for part in parts:
        report = DropReport([])
        report.by_reason["x"] = part
        merged.merge(report)
    assert merged.counts() == {"x": 60}
    once = DropReport(["x"])
    once.by_reason["x"] = whole
    for report in (once, merged):
        shown = report.to_json("pair", ("source", "target"))
        assert shown["x"]["examples"] == [
            {"pair": p + 1, "source": f"source {p}", "target": f"target {p}"}
            for p in sorted(positions)[:10]
        ]


@pytest.mark.parametrize("late", [50, 0, 98])
def test_an_earlier_example_replaces_the_last_shown_example(late: int) -> None:
    dropped = Dropped()
    for position in (*range(1, 10), 99, late, 200, late + 1000):
        dropped.add(position, ("a", "b"))
    shown = [example.position for example in dropped.examples]
    assert shown == sorted([*range(1, 10), late])
    assert dropped.count == 13


def test_merging_does_not_change_the_merged_report() -> None:
    one, other = DropReport(["x"]), DropReport(["x", "y"])
    for number in range(5):
        other.by_reason["x"].add(number, ("a", "b"))
    one.merge(other)
    one.by_reason["x"].add(9, ("a", "b"))
    one.by_reason["y"].add(9, ("a", "b"))
    assert other.counts() == {"x": 5, "y": 0}
    assert one.counts() == {"x": 6, "y": 1}


def test_examples_are_cut_short(data_config: Callable[..., PairDataConfig], corpus: Any) -> None:
    long: PairCorpusConfig = corpus("train")
    data = data_config(Path("x"), train=[long], cleaning={"max_target_characters": 9})
    _, report = cleaner_of(data).clean(0, [Example(("a" * 10_000, "b" * 10_000), None)])
    (example,) = report.by_reason["target_characters"].examples
    assert example.texts == ("a" * 500, "b" * 500)


def test_a_pair_is_counted_under_the_first_rule_in_the_order_of_the_report() -> None:
    """For each pair of rules, the later rule is not counted."""
    everything = {
        "max_source_characters": 4,
        "max_target_characters": 4,
        "max_length_ratio": 2,
        "drop_identical": True,
    }
    cleaner = make_cleaner(everything)
    for source, target in itertools.product(("", "a", "aaa", "aaaaa", "aaaaaaaaaa"), repeat=2):
        pair = Example((source, target), None)
        _, report = cleaner.clean(0, [pair])
        found = [reason for reason, count in report.counts().items() if count]
        assert found == reasons_of(pair, PairCleaningConfig.model_validate(everything), None)[:1]
