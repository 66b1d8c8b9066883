"""Stored hypotheses are reused only if nothing that they depend on has changed."""

import hashlib
import json
from pathlib import Path

import pytest
from support.recipes import tiny_recipe

from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.task import HeldOut
from data_pipeline.dataset.manifest import open_dataset
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.format import HEADER, read_header
from transloom.inference.hypotheses import file_name, find_hypotheses, make_hypotheses, origin_of
from transloom.inference.translator import Translator

FEW = 3


@pytest.fixture(scope="module")
def few(phrasebook):
    """Return the first sentences of the phrase book's test set."""
    store, manifest = open_dataset(tiny_recipe(phrasebook).data)
    whole = load_heldout(store, manifest, "phrasebook")
    return HeldOut({field: texts[:FEW] for field, texts in whole.texts.items()}, whole.tags)


@pytest.fixture(scope="module")
def made(untrained_run, few, tmp_path_factory):
    """Return the translator, and the hypotheses that it has stored in a separate folder."""
    translator = Translator.load(untrained_run.path)
    folder = tmp_path_factory.mktemp("translations")
    reports = []
    found = make_hypotheses(translator, "few", few, folder, lambda *r: reports.append(r), 1)
    assert reports[0] == (0, FEW)
    assert reports[-1] == (FEW, FEW)
    return translator, found


def test_saved_hypotheses_are_found_again(made, few):
    translator, hypotheses = made
    origin = origin_of(translator.checkpoint, "few", few, translator.decoding, "fp32")
    found = find_hypotheses(hypotheses.file.parent, origin)
    assert not hypotheses.reused
    assert found is not None
    assert found.reused
    assert found.texts == hypotheses.texts
    assert hypotheses.file.name == "few-00000002-beam4-alpha0.6.txt"


def test_hypotheses_of_another_engine_are_not_reused(made, few):
    translator, hypotheses = made
    theirs = origin_of(
        translator.checkpoint, "few", few, translator.decoding, "fp32", "ctranslate2-int8"
    )
    assert find_hypotheses(hypotheses.file.parent, theirs) is None
    assert file_name(theirs) == "few-00000002-beam4-alpha0.6-ctranslate2-int8"


def changed_checkpoint(checkpoint, folder):
    """Return a checkpoint of the same step with a different data digest."""
    path = folder / checkpoint.path.name
    path.mkdir()
    header = read_header(checkpoint.path).model_copy(update={"data_digest": "1" * 64})
    (path / HEADER).write_text(header.to_json())
    return Checkpoint(path)


@pytest.mark.parametrize(
    "change", ["weights", "sources", "tag", "search", "precision", "file", "card", "no card"]
)
def test_hypotheses_are_not_reused_if_their_origin_or_file_has_changed(made, few, tmp_path, change):
    translator, hypotheses = made
    folder = tmp_path / "translations"
    folder.mkdir()
    for file in hypotheses.file.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    file = folder / hypotheses.file.name
    checkpoint, decoding = translator.checkpoint, translator.decoding
    precision, heldout = "fp32", few
    if change == "weights":
        checkpoint = changed_checkpoint(checkpoint, tmp_path)
    elif change == "sources":
        texts = few.texts | {"src": [*few.texts["src"][:-1], "autre chose"]}
        heldout = HeldOut(texts, few.tags)
    elif change == "tag":
        heldout = HeldOut(few.texts, {"src": "<2de>"})
    elif change == "search":
        decoding = decoding.model_copy(update={"max_extra_length": 7})  # not in the file name
    elif change == "precision":
        precision = "bf16"
    elif change == "file":
        file.write_text(file.read_text()[:-2] + "!\n")
    elif change == "card":
        file.with_suffix(".json").write_text('{"version": 2}')
    else:
        file.with_suffix(".json").unlink()
    origin = origin_of(checkpoint, "few", heldout, decoding, precision)
    assert find_hypotheses(folder, origin) is None


def test_no_hypotheses_are_found_in_a_missing_folder(made, few):
    translator, _ = made
    origin = origin_of(translator.checkpoint, "few", few, translator.decoding, "fp32")
    assert find_hypotheses(Path("/nowhere"), origin) is None


def test_hypotheses_with_a_wrong_number_of_sentences_are_not_reused(made, few, tmp_path):
    translator, hypotheses = made
    origin = origin_of(translator.checkpoint, "few", few, translator.decoding, "fp32")
    for sentences in (FEW - 1, FEW, FEW + 1):
        (tmp_path / hypotheses.file.name).write_bytes(hypotheses.file.read_bytes())
        card = json.loads(hypotheses.file.with_suffix(".json").read_text())
        card["sentences"] = sentences
        (tmp_path / hypotheses.file.name).with_suffix(".json").write_text(json.dumps(card))
        assert (find_hypotheses(tmp_path, origin) is not None) == (sentences == FEW)


def test_the_card_of_hypotheses_contains_their_origin_and_hash(made, few):
    translator, hypotheses = made
    card = json.loads(hypotheses.file.with_suffix(".json").read_text())
    checkpoint = translator.checkpoint
    sources = "".join(f"{text}\n" for text in few.texts["src"]).encode()
    assert card["origin"] == {
        "test_set": "few",
        "checkpoint": "step-00000002",
        "checkpoint_sha256": hashlib.sha256((checkpoint.path / HEADER).read_bytes()).hexdigest(),
        "sources_sha256": hashlib.sha256(sources).hexdigest(),
        "tag": None,
        "decoding": translator.decoding.model_dump(mode="json"),
        "precision": "fp32",
        "engine": None,
    }
    assert card["sentences"] == FEW
    assert card["sha256"] == hashlib.sha256(hypotheses.file.read_bytes()).hexdigest()
