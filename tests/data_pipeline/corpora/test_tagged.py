"""Words with tags, and texts with labels, in every format; errors name the line."""

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from data_pipeline.config.label import LabelledCorpusConfig, TaggedCorpusConfig, TaggedDataConfig
from data_pipeline.corpora.corpus import CorpusReader
from data_pipeline.corpora.formats import parse
from data_pipeline.corpora.tagged import case_of
from data_pipeline.errors import CorpusError


@pytest.fixture
def read(tmp_path):
    """Return a function that writes a corpus of one file and returns its texts."""

    def read_file(name, content, at_once=2, kind=TaggedCorpusConfig, **settings):
        path = tmp_path / name
        path.write_bytes(content.encode())
        corpus = kind(files=(str(path),), **settings)
        reader = CorpusReader(corpus, mirror=None, cache=tmp_path)
        chunks = list(reader.chunks(at_once))
        found = [example.texts for chunk in chunks for example in parse(chunk)]
        assert [chunk.content.count for chunk in chunks] == [len(parse(chunk)) for chunk in chunks]
        return found

    return read_file


CONLL = (
    "\nEU\tNNP\tB-ORG\nrejects\tVBZ\tO\n\n \nPeter\tNNP\tB-PER\r\nBlackburn\tNNP\tI-PER\n\nOK UH O"
)


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_conll_gives_words_and_tags_by_sentence(read, at_once):
    assert read("a.conll", CONLL, at_once) == [
        ("EU rejects", "B-ORG O"),
        ("Peter Blackburn", "B-PER I-PER"),
        ("OK", "O"),
    ]
    parts = read("a.conll", CONLL, at_once, columns={"text": 0, "tags": 1})
    assert [tags for _, tags in parts] == ["NNP VBZ", "NNP NNP", "UH"]


def test_parts_of_a_file_have_each_sentence_once(read):
    shares = [[0.0, 0.3], [0.3, 0.7], [0.7, 1.0]]
    found = [pair for share in shares for pair in read("a.conll", CONLL, part=share)]
    assert found == read("a.conll", CONLL)


def test_json_lines_give_lists_of_words_and_tags(read):
    lines = '{"words": ["a", "b"], "tags": ["X", "Y"]}\n{"tags": ["Z"], "words": ["ü"]}\n'
    assert read("a.jsonl", lines) == [("a b", "X Y"), ("ü", "Z")]
    inner = '{"x": {"tokens": ["a"]}, "ner": ["X"]}'
    columns = {"text": "x.tokens", "tags": "ner"}
    assert read("a.jsonl", inner, columns=columns) == [("a", "X")]


def test_words_of_plain_text_are_tagged_with_their_case(read):
    text = "Ein Mann  im\tTV-Studio,\n\nMcDonald's II A ß\n"
    assert read("a.txt", text, derived="case") == [
        ("ein mann im tv-studio,", "title title lower mixed"),
        ("", ""),
        ("mcdonald's ii a ß", "mixed upper title lower"),
    ]
    whole = read("a.txt", text, derived="case", documents="file")
    assert [len(words.split(" ")) for words, _ in whole] == [8]
    assert whole[0][1].split(" ")[-1] == "lower"
    assert [case_of(word) for word in ("§5", "“Ja", "É", "ÉTÉ")] == [
        *("lower", "title", "title", "upper"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.conll", "a X\n\nb\n", r"line 3: expected at least 2 columns .* found 1 in 'b'"),
        (
            "a.conll",
            "a\tX\nb\t \tc d\n",
            r"line 2: expected a tag without spaces, found 'c d",
        ),
        ("a.jsonl", '{"words": ["a"], "tags": ["X"]}\n{"words": []}\n', r"line 2: .* 'tags'"),
        ("a.jsonl", '{"words": ["a", "b"], "tags": ["X"]}', r"line 1: .* 2 words and 1 tag"),
        (
            "a.jsonl",
            '{"words": "a", "tags": "X"}',
            r"line 1: expected a list of strings at 'words'",
        ),
        ("a.jsonl", '{"words": ["a b"], "tags": ["X"]}', r"line 1: .* without spaces"),
        ("a.jsonl", '{"words": [1], "tags": ["X"]}', r"line 1: expected a list of strings"),
        ("a.jsonl", "a X", r"line 1: expected a JSON object"),
    ],
)
def test_an_invalid_line_is_reported_with_its_number(read, name, content, message):
    with pytest.raises(CorpusError, match=message):
        read(name, content)


