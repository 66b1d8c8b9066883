"""The dashboard's page in a browser, as a report file about made-up runs."""

import json
import re
from contextlib import closing
from pathlib import Path

import pytest
from support.dashboard.browser import Watched
from support.dashboard.made_up import HOSTILE, SPIKE_FIELDS, answers, of_task

from transloom.observe.report.report import one_file

pytestmark = pytest.mark.needs("browser")

SCREENS = [(w, s) for w in (390, 1280, 1920) for s in ("light", "dark")]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Write a report about three runs, and return its address."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(one_file(answers() | {"/frozen": {"time": 1_795_297_887.0}}), encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def watched(browser):
    with closing(Watched(browser)) as watched:
        yield watched
        assert watched.complaints == []
        assert [url for url in watched.asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
@pytest.mark.parametrize("fragment", ["", "#run=id-0", f"#step=id-0@{SPIKE_FIELDS}"])
def test_the_report_is_accessible_and_fits_on_all_screens(browser, report, width, scheme, fragment):
    with closing(Watched(browser, width, scheme)) as watched:
        watched.open(report + fragment)
        assert watched.violations() == []
        assert not watched.is_wider_than_the_screen()
        assert watched.complaints == []
        assert watched.page.title() != "taken"


def test_untrusted_texts_of_runs_are_shown_as_plain_text(watched, report):
    page = watched.open(f"{report}#columns=data.tag")
    assert page.locator("table.runs").get_by_text(HOSTILE[:40]).count() == 2
    page.get_by_role("link", name="run <img").click()
    page.get_by_role("region", name="Samples").get_by_text(HOSTILE).wait_for()
    page.get_by_role("region", name="Samples").get_by_text("\\u202eneddih").wait_for()
    page.get_by_role("region", name="Samples").get_by_text("\\x1b]0;hi\\x07").wait_for()
    assert page.locator("img, main script").count() == 0
    assert page.title() != "taken"


def test_the_table_of_runs_can_be_filtered_sorted_and_selected_from(watched, report):
    page = watched.open(report)
    names = page.locator("table.runs tbody td.name")
    page.get_by_label("Filter").fill("state:finished bleu>80")
    page.locator("#filter-said", has_text="1 of 3 runs").wait_for()
    assert names.all_inner_texts() == ["phrasebook,model.dropout=0.3"]
    page.get_by_label("Filter").fill("widht=3")
    page.locator("#filter-said", has_text="no run has a field “widht”").wait_for()
    page.get_by_label("Filter").fill("")
    page.get_by_role("button", name="BLEU", exact=True).click()
    page.locator('th[aria-sort="descending"]', has_text="BLEU").wait_for()
    assert names.first.inner_text() == "phrasebook"
    page.get_by_role("button", name="BLEU", exact=True).click()
    page.locator('th[aria-sort="ascending"]', has_text="BLEU").wait_for()
    assert names.last.inner_text() == "phrasebook"
    page.get_by_label("curves of phrasebook,model.dropout=0.3").uncheck()
    loss = page.locator("figure.chart", has_text="training loss")
    loss.locator(".readout li").nth(1).wait_for()
    assert loss.locator(".readout li").count() == 2
    differing = page.get_by_role("region", name="Table of differences")
    assert "seed" in differing.inner_text()
    page.get_by_text("Columns").click()
    page.get_by_role("checkbox", name="model.dropout", exact=True).check()
    page.get_by_role("columnheader", name="model.dropout").first.wait_for()


def test_the_address_of_the_page_restores_its_view_in_another_browser(watched, browser, report):
    page = watched.open(report)
    page.get_by_label("horizontal axis").select_option("by hours")
    page.get_by_label("smooth").fill("0.6")
    page.get_by_role("button", name="logarithmic scale of training loss").click()
    page.get_by_label("Filter").fill("seed=0")
    page.wait_for_url(re.compile("filter="))
    with closing(Watched(browser)) as other:
        shown = other.open(page.url)
        assert shown.get_by_label("Filter").input_value() == "seed=0"
        assert shown.get_by_label("horizontal axis").input_value() == "hours"
        log = shown.get_by_role("button", name="logarithmic scale of training loss")
        assert log.get_attribute("aria-pressed") == "true"
        assert other.complaints == []


def test_a_click_on_a_spike_opens_its_step(watched, report):
    page = watched.open(f"{report}#runs=id-0")
    over = page.locator("figure.chart", has_text="training loss").locator(".u-over")
    box = over.bounding_box()
    # Click on the point of the spike: the axis shows steps 1 to 420.
    over.click(position={"x": box["width"] * (SPIKE_FIELDS - 1) / 419, "y": box["height"] * 0.45})
    page.get_by_role("heading", name=f"Step {SPIKE_FIELDS} of phrasebook").wait_for()
    assert "4.453" in page.get_by_role("dialog").inner_text()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")


def test_dragging_in_a_chart_zooms_all_charts(watched, report):
    page = watched.open(report)
    box = page.locator("figure.chart .u-over").first.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 70, steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile(r"zoom=2\d\d"))
    page.get_by_role("button", name="Show all").click()
    page.wait_for_url(re.compile(r"^((?!zoom).)*$"))


