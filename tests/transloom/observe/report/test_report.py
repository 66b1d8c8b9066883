"""`transloom report`: content and size of the file."""

import hashlib
import json
import random
import re
from contextlib import closing

import pytest
from support.records.lines import skipped_line, train_line, validation_line
from support.records.run_folders import made_run
from typer.testing import CliRunner

from run_store.errors import RunMismatchError
from transloom.cli.app import app
from transloom.observe.report.report import write_report


def held(file):
    """Return the responses that a report contains, by path."""
    text = file.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="frozen">(.*?)</script>', text, re.S)
    return json.loads(found[1])


def test_a_report_contains_responses_and_hashes_of_its_runs(tmp_path):
    lines = [train_line(1, loss=2 / 3), train_line(2), validation_line(2, text="</script>")]
    runs = [made_run(tmp_path / "runs" / name, *lines) for name in ("a", "b")]
    file = tmp_path / "new" / "report.html"
    summary = write_report(runs, file)
    answers = held(file)
    assert summary["bytes"] == file.stat().st_size
    assert [row["id"] for row in answers["/api/runs"]["runs"]] == ["a", "b"]
    assert answers["/frozen"]["run"] is None
    about = answers["/api/runs/a"]
    assert about["samples"][0]["source"] == "</script>"
    record = hashlib.sha256((runs[0] / "metrics.jsonl").read_bytes()).hexdigest()
    assert about["hashes"]["metrics.jsonl"] == record
    columns = answers["/api/runs/a/curves"]["columns"]
    assert columns["step"] == [1, 2]
    assert columns["loss"] == [0.6666667, 0.5]
    assert "/api/runs/b/nodes" in answers


def long_record(path, steps):
    """Write a record whose numbers have all digits; an object per line would be slow."""
    fields = {"data_digest": "ab" * 32, "wall_seconds": 0.123, "counted_seconds": 0.123}
    line = train_line(1, goodput=0.8712, restarts=1, lost_steps=9, **fields)
    values = json.loads(line.to_json())
    with path.open("w") as file:
        for step in range(1, steps + 1):
            noise = random.Random(step).random()
            if step % 100 == 50:
                file.write(skipped_line(step).to_json() + "\n")
                continue
            moving = {"loss": 2 + noise, "nll": 1 + noise, "grad_norm": 3 * noise}
            moving |= {"step_seconds": noise, "target_tokens_per_second": 1e4 * noise}
            moving |= {"learning_rate": noise / 1000, "data_stall_seconds": noise / 100}
            moving |= {"wall_seconds": step * 0.61, "counted_seconds": step * 0.53}
            moving |= {"time": 1.79e9 + 0.61 * step, "target_tokens_seen": 25_000 * step}
            file.write(json.dumps(values | moving | {"step": step}) + "\n")
            if step % 100 == 0:
                file.write(validation_line(step, loss=moving["loss"]).to_json() + "\n")


@pytest.mark.long
def test_a_long_runs_report_is_small(tmp_path):
    """100,000 steps with 1,000 validations and 1,000 skipped steps take at most 3 MB."""
    run = made_run(tmp_path / "long", max_steps=100_000)
    long_record(run / "metrics.jsonl", 100_000)
    file = tmp_path / "report.html"
    assert write_report([run], file)["bytes"] <= 3_000_000
    answers = held(file)
    assert answers["/frozen"]["run"] == "long"
    assert answers["/api/runs/long/curves"]["steps_recorded"] == 100_000
    assert len(answers["/api/runs/long"]["validations"]) == 1000
    assert len(answers["/api/runs/long"]["events"]) == 1000


def test_a_folder_without_a_run_is_refused_before_writing(tmp_path):
    run = made_run(tmp_path / "runs" / "a", train_line(1))
    file = tmp_path / "report.html"
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(app, ["report", str(run), str(tmp_path / "empty"), "-o", str(file)])
    assert isinstance(result.exception, RunMismatchError)
    assert "is no run" in str(result.exception)
    assert not file.exists()
    said = CliRunner().invoke(app, ["report", str(run), "-o", str(file)])
    assert said.stdout == f"{file}\n"


@pytest.mark.needs("browser")
def test_a_browser_opens_a_report_from_disk(tmp_path):
    """A short version of tests/lab/test_dashboard_page.py."""
    from support.dashboard.browser import Watched, chromium

    run = made_run(tmp_path / "a", *(train_line(step) for step in range(1, 60)))
    file = tmp_path / "report.html"
    write_report([run], file)
    with chromium() as browser, closing(Watched(browser)) as watched:
        page = watched.open(file.as_uri())
        assert page.get_by_role("heading", level=1).inner_text() == "a"
        assert (
            page.get_by_role("slider", name="training loss").get_attribute("aria-valuenow") == "59"
        )
        assert watched.complaints == []
        assert {url.split(":")[0] for url in watched.asked} <= {"file", "data"}
