"""`prepare` with documents: whole and verbatim, without leaks or duplicates; extensions."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.data_settings import settings_of
from support.datasets import blocks_of
from support.files.hashes import hashes_in

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.task import rules_by_corpus
from data_pipeline.config.data import DataSettings
from data_pipeline.config.text import TextDataConfig, TextTokenizerConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import DocumentLengths
from data_pipeline.dataset.texts import unpack_texts
from data_pipeline.dataset.verification import problems_of
from data_pipeline.errors import CorpusError, DatasetError
from data_pipeline.preparation import ingest
from data_pipeline.preparation.prepare import prepare
from data_pipeline.storage.store import open_store
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from foundation.errors import ExtensionError
from foundation.extensions import load_extensions

EXTENSIONS = Path(__file__).resolve().parents[2] / "support" / "extension"
LONG = "".join(f"line {number} of a long document\n" for number in range(40_000))  # 1.2 MB


def silent(progress: object) -> None:
    """Ignore the progress."""


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """Return documents: some with line ends, some repeated, one long, one blank."""
    rng = random.Random(5)
    words = ["ba", "de", "fi", "mé", "▁", "  ", "\n", "\n\n", "\t", "x."]
    texts = [f"{n} " + " ".join(rng.choices(words, k=rng.randint(1, 60))) for n in range(300)]
    return [*texts, texts[3], "\n \n", LONG, texts[250], texts[3]]


@pytest.fixture(scope="module")
def make(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str]
) -> Callable[..., DataSettings]:
    """Return a function that makes the settings of a dataset of JSON lines without duplicates."""
    folder = tmp_path_factory.mktemp("corpora")
    lines = [json.dumps({"text": text}) + "\n" for text in documents]
    held_out = [lines[250], json.dumps({"text": "held\r\nout "}) + "\n"]
    (folder / "train.jsonl").write_text("".join(lines))
    (folder / "heldout.jsonl").write_text("".join(held_out))

    def make(dataset: Path, **settings: Any) -> DataSettings:
        defaults = {
            "dataset": str(dataset),
            "train": [{"files": [f"{folder}/train.jsonl"]}],
            "validation": {"files": [f"{folder}/heldout.jsonl"]},
            "pairs_per_block": 7,
            "blocks_per_shard": 2,
            "cleaning": {"drop_duplicates": True},
        }
        data = TextDataConfig.model_validate(defaults | settings)
        tokenizer = TextTokenizerConfig(type="bpe", vocabulary_size=400, byte_fallback=True)
        return settings_of(data, tokenizer, "causal_lm")

    return make


@pytest.fixture(scope="module")
def prepared(make: Callable[..., DataSettings], tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = tmp_path_factory.mktemp("prepared") / "d"
    prepare(make(dataset), silent, processes=1)
    return dataset


def texts_of(dataset: Path) -> list[str]:
    (field,) = Manifest.load(open_store(dataset)).fields
    return [
        text
        for block in blocks_of(dataset)
        for text in unpack_texts("shard", block.texts["text"], field)
    ]


def test_a_dataset_has_each_document_once_and_verbatim_unless_held_out(
    prepared: Path, documents: list[str]
) -> None:
    expected = {text for text in documents if text.strip()} - {documents[250]}
    found = texts_of(prepared)
    assert sorted(found) == sorted(expected)
    assert found != sorted(found, key=documents.index)
    manifest = Manifest.load(open_store(prepared))
    (corpus,) = manifest.corpora
    assert corpus.dropped == {"empty": 1, "held_out": 2, "duplicate": 2}
    assert corpus.read == len(documents)
    (field,) = manifest.fields
    assert (field.name, field.role) == ("text", "document")


def test_the_cleaning_report_names_documents(prepared: Path, documents: list[str]) -> None:
    report = json.loads((prepared / "cleaning.json").read_text())["train"]
    assert report["held_out"]["examples"] == [
        {"document": number, "text": documents[250][:500]} for number in (251, 304)
    ]
    assert [example["document"] for example in report["duplicate"]["examples"]] == [301, 305]


def test_the_tokens_of_each_document_decode_to_its_text(prepared: Path) -> None:
    store = open_store(prepared)
    manifest = Manifest.load(store)
    tokenizer = load_tokenizers(store, manifest)["text"]
    lengths: list[int] = []
    for block in blocks_of(prepared):
        texts = unpack_texts("shard", block.texts["text"], manifest.fields[0])
        field = block.fields["text"]
        ends = field.lengths.cumsum().tolist()
        for text, end, length in zip(texts, ends, field.lengths.tolist(), strict=True):
            ids = field.ids[end - length : end].tolist()
            assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
            assert tokenizer.decode([ids]) == [text]
        lengths += field.lengths.tolist()
    bits = [length.bit_length() for length in lengths]
    counts = tuple(bits.count(n) for n in range(max(bits) + 1))
    assert manifest.lengths["text"] == DocumentLengths(counts=counts, longest=max(lengths))
    assert manifest.longest() == {"text": max(lengths)}
    assert max(lengths) > 100_000
    assert len((prepared / "manifest.json").read_bytes()) < 30_000


def test_held_out_documents_keep_their_line_ends(prepared: Path, documents: list[str]) -> None:
    store = open_store(prepared)
    heldout = load_heldout(store, Manifest.load(store), "validation")
    assert heldout.texts == {"text": [documents[250], "held\nout "]}
    assert heldout.tags == {}


@pytest.mark.long
@pytest.mark.parametrize("processes", [2, 3])
def test_the_number_of_processes_changes_no_byte(
    make: Callable[..., DataSettings],
    prepared: Path,
    tmp_path: Path,
    processes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingest, "EXAMPLES_PER_CHUNK", 11)
    prepare(make(tmp_path / "d"), silent, processes=processes)
    assert hashes_in(tmp_path / "d") == hashes_in(prepared)


def test_a_complete_dataset_is_kept(make: Callable[..., DataSettings], prepared: Path) -> None:
    manifest = Manifest.load(open_store(prepared))
    assert (
        problems_of(str(prepared), manifest, rules_by_corpus(manifest), 1, lambda done, total: None)
        == []
    )
    stages: list[str] = []
    kept = prepare(make(prepared), lambda progress: stages.append(progress.stage))
    assert stages[-1] == "unchanged"
    assert kept.identity == manifest.identity
    with pytest.raises(DatasetError):
        prepare(make(prepared, cleaning={"drop_duplicates": True, "drop_heldout": False}), silent)
    load_extensions(["reversed_bytes"], str(EXTENSIONS))
    with pytest.raises(DatasetError):
        prepare(replace(make(prepared), task="reversed"), silent)


def test_a_different_histogram_is_a_problem(prepared: Path) -> None:
    manifest = Manifest.load(open_store(prepared))
    lengths = manifest.lengths["text"]
    assert isinstance(lengths, DocumentLengths)
    other = lengths.model_copy(update={"longest": lengths.longest + 1})
    changed = manifest.model_copy(update={"lengths": {"text": other}})
    (problem,) = problems_of(
        str(prepared), changed, rules_by_corpus(changed), 1, lambda done, total: None
    )
    assert "the lengths of text" in problem.expected


def test_held_out_documents_stay_in_training_without_drop_heldout(
    make: Callable[..., DataSettings], tmp_path: Path, documents: list[str]
) -> None:
    settings = make(tmp_path / "d", cleaning={"drop_heldout": False})
    manifest = prepare(settings, silent)
    assert manifest.corpora[0].dropped == {"empty": 1}
    assert texts_of(tmp_path / "d").count(documents[250]) == 2


def test_leaks_are_detected_after_normalisation(tmp_path: Path, make: Callable[..., Any]) -> None:
    (tmp_path / "train.txt").write_text("caf\u00e9\nother text\n")
    (tmp_path / "valid.txt").write_text("cafe\u0301\n")
    settings = make(
        tmp_path / "d",
        train=[{"files": [f"{tmp_path}/train.txt"]}],
        validation={"files": [f"{tmp_path}/valid.txt"]},
        cleaning={"normalise": "NFC"},
    )
    tokenizer = TextTokenizerConfig(type="char", vocabulary_size=400)
    manifest = prepare(replace(settings, tokenizer=tokenizer), silent)
    assert manifest.corpora[0].dropped == {"empty": 0, "held_out": 1}
    assert texts_of(tmp_path / "d") == ["other text"]


def test_training_and_validation_parts_of_one_file_share_nothing(
    tmp_path: Path, make: Callable[..., Any]
) -> None:
    lines = [f"line {number}" for number in range(200)]
    (tmp_path / "all.txt").write_text("\n".join(lines))
    files = {"files": [f"{tmp_path}/all.txt"]}
    settings = make(
        tmp_path / "d",
        train=[{**files, "part": [0, 0.9]}],
        validation={**files, "part": [0.9, 1]},
    )
    tokenizer = TextTokenizerConfig(type="char", vocabulary_size=400)
    manifest = prepare(replace(settings, tokenizer=tokenizer), silent)
    heldout = load_heldout(open_store(tmp_path / "d"), manifest, "validation")
    train = texts_of(tmp_path / "d")
    assert manifest.corpora[0].dropped["held_out"] == 0
    assert sorted(train + heldout.texts["text"]) == sorted(lines)
    assert 15 < len(heldout) < 25


def test_documents_outside_the_limits_are_dropped(tmp_path: Path, make: Callable[..., Any]) -> None:
    (tmp_path / "a.txt").write_text("ab\nabc\nabcd\nabcde\n")
    files = {"files": [f"{tmp_path}/a.txt"]}
    rules = {"min_characters": 3, "max_characters": 4, "drop_heldout": False}
    settings = make(tmp_path / "d", train=[files], validation=files, cleaning=rules)
    tokenizer = TextTokenizerConfig(type="char", vocabulary_size=400)
    manifest = prepare(replace(settings, tokenizer=tokenizer), silent)
    assert sorted(texts_of(tmp_path / "d")) == ["abc", "abcd"]
    dropped = {"empty": 0, "too_few_characters": 1, "too_many_characters": 1}
    assert manifest.corpora[0].dropped == dropped
    none = make(tmp_path / "e", train=[files], validation=files, cleaning={"min_characters": 9})
    with pytest.raises(
        CorpusError, match=r"No document of the corpus train is left: read 4.*data\.cleaning"
    ):
        prepare(replace(none, tokenizer=tokenizer), silent)


def test_a_tokenizer_is_trained_on_the_requested_amount_of_text(
    tmp_path: Path, make: Callable[..., Any]
) -> None:
    """With more text, there would be a piece for each document's character."""
    (tmp_path / "a.txt").write_text("".join(chr(0x4E00 + n) * 100 + "\n" for n in range(500)))
    files = {"files": [f"{tmp_path}/a.txt"]}
    settings = make(
        tmp_path / "d", train=[files], validation=files, cleaning={"drop_heldout": False}
    )
    sizes = {"training_megabytes": 0.03, "training_pairs": 500_000}, {"training_pairs": 100}
    for number, size in enumerate(sizes):
        tokenizer = TextTokenizerConfig(type="char", vocabulary_size=600, **size)
        data = settings.data.model_copy(update={"dataset": str(tmp_path / str(number))})
        manifest = prepare(replace(settings, data=data, tokenizer=tokenizer), silent)
        assert manifest.tokenizers["text"].vocabulary_size == 4 + 100


