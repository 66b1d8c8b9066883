"""`scripts/nightly` counts the results of long checks and repeats only outdated ones."""

import subprocess
from pathlib import Path

import pytest
from support.scripts import imported_script

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = {
    "chaos": ("==== 2 failed, 410 passed, 3 skipped, 1 error in 512.3s ====\n", (410, 3)),
    "lab": ("3 passed in 1.0s\n======= 1 failed, 4 passed in 2.0s =======\n", (7, 1)),
    "mutants": (
        "  1 of 3  one   caught by tests/test_a.py::test_b\n"
        "  2 of 3  two   SURVIVES\n"
        "  3 of 3  three does not apply\n\ntwo  SURVIVES\n    what\n1 of 3 are caught\n",
        (1, 2),
    ),
    "sampled": (
        "  1 of 3  model/a.py:7  SURVIVES\n    a < b  ⟶  (a <= b)\n    tests/model/test_a.py\n"
        "  2 of 3  model/b.py:9  caught by tests/model/test_b.py::test_c\n"
        "seed 20261130, 4 drawn: 2 killed, 1 TAKES TOO LONG, 1 SURVIVES\n",
        (2, 1),
    ),
    "fuzz": (
        "| what was changed | files | refused | read | something else |\n|---|--:|--:|--:|--:|\n"
        "| manifests | 2,000 | 1,500 | 499 | 1 |\n| tars | 10 | 4 | 6 | 0 |\n",
        (2009, 1),
    ),
    "oldest": ("5 passed in 1.0s\n", (5, 0)),
    "same_bits": (
        "dataset a … equal: 3 files (1 s)\n[1/2] b … DIFFERENT, 4 differences\n"
        "[2/2] c … FAILED\n    error\nDIFFERENT or failed: b, c; of 2 cases, compared with x\n",
        (1, 2),
    ),
}


@pytest.fixture(scope="module")
def nightly():
    with imported_script("nightly") as module:
        yield module


def test_every_nightly_target_has_an_example_output(nightly):
    assert set(OUTPUTS) == set(nightly.TARGETS)


@pytest.mark.parametrize("target", OUTPUTS)
def test_counts_reads_passed_and_failed_results_of_each_target(nightly, target):
    output, expected = OUTPUTS[target]
    assert nightly.counts(target, output) == expected


def test_updating_the_page_changes_only_its_rows(nightly):
    page = nightly.PAGE.read_text()
    row = nightly.Row("lab", "0123456789", "2026-01-02", "2 cores, x86_64", "1,234", "0", "56")
    changed = nightly.with_rows(page, {**nightly.read_rows(page), "lab": row})
    assert nightly.read_rows(changed)["lab"] == row
    assert changed.partition(nightly.BEGIN)[0] == page.partition(nightly.BEGIN)[0]
    assert changed.partition(nightly.END)[2] == page.partition(nightly.END)[2]


def test_each_sample_of_mutants_adds_a_row_to_the_page(nightly):
    output, _ = OUTPUTS["sampled"]
    page = nightly.with_sample(nightly.PAGE.read_text(), "0123456789", output)
    assert "| 20261130 | 0123456789 | 4 | 2 | 1 | 1 | ? |\n" + nightly.SAMPLES_END in page
    assert nightly.with_sample(page, "", "it was interrupted\n") == page


def test_missing_failed_and_outdated_targets_are_due(nightly):
    done = {"passed": "1", "failed": "0", "minutes": "2", "date": "", "machine": ""}
    rows = {
        "chaos": nightly.Row(target="chaos", commit="here", **done),
        "lab": nightly.Row(target="lab", commit="other", **done),
        "fuzz": nightly.Row(target="fuzz", commit="here", **{**done, "failed": "3"}),
    }
    due = nightly.due(rows, "here", "code of {} in {}".format)
    assert due == ["lab", "oldest", "mutants", "sampled", "fuzz", "same_bits"]


def test_the_code_of_a_target_depends_on_the_files_that_it_checks(nightly, tmp_path, monkeypatch):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    monkeypatch.setattr(nightly, "ROOT", tmp_path)

    def codes_with(name, text):
        """Commit a file; return the code hashes of a target with named paths and of another one."""
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", "x"], cwd=tmp_path, check=True)
        return nightly.code_of("chaos", "HEAD"), nightly.code_of("mutants", "HEAD")

    chaos, mutants = codes_with("trainer/state/a.py", "1")
    assert len(chaos) == len(mutants) == 10
    assert codes_with("trainer/state/page.md", "1") == (chaos, mutants)
    others = ("transloom/web/a.py", "tests/transloom/web/test_a.py", "budget.json")
    seen = [codes_with(name, "1") for name in others]
    assert {one for one, _ in seen} == {chaos}
    assert len({mutants, *(other for _, other in seen)}) == 4
    checked = ("trainer/state/a.py", "tests/trainer/state/test_a.py", "tests/chaos/test_a.py")
    assert len({chaos, *(codes_with(name, "2")[0] for name in checked)}) == 4
    assert nightly.code_of("chaos", "0" * 40) == ""


def test_contributing_names_existing_paths_for_nightly_targets(nightly):
    assert nightly.NAMED
    for target in nightly.NAMED:
        places = nightly.named_places(target)
        assert len(places) > len(nightly.SHARED) + 1
        for place in (one for one in places if one != "tests/fuzz/"):
            assert list(ROOT.glob(f"{place.rstrip('/')}*")), place
