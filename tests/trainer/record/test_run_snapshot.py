"""A run folder at one moment: each file once, and what cannot be read as a problem."""

import json
from collections import Counter

import pytest
from support.records.lines import train_line
from support.records.run_folders import made_run, with_checkpoint, with_owner

from data_pipeline.storage import regular_files
from trainer.checkpoints.format import HEADER, read_header
from trainer.record.run_snapshot import RunSnapshot, signature_of, signatures_of
from trainer.record.run_status import RECORD_BYTES_IN_LIST, run_status_from
from trainer.runs.folder import RunFolder

LAZY = ("settings", "start", "checkpoints", "readable_header", "vitals", "cleaning")


@pytest.fixture
def run(tmp_path):
    path = with_checkpoint(with_owner(made_run(tmp_path / "run", train_line(1), train_line(2))), 2)
    (path / "dataset").mkdir()
    corpora = [{"name": "books", "read": 3, "kept": 2, "dropped": {"empty": 1}, "files": []}]
    (path / "dataset" / "manifest.json").write_text(json.dumps({"corpora": corpora}))
    (path / "vitals.json").write_text('{"ranks": []}')
    return RunFolder(path)


def test_a_folder_that_is_whole_has_no_problems(run):
    snapshot = RunSnapshot(run, RECORD_BYTES_IN_LIST)
    standing = run_status_from(snapshot)
    assert (standing.state, standing.step, standing.checkpoint_step) == ("training", 2, 2)
    assert snapshot.settings["trainer.max_steps"] == snapshot.max_steps == 20
    assert snapshot.card == run.card()
    assert snapshot.readable_header == snapshot.header == read_header(snapshot.newest)
    assert [(row.step, row.state) for row in snapshot.checkpoints] == [(2, "complete")]
    assert snapshot.vitals == {"ranks": []}
    assert snapshot.cleaning == {"books": {"read": 3, "kept": 2, "dropped": {"empty": 1}}}
    assert snapshot.start is None
    assert snapshot.problems == []


def test_each_file_is_opened_for_one_attribute(run, monkeypatch):
    opened = Counter()
    open_it = regular_files.os.open
    monkeypatch.setattr(
        regular_files.os, "open", lambda path, *_: opened.update([str(path)]) or open_it(path, *_)
    )
    snapshot = RunSnapshot(run, RECORD_BYTES_IN_LIST)
    assert str(run.vitals) not in opened
    for _ in range(2):
        [getattr(snapshot, name) for name in LAZY]
    assert opened[str(run.vitals)] == opened[str(run.dataset / "manifest.json")] == 1
    assert opened[str(run.card_path)] == 1
    assert opened[str(run.recipe)] == 2  # for its number of steps, and for its settings


def test_what_cannot_be_read_is_a_problem_once(run):
    for file in (run.vitals, run.dataset / "manifest.json", run.recipe):
        file.write_text("{")
    snapshot = RunSnapshot(run, RECORD_BYTES_IN_LIST)
    for _ in range(2):
        assert snapshot.settings == {}
        assert snapshot.vitals is snapshot.cleaning is None
    files = [problem.split(" ")[0] for problem in snapshot.problems]
    assert files == [str(run.recipe), str(run.vitals), str(run.dataset)]


def test_a_header_that_cannot_be_read_leaves_the_one_before(run):
    with_checkpoint(run.path, 4)
    (run.checkpoints / "step-00000004" / HEADER).write_text("{")
    snapshot = RunSnapshot(run, RECORD_BYTES_IN_LIST)
    assert snapshot.header is None
    assert snapshot.readable_header.step == 2
    assert [row.state for row in snapshot.checkpoints] == ["complete", "damaged"]
    assert len(snapshot.problems) == 1


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "log.txt", "recipe.yaml", "run.json", "owners/8"]
)
def test_the_signatures_change_with_what_a_standing_is_made_of(run, name):
    before = signatures_of(run)
    assert signatures_of(run) == before
    with (run.path / name).open("a") as file:
        file.write("x")
    assert signatures_of(run) != before
    assert signature_of(run.path / "nothing") is None
