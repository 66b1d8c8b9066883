"""YAML that recipes are written in: every value is read as it was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.strict_yaml import dump_yaml, inline_yaml, parse_yaml

TEXTS = st.text(st.characters(codec="utf-8")) | st.sampled_from(
    [
        "no",
        "Off",
        "y",
        "~",
        "",
        "null",
        "1",
        "0x1f",
        "1_0",
        "1e3",
        "12:30:00",
        "2026-11-26",
        "=",
        "<<",
    ]
)


@given(first=TEXTS, second=TEXTS | st.integers() | st.booleans() | st.none())
def test_values_between_brackets_are_read_as_written(first: str, second: str | None) -> None:
    text = f"a: {{b: {inline_yaml(first)}, c: [{inline_yaml(second)}]}}"
    assert "\n" not in text
    assert parse_yaml(text) == {"a": {"b": first, "c": [second]}}


@given(values=st.dictionaries(TEXTS, TEXTS | st.floats(allow_nan=False), min_size=1))
def test_documents_are_read_as_written(values: dict[str, str | float]) -> None:
    assert parse_yaml(dump_yaml(values)) == values


@pytest.mark.parametrize("plain", ["fr", "corpora/train.fr", 3, 0.004, 0.00005, True, None])
def test_what_needs_no_quotes_has_none(plain: str | float | None) -> None:
    assert "'" not in inline_yaml(plain)
    assert parse_yaml(f"a: {inline_yaml(plain)}") == {"a": plain}
