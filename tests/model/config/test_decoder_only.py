import ast
from pathlib import Path

import pytest
from pydantic import ValidationError

import model
from foundation.section import change_class
from model.config.decoder_only import PRESETS, DecoderOnlyConfig, SamplingConfig


@pytest.mark.parametrize("config", [DecoderOnlyConfig, SamplingConfig])
def test_every_field_has_a_change_class_and_a_description(config):
    assert config.model_fields
    for name, field in config.model_fields.items():
        assert change_class(field) == ("identity" if config is DecoderOnlyConfig else "continuable")
        assert field.description, name


def test_every_configuration_field_is_read_by_the_model():
    """Excluded are preset, which only sets other fields, and stop, which the caller reads."""
    folder = Path(model.__file__).parent
    trees = [
        ast.parse(path.read_text())
        for path in folder.rglob("*.py")
        if path.name != "decoder_only_config.py"
    ]
    read = {
        node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }
    aliases = {"key_value_heads": "groups", "feed_forward_width": "inner_width"}
    fields = {*DecoderOnlyConfig.model_fields, *SamplingConfig.model_fields} - {"preset", "stop"}
    assert {aliases.get(name, name) for name in fields} <= read


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_in_only_fields_that_are_not_given(preset):
    config = DecoderOnlyConfig(preset=preset)
    assert {name: getattr(config, name) for name in PRESETS[preset]} == PRESETS[preset]
    own = DecoderOnlyConfig(preset=preset, activation="relu", bias=True, norm_epsilon=0.5)
    assert (own.activation, own.bias, own.norm_epsilon) == ("relu", True, 0.5)
    assert own.positions == config.positions


def test_presets_have_the_published_settings():
    gpt2, llama = DecoderOnlyConfig(preset="gpt2"), DecoderOnlyConfig(preset="llama")
    assert (gpt2.positions, gpt2.norm_kind, gpt2.activation) == ("learned", "layer", "gelu_tanh")
    assert (gpt2.bias, gpt2.tie_embeddings, gpt2.feed_forward_width) == (True, True, 3072)
    assert (llama.positions, llama.norm_kind, llama.activation) == ("rotary", "rms", "swiglu")
    assert (llama.bias, llama.tie_embeddings, llama.feed_forward_width) == (False, False, 2048)


def test_a_resolved_configuration_has_no_missing_values_and_resolves_to_itself():
    config = DecoderOnlyConfig(preset="llama", width=100, heads=10, key_value_heads=2)
    values = config.model_dump()
    assert values["feed_forward_width"] == 288  # 266⅔, rounded up
    assert values["key_value_heads"] == 2
    assert None not in values.values()
    assert DecoderOnlyConfig(**values) == config
    assert DecoderOnlyConfig(heads=6, key_value_heads=None).key_value_heads == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 130, "heads": 4}, r"width is 130.*heads = 4"),
        ({"width": 64, "heads": 4, "key_value_heads": 3}, r"heads is 4.*key_value_heads = 3"),
        ({"width": 12, "heads": 4, "positions": "rotary"}, r"4 heads is 3 wide"),
        ({"width": 33, "heads": 3, "positions": "sinusoidal"}, "width is 33"),
        ({"rotary_base": 5e5}, r"rotary_base is 500000, but model.positions is learned"),
        ({"preset": "gpt3"}, "'gpt2' or 'llama'"),
        ({"heads": "many"}, "valid integer"),
        ({"widht": 64}, "extra"),
    ],
)
def test_an_invalid_network_configuration_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        DecoderOnlyConfig(**settings)


@pytest.mark.parametrize(
    "settings", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_new_tokens": 0}]
)
def test_an_invalid_sampling_configuration_is_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        SamplingConfig(**settings)
