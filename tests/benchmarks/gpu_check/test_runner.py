"""The runner of the GPU check, with stages whose rows fail in different ways."""

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu_check.plan import STAGE_SECONDS, PlannedRow, Stage
from benchmarks.gpu_check.results import Results, Row, read_results
from benchmarks.gpu_check.runner import OURS, Runner, import_path

PLANTED = "support.gpu_check.planted"
AFTER = Stage("after", PLANTED, (PlannedRow("passes:after", "a row of another stage", "–"),))


def stage(*keys: str, module: str = PLANTED, seconds: float = 60.0) -> Stage:
    return Stage("planted", module, tuple(PlannedRow(key, key, "–", seconds) for key in keys))


class Check:
    """Runner of stages in a folder of the test, with the texts that it reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "results.json"
        self.results = Results("cpu")
        self.said: list[str] = []

    def run(
        self, *stages: Stage, stage_seconds: float = STAGE_SECONDS, total: float = 60.0
    ) -> None:
        Runner(
            python=Path(sys.executable),
            folder=self.folder / "work",
            results=self.results,
            results_file=self.file,
            say=self.hear,
            stage_seconds=stage_seconds,
            ends=time.monotonic() + total,
        ).run(stages)

    def hear(self, text: str) -> None:
        self.said.append(text)

    def row(self, name: str) -> Row:
        return self.results.rows[name]

    def ran(self, stage: str = "planted") -> list[str]:
        return (self.folder / "work" / stage / "ran.txt").read_text().split()


@pytest.fixture
def check(tmp_path):
    return Check(tmp_path)


def test_a_failing_row_does_not_stop_other_rows_or_stages(check):
    bad = ("raises", "is_wrong", "is_killed", "exits")
    check.run(stage("passes:first", *bad, "is_skipped", "passes:last"), AFTER)
    assert check.ran() == ["first", "last"]
    found = {name: row.result for name, row in check.results.rows.items()}
    assert found == {
        "planted/passes:first": "passed",
        **{f"planted/{key}": "failed" for key in bad},
        "planted/is_skipped": "skipped",
        "planted/passes:last": "passed",
        "after/passes:after": "passed",
    }
    assert "ValueError: a | planted error" in check.row("planted/raises").detail
    assert check.row("planted/is_wrong").shown_figure() == "2.5 of the bound"
    assert "SIGKILL" in check.row("planted/is_killed").detail
    assert "exit code 3" in check.row("planted/exits").detail
    assert "the last words" in check.row("planted/exits").detail
    assert "torch" in check.row("planted/is_killed").versions
    assert read_results(check.file) == check.results


@pytest.mark.long
def test_a_row_that_hangs_is_killed_with_its_child_processes(check):
    hangs = PlannedRow("hangs", "hangs", "–", seconds=1.5)
    check.run(Stage("planted", PLANTED, (hangs, PlannedRow("passes:on", "goes on", "–"))))
    assert "1.5 s" in check.row("planted/hangs").detail
    assert check.row("planted/passes:on").result == "passed"
    pid = (check.folder / "work" / "planted" / "left.pid").read_text()
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


@pytest.mark.long
def test_a_stage_is_ended_at_its_time_limit(check):
    rows = stage("passes:first", "hangs", "passes:last", seconds=10_000.0)
    check.run(rows, AFTER, stage_seconds=3.0)
    assert list(check.results.rows) == ["planted/passes:first", "after/passes:after"]
    assert any("2 rows not run" in text for text in check.said)
    assert check.row("after/passes:after").result == "passed"


@pytest.mark.long
def test_a_stage_after_the_total_limit_is_not_run(check):
    check.run(stage("passes:first", "hangs"), AFTER, total=3.0)
    assert list(check.results.rows) == ["planted/passes:first"]


def test_a_second_run_continues_after_the_rows_with_results(check):
    whole = stage("passes:one", "raises", "passes:two")
    check.results.add([Row("planted", "passes:one", "passed"), Row("planted", "raises", "failed")])
    check.run(whole)
    assert check.ran() == ["two"]
    check.run(whole)
    assert check.ran() == ["two"]
    assert "all 3 rows have results" in check.said[-1]


def test_the_results_file_has_each_row_as_soon_as_it_has_ended(check):
    def hear(text):
        if text.startswith("planted ") and "/2" in text:
            seen.append([row["key"] for row in json.loads(check.file.read_text())["rows"]])

    seen = []
    check.hear = hear
    check.run(stage("passes:one", "passes:two"))
    assert seen == [["passes:one"], ["passes:one", "passes:two"]]


def test_all_rows_of_a_stage_that_cannot_be_imported_fail(check):
    check.run(stage("passes:one", "passes:two", module="support.gpu_check.missing"), AFTER)
    for key in ("passes:one", "passes:two"):
        row = check.row(f"planted/{key}")
        assert row.result == "failed"
        assert "support.gpu_check.missing" in row.detail
    assert check.row("after/passes:after").result == "passed"


def test_a_wrong_kernel_fails_its_row_and_stops_no_other(check):
    keys = ("rotary:fp32", "sdpa_padded:fp32", "sdpa_causal:fp32")
    check.run(stage(*keys, module="support.gpu_check.wrong_kernel"), AFTER)
    results = [check.row(f"planted/{key}").result for key in keys]
    assert results == ["passed", "passed", "failed"]
    assert check.row("planted/sdpa_causal:fp32").figure > 0.01
    assert check.row("after/passes:after").result == "passed"


@pytest.mark.long
def test_the_exact_stage_detects_different_bits_and_false_alarms(check):
    keys = ("restart_varlen", "verified:alarm", "verified:change", "verify_zero:different")
    check.run(stage(*keys, module="support.gpu_check.unsteady_bits", seconds=600), total=600.0)
    rows = [check.row(f"planted/{key}") for key in keys]
    assert [row.result for row in rows] == ["failed"] * len(keys)
    for row, said in zip(
        rows, ("weights differ", "checksums of", "weights differ", "'w'"), strict=True
    ):
        assert said in row.detail


def test_verify_zero_compares_one_stage_on_one_rank(check):
    check.run(stage("verify_zero:equal", module="support.gpu_check.unsteady_bits"))
    row = check.row("planted/verify_zero:equal")
    assert (row.result, row.figure) == ("passed", 1.0), row.detail
    words = json.loads((check.folder / "work" / "planted" / "words.json").read_text())
    assert words[0] == "verify-zero"
    for option in (["--ranks", "1"], ["--stage", "1"]):
        assert words[words.index(option[0]) :][:2] == option
    assert {"engine.precision=bf16", "cluster.gpus_per_rank=0"} <= set(words)


@pytest.mark.parametrize("installed", [True, False])
def test_child_processes_import_our_packages_from_links_unless_installed(tmp_path, installed):
    """An installed transloom imports our packages from its installation, without links."""
    bare = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    variables = import_path(Path(sys.executable) if installed else bare, tmp_path)
    links = tmp_path / "imports"
    assert variables["PYTHONPATH"].split(":")[0] == str(links)
    ours = set() if installed else set(OURS)
    assert {link.name for link in links.iterdir()} == {"benchmarks", "support", *ours}
