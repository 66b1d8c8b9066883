"""Valid and invalid settings of data, tokenizer and batching."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from data_pipeline.config.data import BatchingConfig, SubwordSamplingConfig, TokenizerConfig
from data_pipeline.config.pair import (
    PairCleaningConfig,
    PairColumns,
    PairCorpusConfig,
    PairDataConfig,
)
from foundation.section import change_class

SHA256 = "0" * 64
MODELS = (
    BatchingConfig,
    PairCleaningConfig,
    PairColumns,
    PairCorpusConfig,
    PairDataConfig,
    SubwordSamplingConfig,
    TokenizerConfig,
)
MakeData = Callable[..., PairDataConfig]


@pytest.mark.parametrize("model", MODELS)
def test_every_field_has_a_change_class_and_a_description(model: type[BaseModel]) -> None:
    assert model.model_fields
    for name, field in model.model_fields.items():
        is_model = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        classed = change_class(field)
        # The members of a group of settings have descriptions; PairColumns is one setting of a
        # corpus.
        if is_model and not classed:
            assert field.annotation in MODELS
        else:
            assert classed, name
            assert field.description, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "a.model"}, "set both"),
        ({"model_sha256": SHA256}, "set both"),
        ({"model": "a.model", "model_sha256": SHA256, "joint": False}, "joint is false"),
        ({"type": "word"}, "Choose one of bpe, unigram, char"),
        ({"vocabulary_size": 4}, "greater than 4"),
        ({"character_coverage": 0.5}, "greater than or equal to 0.98"),
        ({"training_pairs": 0}, "greater than 0"),
        ({"sampling": {"alpha": 1.1}}, "less than or equal to 1"),
        ({"sampling": {"sides": "neither"}}, "'both', 'source' or 'target'"),
    ],
)
def test_invalid_tokenizers_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TokenizerConfig.model_validate({"vocabulary_size": 100} | settings)


def aligned(**settings: object) -> dict[str, object]:
    return {"source": "a", "target": "b"} | settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": ()}, "at least 1 item"),
        ({"tests": {"../x": aligned()}}, "pattern"),
        ({"tests": {"validation": aligned()}}, "another name"),
        ({"tests": {"train": aligned()}}, "another name"),
        ({"train": (aligned(weight=1), aligned())}, r"weights .* 1.0, null: give every"),
        ({"train": (aligned(weight=1),), "temperature": 5}, "temperature is 5.0"),
        ({"train": (aligned(weight="inf"),)}, "finite"),
        ({"train": (aligned(name="x"), aligned(name="x"))}, "named x, x: give each corpus"),
        ({"train": (aligned(name="train-1"), aligned())}, "named train-1, train-1"),
        ({"validation": aligned(weight=2)}, r"validation has .*weight 2"),
        ({"tests": {"t": aligned(name="x")}}, r"set t has .*name x"),
        ({"temperature": 0.5}, "greater than or equal to 1"),
        ({"cache_gigabytes": "nan"}, "greater than 0|finite"),
    ],
)
def test_invalid_data_settings_are_refused(
    data_config: MakeData, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        data_config(Path("x"), **settings)


def test_a_corpus_is_named_by_the_recipe_or_by_its_position(data_config: MakeData) -> None:
    def names(*train: dict[str, object]) -> tuple[str, ...]:
        return data_config(Path("x"), train=train).corpus_names

    assert names(aligned()) == ("train",)
    assert names(aligned(name="news")) == ("news",)
    assert names(aligned(), aligned(name="news"), aligned()) == ("train-0", "news", "train-2")
