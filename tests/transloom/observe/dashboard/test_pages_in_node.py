"""The dashboard's whole page, opened in Node without a browser."""

from pathlib import Path

import pytest
from support.dashboard.made_up import answers
from support.node_program import run_node

from transloom.observe.report.report import FROZEN, one_file

VIEWS = ["run_view.mjs", "runs_view.mjs", "live_view.mjs", "charts_view.mjs"]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Write a report about three runs."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(one_file(answers() | {FROZEN: {"time": 1_795_297_887.0}}), encoding="utf-8")
    return file


@pytest.mark.parametrize("program", ["page_functions.mjs", *VIEWS])
def test_the_dashboard_page_passes_its_tests_in_node(program, report):
    run_node(Path(__file__).with_name(program), report)
