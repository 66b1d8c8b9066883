"""A run's folder: requests to a run, its identity, and its small files."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from support.recipes import tiny_recipe
from support.records.run_folders import made_run, with_checkpoint

from data_pipeline.dataset import manifest as manifest_module
from data_pipeline.dataset.manifest import Manifest, open_dataset
from data_pipeline.storage.store import MANIFEST_NAME, open_store
from run_store.checkpoints.folder_names import folder_name
from run_store.checkpoints.format import HEADER, Parent
from run_store.errors import RunMismatchError
from run_store.folder import RunFolder
from run_store.record.log import DETAIL, SHOWN_CHARACTERS, TAIL_BYTES, last_entries, log_entry
from trainer.recipe import identity_of
from trainer.start.opening import check_folder, open_folder


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


@pytest.fixture
def opened(phrasebook, tmp_path):
    """Open a new run; return its folder, recipe, dataset store and manifest."""
    recipe, run = tiny_recipe(phrasebook), RunFolder(tmp_path / "name of run")
    store, manifest = open_dataset(recipe.data)
    open_folder(run, recipe, store, manifest)
    return run, recipe, store, manifest


def test_a_run_keeps_the_columns_of_its_datasets_shards(phrasebook, tmp_path, monkeypatch):
    dataset = Path(shutil.copytree(phrasebook, tmp_path / "dataset"))
    monkeypatch.setattr(manifest_module, "MIN_SHARDS_FOR_COLUMNS", 1)
    Manifest.load(open_store(dataset)).save_new(dataset)
    recipe, run = tiny_recipe(dataset), RunFolder(tmp_path / "run")
    store, manifest = open_dataset(recipe.data)
    open_folder(run, recipe, store, manifest)
    kept = Manifest.load(open_store(run.dataset))
    plain = open_dataset(tiny_recipe(phrasebook).data)[1]
    assert kept.identity == manifest.identity == plain.identity
    assert kept.columns_files() == manifest.columns_files() != []


@pytest.mark.parametrize(
    ("asked", "taken"),
    [("3\n", 3), (" 12 ", 12), ("0", None), ("-1", None), ("1e3", None), ("", None), ("٣x", None)],
)
def test_a_request_for_data_workers_is_taken_once_and_ignored_if_invalid(run, asked, taken):
    assert run.take_data_workers_request() is None
    run.request_data_workers(1)
    run.data_workers_request.write_text(asked)
    assert run.take_data_workers_request() == taken
    assert run.take_data_workers_request() is None
    assert list(run.data_workers_request.parent.iterdir()) == []


def test_a_request_for_data_workers_has_at_most_four_digits(run):
    run.request_data_workers(99_99)
    assert run.take_data_workers_request() == 9999
    run.request_data_workers(999_999)
    assert run.take_data_workers_request() is None


def test_a_stop_request_is_taken_once_and_remembered(run):
    assert run.stop_requests() == set()
    assert run.stop_requested_at() is None
    run.ask_to_stop()
    os.utime(run.stop_request, ns=(0, 7))
    assert (run.stop_requested_at(), run.stop_requests()) == (7, {7})
    assert run.take_stop_request()
    assert (run.stop_requested_at(), run.stop_requests()) == (None, {7})
    assert not run.take_stop_request()
    run.ask_to_stop()
    os.utime(run.stop_request, ns=(0, 9))
    assert run.stop_requests() == {7, 9}
    assert not run.take_stop_request(former=9)  # requested before this start
    assert not run.stop_request.exists()
    run.ask_to_stop()
    assert run.take_stop_request(former=9)


def test_a_new_run_contains_all_files_that_translation_needs(opened):
    run, recipe, store, manifest = opened
    card = run.card()
    assert (card.name, card.dataset_identity) == ("name of run", manifest.identity)
    assert (card.identity, card.parent) == (identity_of(recipe), None)
    assert (run.dataset / MANIFEST_NAME).read_bytes() == store.read_manifest()
    assert manifest.tokenizers
    for info in manifest.tokenizers.values():
        assert (run.dataset / info.file).read_bytes() == store.read(info.file, info.sha256)
    written = yaml.safe_load(run.recipe.read_text())
    assert written == recipe.model_dump(mode="json")
    assert list(written) == list(recipe.model_dump(mode="json"))  # the fields keep their order
    assert run.stop_request.parent.is_dir()


def test_a_run_that_has_trained_keeps_its_card_and_each_start_writes_the_recipe(opened, phrasebook):
    run, recipe, store, manifest = opened
    first = run.card()
    parent = Parent(run_id="p", step=3, sha256="0")
    open_folder(run, recipe, store, manifest, parent)
    second = run.card()
    assert (second.id != first.id, second.parent) == (True, parent)  # a new card: not yet trained
    run.metrics.write_text("{}\n")
    more = tiny_recipe(phrasebook, max_steps=99)
    open_folder(run, more, store, manifest)
    assert run.card() == second
    assert yaml.safe_load(run.recipe.read_text())["trainer"]["max_steps"] == 99


@pytest.mark.parametrize("what", ["record", "checkpoint"])
def test_a_run_has_begun_once_it_has_a_record_or_a_checkpoint(opened, what):
    run, *_ = opened
    assert not run.has_begun()
    if what == "record":
        run.metrics.touch()
        assert not run.has_begun()
        run.metrics.write_text("{}\n")
    else:
        (run.checkpoints / folder_name(3)).mkdir()
    assert run.has_begun()
    run.card_path.unlink()
    assert not run.has_begun()


def test_a_run_of_another_dataset_is_refused_naming_both_identities(opened):
    run, recipe, _, manifest = opened
    run.metrics.write_text("{}\n")
    check_folder(run, recipe, manifest)
    card = run.card().model_copy(update={"dataset_identity": "f" * 64})
    run.card_path.write_text(card.model_dump_json())
    with pytest.raises(RunMismatchError) as error:
        check_folder(run, recipe, manifest)
    assert f"identity {'f' * 16}…" in str(error.value)
    assert f"has identity {manifest.identity[:16]}…. Set data.dataset" in str(error.value)


def test_imported_weights_cannot_be_continued_as_a_run(opened):
    run, recipe, _, manifest = opened
    with_checkpoint(run.path, 0, imported_from="hub/model")
    with pytest.raises(RunMismatchError, match=rf"hub/model.*trainer\.init_from={run.path}"):
        check_folder(run, recipe, manifest)
    (run.checkpoints / folder_name(0) / HEADER).write_text("{")
    check_folder(run, recipe, manifest)  # damage is reported later, when the checkpoint is read
    with_checkpoint(run.path, 1)
    check_folder(run, recipe, manifest)


def test_errors_distinguish_a_folder_without_a_run_from_a_damaged_run(run):
    with pytest.raises(RunMismatchError, match=r"is no run: it has no run\.json"):
        run.card()
    with pytest.raises(RunMismatchError, match="is no run"):
        RunFolder(made_run(run.path / "made") / "metrics.jsonl").card()
    run.card_path.write_text("{")
    with pytest.raises(RunMismatchError, match=r"run.json is damaged.*Restore it from a copy"):
        run.card()
    run.card_path.unlink()
    run.card_path.mkdir()
    with pytest.raises(RunMismatchError, match=r"run.json (cannot be read|is damaged)"):
        run.card()


def at(second):
    return datetime(2026, 1, 2, 3, 4, second, 123456, UTC)


def test_log_entries_are_read_back_without_details(run):
    assert last_entries(run.log) == []
    texts = ["first", "second\nwith\n  more", f"{DETAIL}for readers of the file", "third"]
    run.log.write_text("".join(log_entry(text, at(n)) for n, text in enumerate(texts)))
    found = last_entries(run.log)
    assert [entry.text for entry in found] == ["first", "second\nwith\n  more", "third"]
    assert found[0].time == "2026-01-02T03:04:00.123+00:00"


def test_only_the_end_of_a_long_log_is_parsed(run):
    long = "x" * (TAIL_BYTES // 2)
    run.log.write_text("".join(log_entry(f"{n}\n{long}", at(n)) for n in range(3)))
    (last,) = last_entries(run.log)[-1:]
    assert last.text == f"2\n{long}"[:SHOWN_CHARACTERS]
    assert [entry.text[0] for entry in last_entries(run.log)] == ["2"]
