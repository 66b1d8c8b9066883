"""Held-out sentences that are too long are refused by file and line; the limit changes no bytes."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from support.data_settings import settings_of

from data_pipeline.batching.heldout import check_heldout, load_heldout
from data_pipeline.errors import CorpusError, DatasetError
from data_pipeline.preparation import prepare as module
from data_pipeline.preparation.prepare import prepare
from data_pipeline.storage.store import MANIFEST_NAME, open_store
from data_pipeline.tokenizers.tokenizer import load_tokenizers

WHERE = "The held-out set validation of the dataset HERE, line 7 of tgt: "
LONG = "badefi " * 700  # more than 1,024 tokens


@pytest.fixture
def corpora(tmp_path, corpus_folder):
    """Return the validation corpus with a long line, as two files and as one file."""
    sources, targets = (
        (corpus_folder / f"validation{suffix}").read_text().splitlines()
        for suffix in (".src", ".tgt")
    )
    targets[6] = LONG
    (tmp_path / "a").write_text("\n".join(sources))
    (tmp_path / "b").write_text("\n".join(targets))
    lines = (f"{source}\t{target}\n" for source, target in zip(sources, targets, strict=True))
    (tmp_path / "ab.tsv").write_text("".join(lines))
    return {
        "aligned": {"source": str(tmp_path / "a"), "target": str(tmp_path / "b")},
        "tsv": {"files": [str(tmp_path / "ab.tsv")]},
    }


@pytest.mark.parametrize(
    ("setting", "form", "where"),
    [
        ("validation", "aligned", r"/b, line 7 \(data\.validation\)"),
        ("validation", "tsv", r"/ab\.tsv, pair 7, tgt \(data\.validation\)"),
        ("tests", "aligned", r"/b, line 7 \(data\.tests\.long\)"),
    ],
)
def test_prepare_refuses_held_out_sentences_that_are_too_long(
    data_config, tokenizer_config, tmp_path, corpora, monkeypatch, setting, form, where
):
    given = corpora[form] if setting == "validation" else {"long": corpora[form]}
    data = data_config(tmp_path / "d", **{setting: given})
    monkeypatch.setattr(module._Preparation, "_write_groups", None)  # refused before writing
    with pytest.raises(
        CorpusError, match=where + r": .* [\d,]+ tokens, EOS included, but .* 1,024,"
    ):
        prepare(settings_of(data, tokenizer_config), lambda progress: None)
    assert not Path(data.dataset).exists()


def test_too_long_sentences_are_refused_before_reading_if_the_tokenizer_is_given(
    data_config, tokenizer_config, tmp_path, corpora, dataset, manifest, monkeypatch
):
    info = manifest.tokenizers["src"]
    given = tokenizer_config.model_copy(
        update={"model": str(dataset / info.file), "model_sha256": info.sha256}
    )
    data = data_config(tmp_path / "d", validation=corpora["aligned"])
    monkeypatch.setattr(module._Preparation, "_ingest", None)
    with pytest.raises(CorpusError):
        prepare(settings_of(data, given), lambda progress: None)


def test_the_limit_can_be_raised_and_changes_no_bytes(
    data_config, tokenizer_config, tmp_path, corpora, dataset
):
    other = data_config(tmp_path / "same", max_heldout_length=2000)
    prepare(settings_of(other, tokenizer_config), lambda progress: None)
    expected = (dataset / MANIFEST_NAME).read_bytes()
    assert (tmp_path / "same" / MANIFEST_NAME).read_bytes() == expected

    allowed = data_config(tmp_path / "d", validation=corpora["aligned"], max_heldout_length=10**5)
    manifest = prepare(settings_of(allowed, tokenizer_config), lambda progress: None)
    store = open_store(tmp_path / "d")
    heldout = load_heldout(store, manifest, "validation")
    tokenizers = load_tokenizers(store, manifest)
    for limits, refused in (
        ({"max_heldout_length": 10**5}, False),
        ({"max_target_length": 10**5}, False),
        ({}, True),
        ({"max_source_length": 10**5}, True),
    ):
        settings = settings_of(
            data_config(tmp_path / "d", validation=corpora["aligned"], **limits), tokenizer_config
        )
        expected = pytest.raises(DatasetError, match=WHERE) if refused else nullcontext()
        with expected:
            check_heldout(heldout, "validation", settings, tokenizers, "HERE")
