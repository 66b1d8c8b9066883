"""`transloom dashboard` in a browser, for runs whose records grow."""

import re
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from support.dashboard.browser import Watched
from support.dashboard.command import dashboard
from support.records.lines import skipped_line, train_line, validation_line
from support.records.run_folders import made_run, with_owner, with_status

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"

pytestmark = pytest.mark.needs("browser")


@pytest.fixture
def watched(browser):
    with closing(Watched(browser)) as watched:
        yield watched


@pytest.fixture
def run(tmp_path):
    """Make a run that trains and has 30 steps so far."""
    lines = [train_line(step, loss=5.0 / step) for step in range(1, 31)]
    return with_owner(made_run(tmp_path / "runs" / "growing", *lines, max_steps=100))


def add(run, *lines):
    """Append lines to a run's record, and update its status as its owner would."""
    with (run / "metrics.jsonl").open("a") as record:
        record.writelines(f"{line.to_json()}\n" for line in lines)
    with_status(run)


def wait_for_step(page, step):
    """Wait until the newest step of a chart is `step`."""
    slider = f'[role="slider"][aria-label^="training loss"][aria-valuenow="{step}"]'
    page.locator(slider).first.wait_for()


def test_each_new_step_is_shown_before_the_next_one_is_written(watched, run, tmp_path):
    """The test waits for each step on the page, and so the next step cannot reveal it."""
    with dashboard(run.parent, tmp_path / "cache") as address:
        page = watched.open(address)
        wait_for_step(page, 30)
        assert "BLEU" not in page.locator("table.runs thead").inner_text()
        for step in range(31, 51):
            add(run, train_line(step, loss=5.0 / step))
            wait_for_step(page, step)
        add(run, skipped_line(51), validation_line(51, bleu=61.25, text=HOSTILE))
        bleu = page.locator("figure.chart", has_text="BLEU")
        bleu.locator(".readout", has_text="61.25").wait_for()
        page.get_by_role("region", name="List of events").get_by_text("skip").first.wait_for()
        # The table has a column for scores only once a run has a score.
        page.locator("table.runs thead").get_by_text("BLEU").wait_for()
        page.locator("table.runs").get_by_text("61.25").wait_for()
        page.get_by_role("link", name="growing").click()
        page.get_by_role("region", name="Samples").get_by_text(HOSTILE).first.wait_for()
        assert page.title() == "growing · transloom"
        assert watched.complaints == []
        own = urlsplit(address).netloc
        assert {urlsplit(url).netloc for url in watched.asked if url.startswith("http")} == {own}
        assert "token" not in page.url
        assert watched.violations() == []


def test_the_page_of_a_run_shows_its_progress_while_it_reads(watched, run, tmp_path):
    """Answers are held back until the page has shown the progress."""
    held = []
    with dashboard(run.parent, tmp_path / "cache") as address:
        page = watched.open(address)
        page.route(re.compile(r"/api/runs/growing$"), lambda route: held.append(route))
        page.goto(f"{page.url.split('#')[0]}#run=growing")
        page.reload()
        page.get_by_text("Reading its folder …").wait_for()
        progress = page.get_by_role("progressbar", name="Reading the run")
        assert progress.evaluate("bar => [bar.value, bar.max]") == [1, 2]
        assert not page.get_by_role("region", name="Samples").is_visible()
        assert watched.violations() == []
        for route in held:
            route.continue_()
        page.get_by_role("region", name="Checkpoints").first.wait_for()
        assert not progress.is_visible()
        assert watched.complaints == []


def test_a_new_run_appears_in_the_table_without_reloading(watched, run, tmp_path):
    with dashboard(run.parent, tmp_path / "cache") as address:
        page = watched.open(address)
        made_run(run.parent / HOSTILE.replace("/", ""), train_line(1))
        page.get_by_role("link", name="<img src=x").wait_for()
        assert page.title() != "taken"
        assert watched.complaints == []


def test_a_lost_connection_is_reported_and_missed_lines_are_fetched(watched, run, tmp_path):
    with dashboard(run.parent, tmp_path / "cache") as address:
        page = watched.open(address)
        page.locator("#link.following").wait_for()
    page.locator("#link", has_text="connection lost").wait_for()
    add(run, *(train_line(step) for step in range(31, 41)))
    port = str(urlsplit(address).port)
    with dashboard(run.parent, tmp_path / "cache", "--port", port) as again:
        # A new server has a new token; the address that it prints authenticates this browser again.
        other = watched.context.new_page()
        other.goto(again)
        page.locator("#link.following").wait_for()
        wait_for_step(page, 40)
