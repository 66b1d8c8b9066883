"""The YAML of recipes: every value that is written is read back unchanged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.strict_yaml import YamlError, dump_yaml, inline_yaml, parse_yaml

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
def test_inline_values_are_read_back_unchanged(first: str, second: str | None) -> None:
    text = f"a: {{b: {inline_yaml(first)}, c: [{inline_yaml(second)}]}}"
    assert "\n" not in text
    assert parse_yaml(text) == {"a": {"b": first, "c": [second]}}


@given(values=st.dictionaries(TEXTS, TEXTS | st.floats(allow_nan=False), min_size=1))
def test_documents_are_read_back_unchanged(values: dict[str, str | float]) -> None:
    assert parse_yaml(dump_yaml(values)) == values


@pytest.mark.parametrize("plain", ["fr", "corpora/train.fr", 3, 0.004, 0.00005, True, None])
def test_unambiguous_values_are_written_without_quotes(plain: str | float | None) -> None:
    assert "'" not in inline_yaml(plain)
    assert parse_yaml(f"a: {inline_yaml(plain)}") == {"a": plain}


@pytest.mark.parametrize("text", ["0100", "-017", "1:30", "-1:02:03", "1:30.5", "190:20:30.15"])
def test_unquoted_octal_and_base_60_numbers_are_refused(text: str) -> None:
    for document in (f"a: {text}", f"{text}: a", f"[{text}]", f"a: &x {text}\nb: *x"):
        with pytest.raises(YamlError, match=f"line 1: {text} is .* in YAML 1.1"):
            parse_yaml(document)
    assert parse_yaml(f"'{text}'") == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("00", 0), ("07", 7), ("08", "08"), ("0x10", 16), ("1_000", 1000), ("0.50", 0.5)],
)
def test_numbers_with_one_meaning_in_all_yaml_versions_are_read(text: str, value: object) -> None:
    assert parse_yaml(text) == value
