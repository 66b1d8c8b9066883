"""Settings that decide the bytes of a dataset, and settings that do not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from support.data_settings import settings_of

from data_pipeline.config.data import SubwordSamplingConfig, TokenizerConfig
from data_pipeline.config.pair import PairCleaningConfig, PairCorpusConfig, PairDataConfig
from data_pipeline.config.text import (
    TextCleaningConfig,
    TextCorpusConfig,
    TextDataConfig,
    TextTokenizerConfig,
)
from data_pipeline.dataset.preparation_settings import differences, preparation_settings
from foundation.section import decides_bytes

MakeData = Callable[..., PairDataConfig]
CORPUS = {"source": "a", "target": "b"}


@pytest.mark.parametrize(
    "settings",
    [
        {"mirror": "m", "cache": "c", "cache_gigabytes": 1},
        {"temperature": 5},
        {"train": [CORPUS | {"weight": 3}]},
        {"cleaning": {"drop_identical": False}},
        {"max_source_length": 256},
    ],
)
def test_settings_that_do_not_change_the_dataset_are_not_recorded(
    data_config: MakeData, tokenizer_config: TokenizerConfig, settings: dict[str, Any]
) -> None:
    plain = data_config(Path("x"), train=[CORPUS])
    other = data_config(Path("y"), **{"train": [CORPUS]} | settings)
    assert preparation_settings(settings_of(other, tokenizer_config)) == preparation_settings(
        settings_of(plain, tokenizer_config)
    )


def test_subword_sampling_is_not_recorded(
    data_config: MakeData, tokenizer_config: TokenizerConfig
) -> None:
    sampled = TokenizerConfig.model_validate(
        tokenizer_config.model_dump() | {"sampling": {"alpha": 0.1, "sides": "source"}}
    )
    data = data_config(Path("x"))
    assert preparation_settings(settings_of(data, sampled)) == preparation_settings(
        settings_of(data, tokenizer_config)
    )


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        (
            {"train": [CORPUS | {"tag": "<bt>"}]},
            "data.train[0].tag: 'not set' in the dataset, '<bt>' in the recipe",
        ),
        (
            {"cleaning": {"max_length_ratio": 3}},
            "data.cleaning.max_length_ratio: 'not set' in the dataset, 3.0 in the recipe",
        ),
        (
            {"train": [{"files": ["a.tsv"], "columns": {"source": 1, "target": 0}}]},
            "data.train[0].columns.source: 'not set' in the dataset, 1 in the recipe",
        ),
        (
            {"pairs_per_block": 99},
            "data.pairs_per_block: 16 in the dataset, 99 in the recipe",
        ),
    ],
)
def test_a_setting_that_decides_the_bytes_is_reported(
    data_config: MakeData,
    tokenizer_config: TokenizerConfig,
    settings: dict[str, Any],
    difference: str,
) -> None:
    mine = preparation_settings(
        settings_of(data_config(Path("x"), train=[CORPUS]), tokenizer_config)
    )
    recipe = data_config(Path("x"), **{"train": [CORPUS]} | settings)
    assert difference in differences(
        mine, preparation_settings(settings_of(recipe, tokenizer_config))
    )


def test_different_spellings_of_the_same_path_are_no_difference(
    data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path, monkeypatch: Any
) -> None:
    def settings_with(corpus: dict[str, str]) -> dict[str, Any]:
        config = data_config(Path("x"), train=[corpus])
        return preparation_settings(settings_of(config, tokenizer_config))

    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("a")
    mine = settings_with(CORPUS)
    for name in ("./a", str(tmp_path / "a"), "x/../a", ".//a", "link"):
        assert differences(mine, settings_with(CORPUS | {"source": name})) == []
    for name in ("c/a", str(tmp_path / "c")):
        (difference,) = differences(mine, settings_with(CORPUS | {"source": name}))
        assert name in difference


def test_an_older_dataset_without_a_later_setting_is_the_same(
    data_config: MakeData, tokenizer_config: TokenizerConfig
) -> None:
    recipe = preparation_settings(settings_of(data_config(Path("x")), tokenizer_config))
    assert "max_source_length" not in recipe["data"]
    explicit = data_config(Path("x"), max_source_length=256, cleaning=PairCleaningConfig())
    assert differences(recipe, preparation_settings(settings_of(explicit, tokenizer_config))) == []


def test_defaults_that_decide_the_bytes_never_change() -> None:
    """With a changed default, the same recipe would give other bytes under the same identity."""
    assert {
        model.__name__: defaults(model)
        for model in (PairDataConfig, PairCorpusConfig, PairCleaningConfig, TokenizerConfig)
    } == {
        "PairDataConfig": {
            "blocks_per_shard": 2,
            "max_source_length": 256,
            "max_target_length": 256,
            "pairs_per_block": 2048,
            "tests": {},
        },
        "PairCorpusConfig": {
            "columns": {"score": None, "source": 0, "target": 1},
            "files": (),
            "files_sha256": (),
            **dict.fromkeys(
                (
                    *("source", "target", "source_sha256", "target_sha256"),
                    *("format", "min_score", "name", "tag"),
                )
            ),
        },
        "PairCleaningConfig": {
            "drop_duplicates": False,
            "drop_heldout": False,
            "drop_identical": False,
            "max_length_ratio": None,
            "max_source_characters": None,
            "max_target_characters": None,
            "normalise": None,
        },
        "TokenizerConfig": {
            "byte_fallback": False,
            "character_coverage": 1.0,
            "joint": True,
            "model": None,
            "model_sha256": None,
            "training_pairs": 500_000,
            "type": "bpe",
            "verbatim": False,
        },
    }


def test_defaults_of_documents_that_decide_the_bytes_never_change() -> None:
    tokenizer = defaults(TokenizerConfig)
    assert defaults(TextTokenizerConfig) == {
        **tokenizer,
        "verbatim": True,
        "training_megabytes": 100.0,
    }
    assert defaults(TextDataConfig) == {
        "blocks_per_shard": 2,
        "language": "und",
        "pairs_per_block": 2048,
        "tests": {},
    }
    assert defaults(TextCorpusConfig) == {
        "columns": {"score": None, "text": "text"},
        "documents": "line",
        "files_sha256": (),
        "part": (0.0, 1.0),
        **dict.fromkeys(("format", "min_score", "name")),
    }
    assert defaults(TextCleaningConfig) == {
        "drop_duplicates": False,
        "drop_heldout": True,
        **dict.fromkeys(("max_characters", "min_characters", "normalise")),
    }
    assert defaults(SubwordSamplingConfig) == {}


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Return the defaults of the settings that decide a dataset's bytes."""
    return {
        name: field.default.model_dump() if isinstance(field.default, BaseModel) else field.default
        for name, field in model.model_fields.items()
        if decides_bytes(field) and not field.is_required()
    }
