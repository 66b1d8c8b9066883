"""Context: the sentences that precede a sentence, in a list and in a prepared dataset."""

import hashlib
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.data_settings import settings_of

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import SOURCE, TARGET, PairDataConfig, TranslationDataConfig
from data_pipeline.corpora.context import SEPARATOR, in_context, without_context
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.dataset.preparation_settings import preparation_settings
from data_pipeline.dataset.shards import unpack_shard
from data_pipeline.errors import TokenizerError
from data_pipeline.preparation import ingest
from data_pipeline.preparation.prepare import prepare
from data_pipeline.tokenizers.tokenizer import load_tokenizers


@given(st.lists(st.sampled_from(["a b", "c.", "", "  "]), max_size=12), st.integers(0, 4))
def test_context_is_the_preceding_sentences_up_to_an_empty_line(lines, count):
    results = list(in_context(lines, count))
    assert len(results) == len(lines)
    for number, found in enumerate(results):
        before = lines[max(0, number - count) : number]
        for place in range(len(before)):
            if not before[-1 - place].strip():
                before = before[len(before) - place :]
                break
        sentence = lines[number]
        expected = [*before, sentence] if sentence.strip() else [sentence]
        assert found == f" {SEPARATOR} ".join(expected)
        alone = without_context(found)
        assert alone == (f"{SEPARATOR} {sentence}" if len(expected) > 1 else sentence)


# 40 documents of five sentences; long sentences are dropped, but still serve as context.
DOCUMENTS = [
    [f"Café {document} line {line}" + " so" * 40 * (line == document % 9) for line in range(5)]
    for document in range(40)
]


def written(folder, name, documents):
    for side, lines in (
        ("src", [line for document in documents for line in (*document, "")]),
        ("tgt", [line[::-1] for document in documents for line in (*document, "")]),
    ):
        text = "".join(f"{line}\n" for line in lines)
        (folder / f"{name}.{side}").write_text(text, encoding="utf-8")
    return {"source": str(folder / f"{name}.src"), "target": str(folder / f"{name}.tgt")}


@pytest.fixture
def data(tmp_path):
    """Return a function that makes settings with a given number of context sentences."""

    def make(sentences, **other):
        values = {
            "source_language": "en",
            "target_language": "ne",
            "dataset": str(tmp_path / f"with-{sentences}"),
            "train": [written(tmp_path, "train", DOCUMENTS)],
            "validation": written(tmp_path, "validation", DOCUMENTS[:2]),
            "cleaning": {"max_source_characters": 60, "normalise": "NFC"},
            "context_sentences": sentences,
        }
        return TranslationDataConfig.model_validate(values | other)

    return make


TOKENIZER = TokenizerConfig(type="bpe", vocabulary_size=80)


def test_sources_in_context_do_not_depend_on_the_chunks(data, monkeypatch):
    pairs, manifests = [], []
    for chunk in (20_000, 7):
        monkeypatch.setattr(ingest, "EXAMPLES_PER_CHUNK", chunk)
        settings = settings_of(data(2), TOKENIZER)
        prepare(settings, lambda progress: None, overwrite=True)
        store, manifest = open_dataset(settings.data)
        (shard,) = manifest.shards
        (block,) = unpack_shard(store.read(shard.name, shard.sha256, shard.bytes), shard)
        pairs.append(list(zip(*(block.sentences(f) for f in (SOURCE, TARGET)), strict=True)))
        manifests.append(manifest.identity)
    assert pairs[0] == pairs[1]
    assert manifests[0] == manifests[1]
    expected = []
    for document in DOCUMENTS:
        normal = [unicodedata.normalize("NFC", line) for line in document]
        for number, line in enumerate(normal):
            joined = f" {SEPARATOR} ".join(normal[max(0, number - 2) : number + 1])
            if len(line) <= 60:
                expected.append((joined, unicodedata.normalize("NFC", document[number][::-1])))
    assert sorted(pairs[0]) == sorted(expected)
    assert 100 < len(expected) < 5 * len(DOCUMENTS)
    heldout = load_heldout(store, manifest, "validation")
    assert heldout.texts[SOURCE][2].count(SEPARATOR) == 2
    assert heldout.texts[SOURCE][6] == DOCUMENTS[1][0]
    assert heldout.texts[TARGET][2] == DOCUMENTS[0][2][::-1]
    tokenizer = load_tokenizers(store, manifest)[SOURCE]
    ids = tokenizer.encode([expected[2][0]])[0].tolist()
    assert [tokenizer.piece(n) for n in ids].count(f"▁{SEPARATOR}") == 2


def test_0_context_sentences_prepare_the_same_dataset_as_without_the_setting(data):
    with_none = data(0)
    values = with_none.model_dump(exclude={"context_sentences"})
    plain = PairDataConfig.model_validate(values)
    assert preparation_settings(settings_of(with_none, TOKENIZER)) == preparation_settings(
        settings_of(plain, TOKENIZER)
    )
    assert "context_sentences" in preparation_settings(settings_of(data(1), TOKENIZER))["data"]


def test_context_requires_a_tokenizer_with_the_separator_and_ordered_files(data, tmp_path):
    settings = settings_of(data(0), TOKENIZER)
    prepare(settings, lambda progress: None)
    model = tmp_path / "with-0" / "tokenizer.model"
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    given_model = TOKENIZER.model_copy(update={"model": str(model), "model_sha256": sha256})
    with pytest.raises(TokenizerError, match=f"no piece for {SEPARATOR}, which data.context_sent"):
        prepare(settings_of(data(1), given_model), lambda progress: None)
    with pytest.raises(ValidationError, match=r"_sentences is 1, but pairs\.tsv is not a pair"):
        data(1, train=[{"files": ["pairs.tsv"]}])
