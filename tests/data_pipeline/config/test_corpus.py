"""Settings of one corpus in a recipe."""

import pytest
from pydantic import ValidationError

from data_pipeline.config.pair import PairCleaningConfig, PairCorpusConfig

SHA256 = "0" * 64
NAMED = {"source": "fr", "target": "en"}


def corpus(**settings: object) -> PairCorpusConfig:
    return PairCorpusConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give either source and target, or files"),
        ({"source": "a"}, "give either source and target, or files"),
        ({"source": "a", "target": "b", "files": ["c.tsv"]}, "give either"),
        ({"source": "", "target": ""}, "give either"),
        ({"source": "a", "target": "b", "source_sha256": "abc"}, "pattern"),
        ({"source": "a", "target": "b", "wieght": 1}, "Extra inputs"),
        ({"source": "a", "target": "b", "weight": 0}, "greater than 0"),
        ({"source": "a", "target": "b", "weight": float("inf")}, "finite"),
        ({"source": "a", "target": "b", "tag": "2de"}, "pattern"),
        ({"source": "a", "target": "b", "tag": "<2 de>"}, "pattern"),
        ({"source": "a", "target": "b", "name": "News 1"}, "pattern"),
    ],
)
def test_invalid_corpora_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        corpus(**settings)


@pytest.mark.parametrize(
    "setting",
    [
        {"files_sha256": [SHA256]},
        {"format": "tsv"},
        {"columns": {"source": 1, "target": 0}},
        {"min_score": 0.5},
    ],
)
def test_settings_of_files_require_files(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(setting))} can be set only with files"):
        corpus(source="a", target="b", **setting)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source_sha256": SHA256}, "set files_sha256 instead"),
        ({"files_sha256": [SHA256]}, r"files_sha256 has 1 values for 3 files"),
        ({"columns": {"score": 2}}, "min_score is null and columns.score is 2"),
        ({"min_score": 0.5}, r"min_score is 0.5 and columns.score is null"),
        ({"min_score": float("nan"), "columns": {"score": 2}}, "finite"),
        ({"columns": {"source": -1}}, "greater than or equal to 0"),
        ({"format": "jsonl"}, "jsonl has names, not numbers"),
        ({"format": "webdataset", "columns": {"source": "en"}}, "target 1.*not numbers"),
        (
            {"format": "jsonl", "columns": NAMED | {"score": 2}, "min_score": 1},
            "score 2, .*numbers",
        ),
        ({"files": ["a.tsv", "b.txt"]}, "indicate no single format .*b.txt unknown"),
        ({"files": ["a.tsv", "b.jsonl.gz"]}, "indicate no single format"),
    ],
)
def test_invalid_settings_of_files_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        corpus(**{"files": ["part-{1..3}.tsv"]} | settings)


@pytest.mark.parametrize("scheme", ["http", "https", "s3", "gs"])
def test_remote_corpora_require_hashes(scheme: str) -> None:
    url = f"{scheme}://x.org/a"
    with pytest.raises(ValidationError, match="a is remote and its sha256 is not set"):
        corpus(source=url, target="b")
    with pytest.raises(ValidationError, match="a is remote and its sha256 is not set"):
        corpus(source="b", target=url, source_sha256=SHA256)
    with pytest.raises(ValidationError, match=r"a-0\.tsv is remote"):
        corpus(files=[url + "-{0..1}.tsv"], files_sha256=[])
    corpus(source=url, target="b", source_sha256=SHA256)
    corpus(files=[url + "-{0..1}.tsv"], files_sha256=[SHA256, SHA256])


def test_local_and_builtin_corpora_require_no_hashes() -> None:
    local = corpus(source="file:///a", target="builtin:phrasebook/train.en")
    assert local.locations == ("file:///a", "builtin:phrasebook/train.en")
    assert local.sha256s == (None, None)
    assert local.files_format is None


def test_braces_in_a_name_expand_to_several_files() -> None:
    several = corpus(files=["x/part-{08..10}.tsv", "y.tsv.zst"])
    names = ("x/part-08.tsv", "x/part-09.tsv", "x/part-10.tsv", "y.tsv.zst")
    assert several.locations == names
    assert several.sha256s == (None,) * 4
    assert several.files_format == "tsv"


@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        ("a.tsv", "tsv"),
        ("a.jsonl.xz", "jsonl"),
        ("dir.v2/a.tar.gz", "webdataset"),
        ("file:///x/a.tar?versionId=3", "webdataset"),
    ],
)
def test_the_format_follows_from_the_file_name(name: str, file_format: str) -> None:
    assert corpus(files=[name], columns=NAMED).files_format == file_format


def test_a_given_format_takes_precedence_over_the_name() -> None:
    assert corpus(files=["a.tsv"], format="jsonl", columns=NAMED).files_format == "jsonl"


@pytest.mark.parametrize(
    "rules",
    [
        {"normalise": "NFD"},
        {"max_source_characters": 0},
        {"max_length_ratio": 0.9},
        {"max_length_ratio": float("inf")},
        {"max_words": 3},
    ],
)
def test_invalid_cleaning_rules_are_refused(rules: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PairCleaningConfig.model_validate(rules)


@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        ("A.TSV", "tsv"),
        ("a.Jsonl.GZ", "jsonl"),
        ("a.tsv.bz2", "tsv"),
        ("A.TAR.XZ", "webdataset"),
        ("a.TGZ", "webdataset"),
        ("part #1?.tsv", "tsv"),
        ("file:///x/a.tsv.ZST", "tsv"),
    ],
)
def test_the_format_of_a_file_ignores_case_and_compression(name: str, file_format: str) -> None:
    assert corpus(files=[name], columns=NAMED).files_format == file_format
