"""What the data settings accept, refuse and declare."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from data_pipeline.config import BatchingConfig, CorpusConfig, DataConfig, TokenizerConfig

SHA256 = "0" * 64
MODELS = (CorpusConfig, DataConfig, TokenizerConfig, BatchingConfig)


@pytest.mark.parametrize("model", MODELS)
def test_every_field_has_a_class_and_a_description(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, name
        classes = {"identity", "continuable", "execution"} & {
            item for item in field.metadata if isinstance(item, str)
        }
        is_model = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        assert len(classes) == (0 if is_model else 1), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "https://x.org/a.gz", "target": "b"}, "source_sha256 is not set"),
        ({"source": "a", "target": "http://x.org/b"}, "target_sha256 is not set"),
        ({"source": "a", "target": "b", "source_sha256": "abc"}, "pattern"),
        ({"source": "a", "target": "b", "wieght": 1}, "Extra inputs"),
    ],
)
def test_wrong_corpora_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CorpusConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "a.model"}, "set both"),
        ({"model_sha256": SHA256}, "set both"),
        ({"model": "a.model", "model_sha256": SHA256, "joint": False}, "joint is false"),
        ({"type": "word"}, "'bpe' or 'unigram'"),
        ({"vocabulary_size": 4}, "greater than 4"),
    ],
)
def test_wrong_tokenizers_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TokenizerConfig.model_validate({"vocabulary_size": 100} | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": ()}, "at least 1 item"),
        ({"tests": {"../x": {"source": "a", "target": "b"}}}, "pattern"),
        ({"tests": {"validation": {"source": "a", "target": "b"}}}, "another name"),
        ({"tests": {"train": {"source": "a", "target": "b"}}}, "another name"),
    ],
)
def test_wrong_data_is_refused(
    data_config: Callable[..., DataConfig], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        data_config(Path("x"), **settings)
