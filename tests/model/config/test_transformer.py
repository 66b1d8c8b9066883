import pytest
from pydantic import ValidationError

from foundation.section import change_class
from model.config.transformer import DecodingConfig, ModelConfig


@pytest.mark.parametrize("config", [ModelConfig, DecodingConfig])
def test_every_field_has_a_change_class_and_a_description(config):
    assert config.model_fields
    for name, field in config.model_fields.items():
        assert change_class(field), name
        assert field.description, name


def test_width_must_be_a_multiple_of_heads():
    with pytest.raises(ValidationError, match=r"width is 130.*heads = 4"):
        ModelConfig(width=130, heads=4)


def test_width_must_be_even():
    with pytest.raises(ValidationError, match="width is 33"):
        ModelConfig(width=33, heads=3)


@pytest.mark.parametrize(
    "values",
    [{"width": 2 * 10**9}, {"encoder_layers": 10**5}, {"decoder_layers": 10**9, "width": 2}],
)
def test_sizes_above_the_limits_are_refused(values):
    with pytest.raises(ValidationError, match="less than or equal to"):
        ModelConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"beam_size": 10**6},
        {"length_penalty": 1e300},
        {"max_length_factor": 1e300},
        {"max_extra_length": 10**6},
    ],
)
def test_search_settings_above_the_limits_are_refused(values):
    with pytest.raises(ValidationError, match="less than or equal to"):
        DecodingConfig(**values)


def test_unknown_keys_and_assignments_are_refused():
    with pytest.raises(ValidationError, match="extra"):
        ModelConfig(widht=512)
    with pytest.raises(ValidationError, match="frozen"):
        ModelConfig().width = 4


def test_defaults_are_those_of_the_papers_base_model():
    base = ModelConfig()
    assert (base.encoder_layers, base.width, base.feed_forward_width) == (6, 512, 2048)
    assert (base.heads, base.head_width, base.dropout, base.norm) == (8, 64, 0.1, "post")
    assert (DecodingConfig().beam_size, DecodingConfig().length_penalty) == (4, 0.6)
