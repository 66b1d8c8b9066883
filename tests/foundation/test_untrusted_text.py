"""Untrusted text is shown so that it cannot control the terminal or reorder or hide text."""

import json
import logging
import unicodedata

import pytest

from foundation.untrusted_text import logger_of, visible, visible_in, visible_in_json, visible_line

EVERY_CODE_POINT = [chr(number) for number in range(0x110000)]
# Format characters with a visible effect: number signs of Arabic, Syriac and Kaithi, and joiners of
# Egyptian hieroglyphs.
SIGNS = {
    chr(number)
    for first, last in [
        (0x600, 0x605),
        (0x6DD, 0x6DD),
        (0x70F, 0x70F),
        (0x890, 0x891),
        (0x8E2, 0x8E2),
        (0x110BD, 0x110BD),
        (0x110CD, 0x110CD),
        (0x13430, 0x1343F),
    ]
    for number in range(first, last + 1)
}


def test_every_control_format_and_separator_character_is_escaped():
    odd = {c for c in EVERY_CODE_POINT if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    assert len(odd) > 2000
    kept = {c for c in odd if visible(c) == c}
    assert kept - SIGNS == {"\n", "\t"}
    assert {c for c in odd if visible_line(c) == c} <= SIGNS
    for c in odd - kept:
        assert visible(c).isascii()
        assert visible(c).isprintable()
        assert unescaped(visible(c)) == c


def unescaped(escape: str) -> str:
    return escape.encode().decode("unicode_escape")


@pytest.mark.parametrize(
    "codes",
    [
        range(0x00, 0x09),
        range(0x0B, 0x20),
        range(0x7F, 0xA0),
        [0x200E, 0x200F, 0x061C],
        range(0x202A, 0x202F),
        range(0x2066, 0x206A),
        [0x2028, 0x2029],
        [0x200B, 0x2060, 0xFEFF, 0xAD, 0x180E, 0x3164],
        range(0xD800, 0xE000),
        range(0xE0000, 0xE0080),
    ],
    ids=lambda codes: f"U+{codes[0]:04X}",
)
def test_control_characters_are_escaped_within_any_text(codes):
    for code in codes:
        for before, after in [("", ""), ("a", "b"), ("ا", "ب"), ("👩", "💻"), ("\n", "\t")]:
            text = before + chr(code) + after
            assert visible(text) == before + visible(chr(code)) + after
            assert chr(code) not in visible(text)


def test_other_single_characters_are_not_changed():
    """The exceptions are invisible: fillers, and variation selectors without a base."""
    changed = {
        ord(c)
        for c in EVERY_CODE_POINT
        if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp", "Cn"} and visible(c) != c
    }
    fillers = {0x115F, 0x1160, 0x3164, 0xFFA0}
    selectors = {*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
    assert fillers < changed <= fillers | selectors


@pytest.mark.parametrize(
    "text",
    [
        "Ein Satz, mit „Anführung“ – und so weiter … 100 % & <b>[red]\\x1b",
        "Ελληνικά, Кириллица, Հայերեն, ქართული",
        "שָׁלוֹם עֲלֵיכֶם — עִבְרִית",
        "مرحبا بالعالم، ١٢٣",
        "می\u200cخواهم کتاب\u200cها را بخوانم",  # Persian
        "क्\u200dष और क्\u200cष, नमस्ते",  # Hindi
        "ශ්\u200dරී ලංකා",  # Sinhala
        "അവന്\u200d വന്നു",  # old Malayalam: a joiner ends a word
        "日本語、中文、葛\U000e0100城, 한국어",
        "ᠮᠣᠩᠭᠣᠯ\u180b",
        "e\u0301 n\u0303 Z\u0351\u0300\u0323 ồ",
        "👩\u200d💻 👨\u200d👩\u200d👧 🏳\ufe0f\u200d🌈 ❤\ufe0f\u200d🔥 👍🏽",
        "1\ufe0f\u20e3 #\ufe0f\u20e3 🇫🇷 ☺\ufe0f",
        "two\nlines\tand a tab, a no-break\u00a0space, a wide\u3000one, ▁pieces ▅",
        "∀x ∈ ℝ: ⌈x⌉ = −⌊−x⌋, 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    ],
)
def test_ordinary_text_is_not_changed(text):
    assert visible(text) == text
    assert json.loads(visible_in_json(json.dumps(text, ensure_ascii=False))) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b]52;c;cm0=\x1b\\", "\\x1b]52;c;cm0=\\x1b\\"),
        ("\x9b31mred\x9d0;t\x9c", r"\x9b31mred\x9d0;t\x9c"),
        ("done\rerror", r"done\rerror"),
        ("invoice\u202efdp.exe", r"invoice\u202efdp.exe"),
        ("name\udcff", r"name\udcff"),
        ("a\u200db", r"a\u200db"),
        ("\u200cx", r"\u200cx"),
        ("é\u200c", r"é\u200c"),
        ("क\u200d\u200dष", "क\u200d\\u200dष"),
        ("ب\u200b\u200c", r"ب\u200b\u200c"),
        ("x\ufe0f\ufe01\U000e0100", "x\ufe0f\\ufe01\\U000e0100"),
        (" \ufe0f", r" \ufe0f"),
        ("🏴\U000e0067\U000e0062\U000e007f", r"🏴\U000e0067\U000e0062\U000e007f"),
    ],
)
def test_control_characters_are_shown_as_escapes(text, shown):
    assert visible(text) == shown
    assert visible(shown) == shown


def test_json_with_escaped_control_characters_has_the_same_value():
    value = {"\x9b\u202e": ["\x1b]0;x\x07", "\x7f", "\U000e0041", "\udc80", "\u2028"]}
    text = visible_in_json(json.dumps(value, ensure_ascii=False))
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == value


def test_every_code_point_survives_visible_in_json():
    text = " ".join(EVERY_CODE_POINT)  # separated, so that no two surrogates form one character
    assert json.loads(visible_in_json(json.dumps(text, ensure_ascii=False))) == text


def test_visible_in_escapes_all_texts_and_keys_of_a_value():
    value = {"a\x1b": ["\u202e", {"b": ("\x07", 1, None, 0.5)}]}
    assert visible_in(value) == {r"a\x1b": [r"\u202e", {"b": [r"\x07", 1, None, 0.5]}]}


def test_a_modules_logger_escapes_control_characters(caplog):
    logger = logger_of("data_pipeline.a_module")
    assert logger_of("data_pipeline.a_module") is logger
    with caplog.at_level(logging.WARNING):
        logger.warning("%s is tried again in %.1f s", "http://\x1b]0;x\x07/\u202e", 0.5)
    assert caplog.messages == [r"http://\x1b]0;x\x07/\u202e is tried again in 0.5 s"]