# Extensions


@pytest.mark.parametrize("processes", [1, 2])
def test_a_dataset_can_use_the_task_reader_and_tokenizer_of_an_extension(
    tmp_path: Path, make: Callable[..., Any], processes: int
) -> None:
    extensions = load_extensions(["reversed_bytes"], str(EXTENSIONS))
    (tmp_path / "a.semi").write_text("one;two\nlines;three é")
    (tmp_path / "b.semi").write_text("held out")
    settings = make(
        tmp_path / "d",
        train=[{"files": [f"{tmp_path}/a.semi"], "format": "semicolons"}],
        validation={"files": [f"{tmp_path}/b.semi"], "format": "semicolons"},
    )
    tokenizer = TextTokenizerConfig(type="bytes", vocabulary_size=260)
    settings = replace(settings, tokenizer=tokenizer, task="reversed", extensions=extensions)
    manifest = prepare(settings, silent, processes=processes)
    assert manifest.tokenizers["text"].kind == "bytes"
    store = open_store(tmp_path / "d")
    loaded = load_tokenizers(store, manifest)["text"]
    assert loaded.vocabulary_size == 260
    (block,) = blocks_of(tmp_path / "d")
    ends = block.fields["text"].lengths.cumsum().tolist()
    ids = block.fields["text"].ids.tolist()
    found = [loaded.decode([ids[a:b]])[0] for a, b in zip([0, *ends], ends, strict=False)]
    assert sorted(found) == sorted(["eno", "senil\nowt", "é eerht"])


def test_an_unknown_task_is_reported(tmp_path: Path, make: Callable[..., Any]) -> None:
    with pytest.raises(ExtensionError, match=r"task is 'none', but there is no such task"):
        prepare(replace(make(tmp_path / "d"), task="none"), silent)
