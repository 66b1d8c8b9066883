"""Settings of labels in a recipe; a wrong setting is refused with its remedy."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from data_pipeline.config.label import LabelledDataConfig, TaggedDataConfig

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "labels.md"
TEXTS = {"files": ["a.txt", "b.txt"], "labels": ["x", "y"]}
TAGS = {"files": ["a.conll"]}
BIO = ["O", "B-X", "I-X"]


def labelled(corpus=(), **more):
    corpus = {**TEXTS, **dict(corpus)}
    values = {"dataset": "d", "train": [corpus], "validation": corpus, "labels": ["x", "y"]}
    return LabelledDataConfig.model_validate(values | more)


def tagged(corpus=(), **more):
    corpus = {**TAGS, **dict(corpus)}
    values = {"dataset": "d", "train": [corpus], "validation": corpus, "labels": BIO}
    return TaggedDataConfig.model_validate(values | more)


@pytest.mark.parametrize(
    ("make", "corpus", "more", "message"),
    [
        (
            labelled,
            {"labels": ["x"]},
            {},
            r"labels has 1 .*, files has 2 .* a label for each entry",
        ),
        (
            labelled,
            {"labels": ["x", "z"]},
            {},
            r"'z' is not in data\.labels, which has x, y\. Corr",
        ),
        (
            labelled,
            {"files": ["a.jsonl"]},
            {},
            r"the format is jsonl: .* remove labels for other formats",
        ),
        (labelled, {"files": ["a.jsonl"], "labels": [], "columns": {"text": 0}}, {}, "not numbers"),
        (labelled, {}, {"labels": ["x", "y", "x"]}, r"labels has 'x' twice"),
        (labelled, {}, {"labels": ["x", "y", " z"]}, "without spaces around it"),
        (labelled, {}, {"labels": ["x"]}, "at least 2 items"),
        (labelled, {}, {"labels": ["x", True]}, "does not read true as text: put the label in q"),
        (labelled, {}, {"labels": [0, 1]}, 'such as "0"'),
        (
            *(labelled, {}, {"labels": ["x", "y", "ﬁ"], "cleaning": {"normalise": "NFKC"}}),
            r"normalise=NFKC changes: write it as 'fi'",
        ),
        (tagged, {"files": ["a.txt"]}, {}, r"derived is null .* set derived: case"),
        (tagged, {"derived": "case"}, {}, r"derived is case and the format is conll"),
        (tagged, {"columns": {"text": "w"}}, {}, r"columns\.text is 'w' and the format is conll"),
        (tagged, {"files": ["a.jsonl"], "columns": {"tags": 1}}, {}, r"columns\.tags is 1 and"),
        (tagged, {"files": ["a.tar"]}, {}, r"indicate no single format .* conll"),
        (tagged, {"format": "parquet"}, {}, r"format is 'parquet'.* conll, jsonl, text"),
        (tagged, {"columns": {"score": "s"}}, {}, "columns.score|min_score"),
        (tagged, {}, {"labels": ["O", "B X"]}, "a tag must not contain spaces"),
        (tagged, {}, {"cleaning": {"normalise": "NFC"}}, "can split a word in two"),
        (
            *(tagged, {"files": ["a.txt"], "derived": "case"}, {"labels": ["lower", "title"]}),
            "add upper, mixed",
        ),
    ],
)
def test_invalid_settings_are_refused_with_the_reason(make, corpus, more, message):
    with pytest.raises(ValidationError, match=message):
        make(corpus, **more)


def test_settings_that_are_read_back_from_json_are_equal(tmp_path):
    numbered = tagged({"columns": {"text": 1, "tags": 3}})
    for data in (labelled(), tagged(), numbered):
        assert type(data).model_validate(data.model_dump(mode="json")) == data


@pytest.mark.parametrize(
    ("labels", "there_are"),
    [
        (BIO, True),
        (["O", "I-X"], True),
        (["B-X", "I-X"], False),
        (["O", "B-X", "NN"], False),
        (["O", "B-"], False),
    ],
)
def test_spans_are_recognised_by_tag_names(labels, there_are):
    assert tagged(labels=labels).has_spans == there_are


def test_the_examples_on_the_page_about_labels_are_valid():
    blocks = [
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)
    ]
    texts, words = (block["data"] for block in blocks if "data" in block)
    data = LabelledDataConfig.model_validate(texts)
    assert len(data.train[0].locations) == 18
    assert data.validation.texts_of_files == (("good",), ("bad",))
    assert TaggedDataConfig.model_validate(words).has_spans
