"""The page as a file: no network requests, escaped texts, and scripts that run."""

import re
from contextlib import closing
from html import escape

import pytest
from support.dashboard.browser import Watched
from support.explained_page import PageReader

from transloom.observe.explain.explanation import explain
from transloom.observe.explain.translation_page import translation_page

HOSTILE = "<script>alert(\"x\")</script> & 'je' {{style}} </section> \\u003c"


def page_of(translator, sentence):
    return translation_page(explain(translator, sentence), sentence)


def test_the_page_loads_nothing_from_the_network(translator_of):
    page = page_of(translator_of(), "je suis étudiant")
    page = page.replace('"http://www.w3.org/2000/svg"', "")  # a namespace, not a request
    page = re.sub(r"script-src 'sha256-[^']*'", "", page)  # a hash may contain //
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp|import\(", page)
    reader = PageReader(page)
    for tag, attributes in reader.tags:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith(("#", "data:,")), (tag, attributes)
        assert tag not in ("img", "iframe", "object", "embed", "base", "form")
    policies = [a["content"] for tag, a in reader.tags if a.get("http-equiv")]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")


def test_the_sentence_is_escaped_everywhere(translator_of):
    translator = translator_of()
    page = page_of(translator, HOSTILE)
    assert f'dir="auto">{escape(HOSTILE)}</span>' in page
    hostile, plain = (PageReader(one) for one in (page, page_of(translator, "je")))
    ((_, data),) = hostile.sections[0].figures
    assert data["recorded"]["sentence"] == HOSTILE

    def own_scripts(reader):
        return [a for tag, a in reader.tags if tag == "script" and "type" not in a]

    assert len(own_scripts(hostile)) == len(own_scripts(plain)) == 1
    kinds = [{tag for tag, _ in reader.tags} for reader in (hostile, plain)]
    assert kinds[0] == kinds[1]


@pytest.mark.long
@pytest.mark.needs("browser")
def test_a_browser_draws_the_page_and_its_buttons_have_effect(browser, translator_of, tmp_path):
    """The page opens at section 4, Next opens section 5, and a button changes the colours."""
    file = tmp_path / "explain.html"
    file.write_text(page_of(translator_of(), HOSTILE), encoding="utf-8")
    with closing(Watched(browser)) as watched:
        page = watched.page
        page.goto(f"{file.as_uri()}#section-4")
        page.locator("#section-4.here").wait_for()
        page.locator("#on").click()
        page.locator("#theme").click()
        here = page.locator("#section-5.here")
        here.wait_for()
        assert re.fullmatch(r"5 of \d+", page.locator("#place").inner_text())
        assert page.locator("a[aria-current=step]").get_attribute("href") == "#section-5"
        assert page.locator("html.stepping").get_attribute("data-theme") in ("dark", "light")
        for folded in here.locator("details:has(canvas) > summary").all():
            folded.click()
        maps = here.locator("canvas").all()
        assert len(maps) > 4
        for one in maps:  # a map is drawn when it is scrolled into view
            one.scroll_into_view_if_needed()
            page.wait_for_function("map => map.hasAttribute('width')", arg=one.element_handle())
            assert min(one.evaluate("map => [map.width, map.height]")) > 20
        assert watched.complaints == []
        assert watched.asked == [page.url.split("#")[0]]