def test_an_unknown_tag_is_reported_with_its_line(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text(CONLL)
    corpus = {"files": [str(path)]}
    data = TaggedDataConfig.model_validate(
        {"dataset": "d", "train": [corpus], "validation": corpus, "labels": ["O", "B-ORG", "B-PER"]}
    )
    reader = CorpusReader(data.train[0], mirror=None, cache=tmp_path)
    with pytest.raises(
        CorpusError, match=r"line 6 and following lines: the tag 'I-PER' .*O, B-ORG, B-P"
    ):
        [parse(chunk, data.problem_of) for chunk in reader.chunks(10)]
    assert data.problem_of(("", "")) is None
    assert "2 words and 1 tag" in data.problem_of(("a b", "O"))


def test_labels_are_read_from_a_field_of_each_text_or_from_the_recipe(read):
    lines = '{"text": "a\\nb", "label": "x"}\n{"text": "c", "label": "y"}\n'
    assert read("a.jsonl", lines, kind=LabelledCorpusConfig) == [("a\nb", "x"), ("c", "y")]
    numbers = {"text": 1, "label": 0}
    tsv = read("a.tsv", "x\ta b\ny\tc\n", kind=LabelledCorpusConfig, columns=numbers)
    assert tsv == [("a b", "x"), ("c", "y")]
    assert read("a.tsv", "label\ttext\nx\ta\n", kind=LabelledCorpusConfig) == [("a", "x")]
    for documents, expected in (("line", ["a", "b"]), ("file", ["a\nb\n"])):
        found = read(
            "a.txt", "a\nb\n", kind=LabelledCorpusConfig, labels=["x"], documents=documents
        )
        assert found == [(text, "x") for text in expected]
    digits = '{"text": "a", "label": 1}\n{"text": "b", "label": "0"}'
    assert read("a.jsonl", digits, kind=LabelledCorpusConfig) == [("a", "1"), ("b", "0")]
    for wrong in ('{"text": 1, "label": "x"}', '{"text": "a", "label": true}'):
        with pytest.raises(CorpusError, match="line 1: expected a string at"):
            read("a.jsonl", wrong, kind=LabelledCorpusConfig)
    with pytest.raises(CorpusError):
        read("a.jsonl", lines[:30] + '\n{"text": "a"}', kind=LabelledCorpusConfig)


def test_a_parquet_column_of_numbers_can_be_the_labels(tmp_path):
    table = pa.table({"text": ["a", "b"], "label": [1, 0], "wrong": [True, False]})
    write_table(table, tmp_path / "a.parquet")
    found = []
    for columns in ({}, {"label": "wrong"}):
        corpus = LabelledCorpusConfig(files=[str(tmp_path / "a.parquet")], columns=columns)
        reader = CorpusReader(corpus, mirror=None, cache=tmp_path)
        if columns:
            with pytest.raises(CorpusError, match="row 1: expected a string in the column 'wrong'"):
                list(reader.chunks(10))
        else:
            (chunk,) = reader.chunks(10)
            found = parse(chunk)
            assert chunk.content.place(1) == f"{tmp_path / 'a.parquet'}, example 2"
    assert [example.texts for example in found] == [("a", "1"), ("b", "0")]


def test_files_expanded_from_braces_have_the_label_of_their_entry(tmp_path):
    for name in ("pos-0", "pos-1", "neg-0"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    files = [f"{tmp_path}/pos-{{0..1}}.txt", f"{tmp_path}/neg-{{0..0}}.txt"]
    for documents in ("line", "file"):
        corpus = LabelledCorpusConfig(files=files, labels=["good", "bad"], documents=documents)
        chunks = CorpusReader(corpus, mirror=None, cache=tmp_path).chunks(10)
        examples = [example.texts for chunk in chunks for example in parse(chunk)]
        assert [(text.strip(), label) for text, label in examples] == [
            ("pos-0", "good"),
            ("pos-1", "good"),
            ("neg-0", "bad"),
        ]
