"""The documentation site is complete and usable from disk without a network."""

import json
import re
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from support.dashboard.browser import Watched

from cluster.errors import EXIT_PREEMPTED
from transloom import __all__ as API
from transloom.cli.app import app
from transloom.cli.fields import field_rows

PAGES = (
    "index.html",
    "how-to/your-corpus.html",
    "reference/commands.html",
    "reference/recipe-fields.html",
    "reference/python-api.html",
    "reference/exit-codes.html",
    "explanation/recovery.html",
    "decisions/index.html",
)
ROOT = Path(__file__).resolve().parents[2]
SEARCH_BOX = "input[placeholder=Search]"


class Resources(HTMLParser):
    """The URLs that a page loads, and the URLs to which it links."""

    def __init__(self, page):
        super().__init__()
        self.loaded, self.linked = [], []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "a" and "href" in found:
            self.linked.append(found["href"])
        elif tag == "link" and found.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(found.get("href"))
        elif "src" in found:
            self.loaded.append(found["src"])


@pytest.mark.long
def test_pages_load_only_local_files_and_link_to_existing_files(site):
    # Exhibits are separate files, which the tests of their commands check.
    pages = [page for page in site.rglob("*.html") if "exhibits" not in page.parts]
    assert site / "index.html" in pages
    for page in pages:
        found = Resources(page)
        assert [a for a in found.loaded if a and urlsplit(a).scheme not in ("", "data")] == [], page
        for address in (*found.loaded, *found.linked):
            parts = urlsplit(address or "")
            if parts.scheme or not parts.path or page.name == "404.html":
                continue
            target = (page.parent / unquote(parts.path)).resolve()
            assert target.exists(), f"{page.relative_to(site)}: {address}"


@pytest.mark.long
@pytest.mark.parametrize("name", ["explain.html", "report.html"])
def test_a_missing_exhibit_says_how_to_build_it(site, name):
    text = (site / "exhibits" / name).read_text(encoding="utf-8")
    assert (ROOT / "docs/exhibits" / name).exists() != ("Run <code>scripts/exhibits" in text)


@pytest.mark.long
def test_the_reference_lists_every_command_recipe_field_and_api_name(site):
    commands = (site / "reference/commands.html").read_text()
    for command in app.registered_commands:
        if not command.hidden:
            name = command.name or command.callback.__name__.replace("_", "-")
            assert f'id="transloom-{name}"' in commands
    fields = (site / "reference/recipe-fields.html").read_text()
    assert all(f"<code>{row['field']}</code>" in fields for row in field_rows())
    sections = re.findall(r"<h2[^>]*>(.*?)<", fields)
    assert len(sections) == len(set(sections))
    api = (site / "reference/python-api.html").read_text()
    assert all(f'id="transloom.api.{name}"' in api for name in API)
    codes = (site / "reference/exit-codes.html").read_text()
    assert f"<td>{EXIT_PREEMPTED}</td>" in codes


@pytest.mark.long
def test_the_search_index_contains_fields_and_commands(site):
    index = json.loads((site / "search/search_index.json").read_text())
    titles = {re.sub("<[^>]*>", "", page["title"]) for page in index["docs"]}
    assert {"trainer.ema_decay", "transloom train"} <= titles


@pytest.mark.long
def test_the_search_index_omits_decision_records(site):
    index = json.loads((site / "search/search_index.json").read_text())
    assert (site / "decisions/0105-ranks-check-each-other.html").exists()
    assert [e["location"] for e in index["docs"] if e["location"].startswith("decisions/")] == []


@pytest.mark.long
def test_code_on_the_site_shows_pipes_without_a_backslash(site):
    shown = {
        (str(page.relative_to(site)), code)
        for page in site.rglob("*.html")
        if "exhibits" not in page.parts
        for code in re.findall(r"<code>([^<]*)</code>", page.read_text(encoding="utf-8"))
        if r"\|" in code
    }
    assert shown == set()
    assert "<code>transloom watch RUN|FOLDER|JOB</code>" in (
        site / "how-to/watching.html"
    ).read_text(encoding="utf-8")


@pytest.mark.lab
@pytest.mark.needs("browser")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_the_screen_and_have_no_accessibility_violations(site, browser, width, scheme):
    with closing(Watched(browser, width, scheme)) as watched:
        for name in PAGES:
            watched.page.goto((site / name).as_uri())
            watched.page.locator("h1").wait_for()
            assert not watched.is_wider_than_the_screen(), name
        assert watched.complaints == []
        assert [a for a in watched.asked if not a.startswith(("file:", "data:", "blob:"))] == []
        for name in PAGES:  # axe tries to read style sheets, which the console reports
            watched.page.goto((site / name).as_uri())
            watched.page.locator("h1").wait_for()
            assert watched.violations() == [], name


@pytest.mark.lab
@pytest.mark.needs("browser")
@pytest.mark.parametrize(
    ("words", "page_name"), [("custom loss", "extending"), ("submit job", "first-day")]
)
def test_search_finds_the_page_about_a_subject_first(site, browser, words, page_name):
    with closing(Watched(browser)) as watched:
        page = watched.page
        page.goto((site / "index.html").as_uri())
        page.locator(SEARCH_BOX).click()
        page.locator(SEARCH_BOX).press_sequentially(words)
        found = page.locator(".md-search-result__link").first
        found.wait_for()
        assert page_name in found.get_attribute("href")


@pytest.mark.lab
@pytest.mark.needs("browser")
def test_search_opens_a_result_on_a_page_loaded_from_disk(site, browser):
    with closing(Watched(browser)) as watched:
        page = watched.page
        page.goto((site / "index.html").as_uri())
        page.locator(SEARCH_BOX).click()
        page.locator(SEARCH_BOX).press_sequentially("ema_decay")
        page.locator(".md-search-result__link").first.click()
        page.wait_for_url(re.compile("recipe-fields"))
        assert watched.complaints == []
