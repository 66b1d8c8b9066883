"""The tables of docs/reference/metrics.md are generated from the table of facts."""

import re
from pathlib import Path

import pytest
from support.scripts import imported_script

from run_store.record.run_metrics import NODE_METRICS, RUN_METRICS

ROOT = Path(__file__).resolve().parents[2]
RULES = (ROOT / "deploy/prometheus/transloom.rules.yml").read_text()


@pytest.fixture(scope="module")
def reference():
    with imported_script("site/reference.py") as module:
        yield module


def test_the_metrics_page_equals_its_generated_tables(reference):
    page = reference.METRICS_PAGE.read_text()
    remedy = "run .venv/bin/python scripts/site/reference.py and commit the page"
    assert reference.with_tables(page) == page, remedy
    assert "| `grad_norm` | gradient norm |  | Global norm" in page


def test_alert_rules_use_existing_metrics():
    named = set(re.findall(r"transloom_(?:run|node)_\w+", RULES))
    assert len(named) > 8
    assert named <= {*RUN_METRICS, *NODE_METRICS}