def test_the_page_can_be_used_by_keyboard_from_the_filter_to_a_step(watched, report):
    """Escape closes the step, and returns the focus to the chart."""
    page = watched.open(f"{report}#runs=id-0")
    chart = page.get_by_role("slider", name="training loss")
    for _ in range(60):
        page.keyboard.press("Tab")
        if chart.evaluate("node => node === document.activeElement"):
            break
    else:
        pytest.fail("no way to the chart by Tab")
    assert chart.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    page.keyboard.press("Home")
    assert "step 1" in chart.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowRight")
    assert "step 2," in chart.get_attribute("aria-valuetext")
    page.keyboard.press("+")
    page.wait_for_url(re.compile("zoom="))
    page.keyboard.press("Escape")
    page.wait_for_url(re.compile(r"^((?!zoom).)*$"))
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Step 2 of phrasebook").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    assert chart.evaluate("node => node === document.activeElement")


def test_the_numbers_of_a_chart_are_available_as_a_table(watched, report):
    page = watched.open(f"{report}#runs=id-0,id-1")
    chart = page.locator("figure.chart", has_text="BLEU")
    chart.locator("summary").click()
    rows = chart.get_by_role("region", name="BLEU").locator("tbody tr")
    assert rows.first.locator("td").all_inner_texts()[0] == "75"
    assert chart.locator("thead th").all_inner_texts()[1] == "phrasebook"


@pytest.fixture
def mixed(tmp_path):
    """Return a report about six runs, of which one is masked and one has a single sample."""
    made = answers(runs=6)
    of_task(made, 2, "masked_lm", "masked token")
    last = made["/api/runs"]["runs"][-1]["id"]
    nodes = made[f"/api/runs/{last}/nodes"]["nodes"]
    columns = nodes["node-1"].items()
    nodes["node-1"] = {name: values[:1] for name, values in columns}
    del nodes["node-2"]
    file = tmp_path / "mixed.html"
    file.write_text(one_file(made | {"/frozen": {"time": 1_795_297_887.0}}), encoding="utf-8")
    return file.as_uri()


def colour_of(page, run):
    swatch = page.locator("table.runs tr", has_text=run).locator(".swatch")
    return swatch.evaluate("node => getComputedStyle(node).backgroundColor")


def test_runs_of_one_task_are_ticked_and_another_task_has_separate_charts(watched, mixed):
    page = watched.open(mixed)
    assert page.locator("table.runs input:checked").count() == 5
    assert not page.get_by_label("curves of run <img").is_checked()
    assert page.locator("figure.chart", has_text="nats per target token").count() == 1
    page.get_by_label("curves of run <img").check()
    masked = page.locator("figure.chart", has_text="training loss, nats per masked token")
    masked.wait_for()
    assert masked.locator(".readout li").count() == 1
    paper = page.locator("figure.chart", has_text="training loss, nats per target token")
    assert paper.locator(".readout li").count() == 5
    assert watched.violations() == []


def test_the_colour_of_a_run_does_not_depend_on_the_shown_runs(watched, browser, mixed):
    page = watched.open(mixed)
    colour = colour_of(page, "seed=3")
    with closing(Watched(browser)) as other:
        shown = other.open(f"{mixed}#runs=id-3,id-0&sort=-seed")
        assert colour_of(shown, "seed=3") == colour


@pytest.mark.parametrize("width", [1280, 1920])
def test_the_table_of_differences_shows_all_ticked_runs(browser, mixed, width):
    with closing(Watched(browser, width)) as watched:
        page = watched.open(f"{mixed}#runs=id-0,id-1,id-2,id-3,id-4,id-5")
        box = page.get_by_role("region", name="Table of differences")
        assert box.locator("thead th").count() == 7
        assert box.evaluate("node => node.scrollWidth <= node.clientWidth")


def test_a_single_sample_is_drawn_as_a_point(watched, mixed):
    page = watched.open(f"{mixed}#run=id-5")
    chart = page.locator("figure.chart", has_text="% of a node")
    chart.scroll_into_view_if_needed()
    chart.locator("canvas").wait_for()
    drawn = chart.locator("canvas").evaluate(
        """canvas => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            let coloured = 0;
            for (let n = 0; n < data.length; n += 4) {
                const [r, g, b, alpha] = data.subarray(n, n + 4);
                coloured += alpha > 200 && Math.max(r, g, b) - Math.min(r, g, b) > 60;
            }
            return coloured;
        }"""
    )
    assert drawn > 5


def test_the_page_says_that_it_thins_curves(watched, browser, tmp_path):
    file = tmp_path / "thinned.html"
    file.write_text(one_file(answers(every=4)), encoding="utf-8")
    page = watched.open(file.as_uri())
    said = page.locator(".curves [role=status]").inner_text()
    assert "each point represents up to 4 steps" in said


def test_a_script_added_to_a_report_is_not_executed(watched, report, tmp_path):
    """The page's policy refuses a script that was added to the file."""
    added = tmp_path / "added.html"
    with Path(report.removeprefix("file://")).open(encoding="utf-8") as file:
        page_text = file.read()
    script = f"<script>document.title = {json.dumps('taken')}</script></body>"
    added.write_text(script.join(page_text.rsplit("</body>", 1)), encoding="utf-8")
    page = watched.open(added.as_uri())
    assert page.title() != "taken"
    assert any("Content Security Policy" in text for text in watched.complaints)
    watched.complaints.clear()
