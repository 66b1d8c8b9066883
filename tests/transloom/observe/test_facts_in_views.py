"""A fact of the training line has the same title and name in every view."""

import csv
import io
import json
from pathlib import Path

import pytest
from support.records.lines import COMPARED, train_line
from support.records.run_folders import made_run, with_owner

from foundation.terminal import Terminal
from run_store.folder import RunFolder
from run_store.record.run_metrics import run_values
from run_store.record.run_status_model import DEFAULT_FORM
from trainer.tracking.wandb_tracker import LastLoggedRow, rows
from transloom.observe.curves.curves import read_curves
from transloom.observe.dashboard.run_responses import frozen_responses
from transloom.observe.exports import export_metrics, values_of
from transloom.observe.terminal.fact_text import step_summary
from transloom.observe.terminal.run_feed import RunFeed

NAME, TITLE, SHOWN = "compute_imbalance", "imbalance", "37.5%"
LINE = train_line(2, **COMPARED)


@pytest.fixture
def run(tmp_path):
    return with_owner(made_run(tmp_path / "run", train_line(1, **COMPARED), LINE))


def row(text):
    """Return the line of a text that shows the fact, with single spaces."""
    (line,) = [line for line in text.split("\n") if line.strip().startswith(TITLE)]
    return " ".join(line.split())


def test_terminal_views_show_the_fact(run, transloom):
    console = Terminal(file=io.StringIO(), width=100)
    console.print(RunFeed(run))
    assert row(console.file.getvalue()).startswith(f"{TITLE} {SHOWN}")
    assert row(transloom("status", run).stdout) == f"{TITLE} {SHOWN}"
    assert f"  {TITLE} {SHOWN}" in step_summary(lambda fact: getattr(LINE, fact.name), DEFAULT_FORM)


def test_the_dashboard_and_reports_contain_the_fact(run):
    responses = frozen_responses([run])
    fact = next(fact for fact in responses["/api/facts"]["facts"] if fact["name"] == NAME)
    assert (fact["title"], {"chart", "step", "status"} <= {*fact["show"]}) == (TITLE, True)
    assert responses["/api/runs/run/curves"]["columns"][NAME] == [0.375, 0.375]
    assert responses["/api/runs/run"]["standing"]["numbers"][NAME] == 0.375
    assert read_curves(RunFolder(run), points=1).columns[NAME] == [0.375]


def test_metrics_and_exports_contain_the_fact(run, tmp_path):
    metrics = {value.name: value.value for value in run_values(run)}
    assert metrics["transloom_run_compute_imbalance_ratio"] == 0.375
    assert dict(values_of(LINE))[f"train/{NAME}"] == 0.375
    ((_, logged),) = rows([LINE], LastLoggedRow())
    assert logged[f"train/{NAME}"] == 0.375
    export_metrics(run, "csv", tmp_path / "export")
    with (tmp_path / "export" / "train.csv").open() as file:
        assert [line[NAME] for line in csv.DictReader(file)] == ["0.375", "0.375"]
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[0])[NAME] == 0.375


def test_the_documentation_lists_the_fact():
    page = Path(__file__).parents[3] / "docs/reference/metrics.md"
    assert f"| `{NAME}` | {TITLE} | share of compute time |" in page.read_text()
