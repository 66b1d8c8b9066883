"""The output of `Translator.explain` in a notebook cell, shown by a browser."""

from contextlib import closing

import pytest
from support.dashboard.browser import Watched, chromium
from support.explained_page import PageReader

import transloom
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live.panel import live_section
from transloom.observe.explain.translation_page import translation_page

SENTENCE = 'je "suis" </iframe><script>alert(1)</script>'
# Imitates a notebook's page, whose scripts the cell must not reach.
NOTEBOOK = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A notebook</title>
<link rel="icon" href="data:,"></head><body><main><h1>A notebook</h1>{cell}</main></body></html>"""


@pytest.fixture
def explanation(translator_of):
    translator = translator_of()
    live = live_section(translator, SENTENCE, None)
    page = translation_page(explain(translator, SENTENCE), SENTENCE, live)
    return transloom.Explanation(SENTENCE, "x", page)


def test_the_frame_contains_the_page_in_a_sandbox(explanation, tmp_path):
    reader = PageReader(explanation._repr_html_())
    ((tag, frame),) = reader.tags
    assert tag == "iframe"
    assert frame["srcdoc"] == explanation.html
    assert frame["sandbox"].split() == ["allow-scripts", "allow-downloads"]
    assert SENTENCE in frame["title"]
    assert explanation.save(tmp_path / "page.html").read_text("utf-8") == explanation.html
    assert explanation.html not in repr(explanation)


@pytest.mark.lab
@pytest.mark.needs("browser")
def test_the_page_runs_in_a_cell_without_changing_the_notebooks_url(explanation, tmp_path):
    file = tmp_path / "notebook.html"
    file.write_text(NOTEBOOK.format(cell=explanation._repr_html_()), encoding="utf-8")
    with chromium() as browser, closing(Watched(browser)) as watched:
        page = watched.page
        page.goto(file.as_uri())
        frame = page.frame_locator("iframe")
        place = frame.locator("#place")
        frame.get_by_role("button", name="Next").click()
        frame.locator("#live.here").wait_for()
        frame.locator("[data-live=matrices] figure").first.wait_for()
        frame.locator("#first-sentence").fill("elle est là")
        frame.locator("[data-live=pieces] b", has_text="elle").first.wait_for()
        frame.locator("nav a:not(nav ol ol a)").nth(4).click()
        frame.locator("#section-4.here").wait_for()
        frame.locator("nav a").first.click()
        box = frame.locator("[data-box='decoder.2.feed_forward']")
        box.locator("visible=true").first.click()
        frame.locator("section.here details[open]", has_text="feed-forward").wait_for()
        assert place.inner_text().endswith(str(frame.locator("main > section").count()))
        assert page.url == file.as_uri()
        (inner,) = [one for one in page.frames if one.parent_frame]
        assert inner.evaluate("origin") == "null"  # a different origin
        assert watched.complaints == []
        assert [
            url for url in watched.asked if not url.startswith(("file:", "about:", "data:"))
        ] == []
