"""Scores of the translations that are stored in a run's folder."""

import os
import shutil

import pytest
import sacrebleu

from data_pipeline.errors import DatasetError
from run_store.folder import RunFolder
from transloom.inference.stored_translations import NEWEST, stored_scores


@pytest.fixture
def run(untrained_run, tmp_path):
    # Other tests write translations to the shared run; do not copy these.
    others = shutil.ignore_patterns("translations")
    return RunFolder(shutil.copytree(untrained_run.path, tmp_path / "run", ignore=others))


def references_of(phrasebook):
    return (phrasebook / "heldout" / "phrasebook.tgt.txt").read_text().splitlines()


def keep(run, name, lines):
    run.translations.mkdir(exist_ok=True)
    (run.translations / name).write_text("".join(f"{line}\n" for line in lines))


def test_each_translation_file_of_a_test_set_is_scored_with_signatures(run, phrasebook):
    references = references_of(phrasebook)
    worse = ["nothing of it", *references[1:]]
    keep(run, "phrasebook-00000002-beam4-alpha0.6.txt", references)
    keep(run, "phrasebook-average-of-1-2-beam1-alpha0.txt", worse)
    keep(run, "phrasebook-00000001-beam4-alpha0.6.txt", references[1:])  # one line missing
    keep(run, "validation-00000002.txt", references)
    found = stored_scores(run)
    assert [(s.checkpoint, s.beam_size, s.length_penalty, s.score) for s in found] == [
        ("00000002", 4, 0.6, "BLEU"),
        ("00000002", 4, 0.6, "chrF"),
        ("average-of-1-2", 1, 0.0, "BLEU"),
        ("average-of-1-2", 1, 0.0, "chrF"),
    ]
    bleu = sacrebleu.BLEU()
    expected = bleu.corpus_score(worse, [references]).score
    assert found[0].value == pytest.approx(100)
    assert found[2].value == expected < 100
    assert found[2].signature == str(bleu.get_signature())


def test_only_the_newest_files_are_scored_and_sorted_by_name(run, phrasebook):
    references = references_of(phrasebook)
    for number in range(NEWEST + 2):
        name = f"phrasebook-0000000{number}-beam4-alpha0.6.txt"
        keep(run, name, references)
        age = number if number else 10**6  # the first is the newest, the second the oldest
        os.utime(run.translations / name, (age, age))
    keep(run, "phrasebook-2-00000009-beam4-alpha0.6.txt", references)  # of the set phrasebook-2
    keep(run, "phrasebook-00000009-beam4-alpha0.6-ctranslate2-int8.txt", references)
    steps = [score.checkpoint for score in stored_scores(run) if score.score == "chrF"]
    assert steps == [f"0000000{number}" for number in (0, *range(3, NEWEST + 2))]


def test_a_file_with_an_extra_line_is_not_scored(run, phrasebook):
    keep(run, "phrasebook-00000002-beam4-alpha0.6.txt", [*references_of(phrasebook), "more"])
    assert stored_scores(run) == []


def test_a_run_without_translations_has_no_scores(run):
    assert stored_scores(run) == []
    run.translations.mkdir()
    assert stored_scores(run) == []


def test_stored_scores_reports_a_missing_dataset(run, phrasebook, monkeypatch):
    keep(run, "phrasebook-00000002-beam4-alpha0.6.txt", references_of(phrasebook))
    monkeypatch.setattr("transloom.inference.stored_translations.dataset_of", _gone)
    with pytest.raises(DatasetError, match="no dataset"):
        stored_scores(run)


def _gone(checkpoint, data):
    raise DatasetError("there is no dataset")
