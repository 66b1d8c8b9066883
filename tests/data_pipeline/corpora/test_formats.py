"""Parse corpora: every format gives the same pairs; an invalid value is named with its place."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.config.pair import PairColumns
from data_pipeline.corpora import json_values
from data_pipeline.corpora.formats import (
    AlignedLines,
    Chunk,
    ChunkLines,
    Content,
    CorpusSample,
    Example,
    JsonLines,
    Samples,
    TsvColumns,
    TsvLines,
    parse,
)
from data_pipeline.errors import CorpusError

NAMED = PairColumns(source="en", target="de", score="s")
INNER = PairColumns(source="translation.en", target="translation.de")
THREE = TsvColumns((0, 1), 2)


def pair(source: str, target: str, score: float | None = None) -> Example:
    return Example((source, target), score)


def lines(data: bytes, first: int = 1) -> ChunkLines:
    count = data.count(b"\n") + (not data.endswith(b"\n"))
    return ChunkLines("a.txt", first, count, data)


def parsed(content: Content) -> list[Example]:
    chunk = Chunk(0, content)
    assert pickle.loads(pickle.dumps(chunk)) == chunk  # noqa: S301 - made in this line
    pairs = parse(chunk)
    assert len(pairs) == content.count
    return pairs


# Lines


def test_lines_end_only_at_line_feeds() -> None:
    data = b"one\r\ntwo\x0b \xc2\x85 words \xe2\x80\xa8\n\n\tthr\ree\r"
    assert lines(data).decode() == ["one", "two\x0b \x85 words \u2028", "", "\tthr ee"]


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"\xff", "line 7: the byte 0xff, number 1 of the line"),
        (b"one\ntw\xc3\n", "line 8: the byte 0xc3, number 3 of the line"),
        ("é\néé".encode()[:-1], "line 8: the byte 0xc3, number 3 of the line"),
    ],
)
def test_invalid_utf8_is_reported_with_its_place(data: bytes, place: str) -> None:
    with pytest.raises(CorpusError, match=rf"a\.txt, {place}, is not UTF-8 .*iconv"):
        lines(data, first=7).decode()


def test_aligned_lines_form_pairs() -> None:
    content = AlignedLines((lines(b"un\n\ndeux"), lines(b"one\r\n \ntwo\n")))
    assert parsed(content) == [pair("un", "one", None), pair("", " ", None), pair("deux", "two")]


# TSV


def test_tsv_has_no_quotes_and_its_columns_may_be_in_any_order() -> None:
    content = TsvLines(lines(b'0.5\t"zwei"\tx\t"two\r\n1\t\t\t\n'), TsvColumns((3, 1), 0))
    assert parsed(content) == [pair('"two', '"zwei"', 0.5), pair("", "", 1.0)]


def test_tsv_columns_can_be_given_by_name() -> None:
    header = lines(b"id\ten\tde\ts\r\n")
    assert TsvColumns.resolve(NAMED, header) == TsvColumns((1, 2), 3)
    mixed = PairColumns(source=0, target="de")
    assert TsvColumns.resolve(mixed, header) == TsvColumns((0, 2), None)
    assert TsvColumns.resolve(PairColumns(), None) == TsvColumns((0, 1), None)


@pytest.mark.parametrize(("header", "found"), [(b"en\ts\n", 0), (b"en\tde\ts\tde\n", 2)])
def test_a_tsv_name_that_is_not_in_the_header_once_is_refused(header: bytes, found: int) -> None:
    message = rf"a\.txt, line 1: expected one column named 'de', found {found} among \['en', "
    with pytest.raises(CorpusError, match=message):
        TsvColumns.resolve(NAMED, lines(header))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"a\tb", "at least 3 columns between tabs, found 2"),
        (b"", "at least 3 columns between tabs, found 1"),
        (b"a\tb\tgood", "expected a number as score, found 'good'"),
        (b"a\tb\tnan", "expected a number as score, found 'nan'"),
        (b"a\tb\t", "expected a number as score, found ''"),
    ],
)
def test_invalid_tsv_is_reported_with_its_line(line: bytes, message: str) -> None:
    content = TsvLines(lines(b"a\tb\t1\n" + line + b"\n", first=41), THREE)
    with pytest.raises(CorpusError, match=rf"a\.txt, line 42: .*{message}.*"):
        parse(Chunk(0, content))


# JSON lines


def test_json_lines_give_pairs_and_scores() -> None:
    data = b'{"de": "d\\u00e9", "en": "e", "s": 2}\n{"s": -0.5, "en": "\\n\\u2028\\t", "de": ""}'
    assert parsed(JsonLines(lines(data), NAMED)) == [
        pair("e", "dé", 2.0),
        pair(" \u2028 ", "", -0.5),
    ]


def test_json_keys_can_be_inside_objects() -> None:
    data = b'{"translation": {"en": "e", "de": "d"}}\n'
    assert parsed(JsonLines(lines(data), INNER)) == [pair("e", "d", None)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "expected a JSON object, found ''"),
        (b"{", "expected a JSON object, found '{'"),
        (b"[" * 100_000, r"expected a JSON object, found '\[\[.*…"),
        (b'{"s": ' + b"1" * 5000 + b"}", "expected a JSON object, found .*…"),
        (b"[1]", r"expected an object with the key 'en', found \[1\]"),
        (b'{"de": "d"}', r"expected the key 'en' of 'en', found \['de'\]"),
        (b'{"en": null, "de": ""}', "expected a string at 'en', found None"),
        (b'{"en": 5, "de": ""}', "expected a string at 'en', found 5"),
        (b'{"en": "\\ud800", "de": ""}', "surrogates not allowed"),
        (b'{"en": "", "de": ""}', "expected the key 's'"),
        (b'{"en": "", "de": "", "s": NaN}', "expected a number as score, found nan"),
        (b'{"en": "", "de": "", "s": true}', "expected a number as score, found True"),
        (b'{"en": "", "de": "", "s": 1' + b"0" * 400 + b"}", "expected a number as score"),
    ],
)
def test_invalid_json_is_reported_with_its_line(line: bytes, message: str) -> None:
    content = JsonLines(lines(b'{"en": "", "de": "", "s": 0}\n' + line + b"\n", first=41), NAMED)
    with pytest.raises(CorpusError, match=rf"a\.txt, line 42: .*{message}"):
        parse(Chunk(0, content))


values_of_json = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('a"\\[{,\u00e9')),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.sampled_from('a"\\,[')), inner),
)


@given(values_of_json, st.integers(1, 40))
def test_counted_values_equal_those_of_the_parsed_json(value: object, at_once: int) -> None:
    def separators(value: object) -> int:
        if not isinstance(value, list | dict):
            return 0
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(0, len(value) - 1) + sum(map(separators, inner))

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(json_values, "_COUNTED_AT_ONCE", at_once)
        for ascii_only in (True, False):
            line = json.dumps(value, ensure_ascii=ascii_only)
            assert json_values.count_values(line) == 1 + separators(value)


def test_a_line_with_too_many_json_values_is_refused() -> None:
    """The text of a value may have any number of commas and brackets."""
    text = json.dumps(',[{"' * 700_000)
    data = b'{"text": %b, "x": [%b]}\n'
    columns = PairColumns(source="text", target="text")
    good = JsonLines(lines(data % (text.encode(), b"0")), columns)
    assert len(parsed(good)[0].texts[0]) == 2_800_000
    bad = JsonLines(lines(data % (text.encode(), b",".join([b"[]"] * 1_100_000)), 5), columns)
    message = r"line 5: expected at most 2,000,000 values .* found 2,200,00\d\. Remove all"
    with pytest.raises(CorpusError, match=message):
        parse(Chunk(0, bad))


@pytest.mark.parametrize("line", ['{"translation": "x"}', '{"translation": {"de": "d"}}'])
def test_json_without_the_inner_key_is_refused(line: str) -> None:
    with pytest.raises(CorpusError, match=r"line 1: expected .*the key 'en'"):
        parse(Chunk(0, JsonLines(lines(line.encode()), INNER)))


# WebDataset samples


def test_webdataset_samples_give_pairs_and_scores() -> None:
    content = Samples("a.tar", (CorpusSample("0", (b"e\r\n", b"two\nlines\n"), b"0.5\n"),))
    assert parsed(content) == [pair("e", "two lines", 0.5)]
    assert parsed(Samples("a.tar", (CorpusSample("0", (b"", b"")),))) == [pair("", "", None)]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (CorpusSample("x/7", (b"e\xff", b"d")), "can't decode byte 0xff in position 1"),
        (CorpusSample("x/7", (b"e", b"d"), b"good"), "expected a number as score, found 'good'"),
    ],
)
def test_an_invalid_sample_is_reported(sample: CorpusSample, message: str) -> None:
    with pytest.raises(CorpusError, match=rf"a\.tar, sample 'x/7': .*{message}"):
        parse(Chunk(0, Samples("a.tar", (CorpusSample("0", (b"", b""), b"1"), sample))))


# All formats

no_line_ends = st.text(st.characters(exclude_characters="\n\r\t", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(no_line_ends, no_line_ends), min_size=1))
def test_all_formats_give_the_same_pairs(texts: list[tuple[str, str]]) -> None:
    expected = [Example(texts_of_pair, None) for texts_of_pair in texts]

    def of(rows: list[str]) -> ChunkLines:
        return ChunkLines("a", 1, len(rows), "".join(row + "\n" for row in rows).encode())

    columns = PairColumns(source="en", target="de")
    objects = [json.dumps({"en": source, "de": target}) for source, target in texts]
    samples = [
        CorpusSample(str(i), (source.encode(), target.encode()))
        for i, (source, target) in enumerate(texts)
    ]
    for content in (
        AlignedLines((of([pair[0] for pair in texts]), of([pair[1] for pair in texts]))),
        TsvLines(of(["\t".join(pair) for pair in texts]), TsvColumns((0, 1), None)),
        JsonLines(of(objects), columns),
        Samples("a", tuple(samples)),
    ):
        assert parsed(content) == expected


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\r", ["a"]),
        (b"a\rb\n", ["a b"]),
        (b"a\r\n\r", ["a", ""]),  # cut off within the line end of an empty line
        (b"a\n\r\n", ["a", ""]),
    ],
)
def test_carriage_returns_at_a_line_end_are_removed(data: bytes, lines: list[str]) -> None:
    assert ChunkLines("x", 1, len(lines), data).decode() == lines
