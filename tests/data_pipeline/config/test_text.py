"""Settings of documents in a recipe, and the examples on the page about data."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from data_pipeline.config.pair import PairCorpusConfig, PairDataConfig, TranslationDataConfig
from data_pipeline.config.text import (
    TextCleaningConfig,
    TextCorpusConfig,
    TextDataConfig,
    TextTokenizerConfig,
)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "data.md"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"files": []}, "at least 1 item"),
        ({"files": ["a.doc"]}, r"indicate no single format \(a\.doc unknown\): set format"),
        ({"files": ["a.txt", "b.jsonl"]}, r"indicate no single format"),
        ({"files": ["a.txt"], "format": "tsv"}, "Choose one of text, jsonl, webdat"),
        ({"files": ["a.txt"], "part": [0.9, 0.1]}, r"part is 0\.9, 0\.1: the first share"),
        ({"files": ["a.txt"], "part": [0.5, 0.5]}, "must be smaller than the second"),
        ({"files": ["a.txt"], "part": [0, 1.1]}, "less than or equal to 1"),
        (
            {"files": ["a.tar"], "part": [0, 0.5]},
            "format is webdataset: only text and jsonl can be cut",
        ),
        ({"files": ["a.parquet"], "part": [0, 0.5]}, "only text and jsonl can be cut"),
        ({"files": ["a.jsonl"], "min_score": 1}, "set both to drop documents by their score"),
        ({"files": ["https://x.org/a.txt"]}, "remote and its sha256 is not set"),
    ],
)
def test_invalid_text_corpora_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TextCorpusConfig.model_validate(settings)


def test_the_format_of_documents_follows_from_the_file_name() -> None:
    names = {"a.txt.gz": "text", "b.jsonl": "jsonl", "c.tar": "webdataset", "d.parquet": "parquet"}
    found = {name: TextCorpusConfig(files=(name,)).files_format for name in names}
    assert found == names
    assert (
        PairCorpusConfig(
            files=("a.parquet",), format="parquet", columns={"source": "en", "target": "de"}
        ).files_format
        == "parquet"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "words"}, r"tokenizer\.type is 'words', .* Choose one of bpe, unigram, char"),
        ({"sampling": {"alpha": 0.1}}, "documents do not support subword sampling"),
        ({"joint": False}, "documents have only one tokenizer"),
    ],
)
def test_invalid_text_tokenizers_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TextTokenizerConfig.model_validate({"vocabulary_size": 100, **settings})


def test_by_default_documents_are_verbatim_and_leaks_are_dropped() -> None:
    assert TextTokenizerConfig(vocabulary_size=100).verbatim
    assert TextCleaningConfig().drops_heldout


def test_the_examples_on_the_page_about_data_are_valid() -> None:
    columns, pairs, context, documents = map(
        yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    )
    languages = {"source_language": "en", "target_language": "de", "dataset": "datasets/all"}
    one_file = PairDataConfig.model_validate(pairs | languages | columns).train
    assert [c.columns.source for c in one_file] == [0, "translation.fr"]
    assert [c.tag for c in PairDataConfig.model_validate(pairs | languages).train] == [
        "<2de>",
        "<2fr>",
    ]
    with_context = TranslationDataConfig.model_validate(pairs | languages | context["data"])
    assert with_context.sentences_before == 2
    data = TextDataConfig.model_validate(documents)
    assert data.corpus_names == ("books", "wiki")
    assert len(data.train[0].locations) == 18
    assert data.train[1].share[1] == data.validation.share[0]
