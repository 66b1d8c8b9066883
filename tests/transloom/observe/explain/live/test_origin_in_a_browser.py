"""The panel that explains a number's origin, in a browser; and the effects of switches."""

import random
import re
from contextlib import closing

import pytest
from support.dashboard.browser import Watched

from model.config.transformer import DecodingConfig
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live.panel import live_section
from transloom.observe.explain.translation_page import translation_page

pytestmark = [pytest.mark.lab, pytest.mark.needs("browser")]

SENTENCE = "est-ce que les enfants habitaient près de cette école ?"
CROSSED = "decoder.layers.0.cross_attention"
PAINT = "modules['drawing/heat_map.js'].paint"
# The marked cells of all matrices: number of the matrix, row and column.
LIT = """[...document.querySelector("[data-live=matrices]").children].flatMap((figure, n) =>
    (figure.lit ?? []).map(({ row, column }) => [n, row, column]))"""
# The distance of the origin's title from the page header or the top of the screen.
BELOW_HEADER = """() => {
    const header = document.querySelector("header");
    const covered = getComputedStyle(header).position === "sticky" ? header.offsetHeight : 0;
    return document.querySelector("[data-live=origin] h3").getBoundingClientRect().top - covered;
}"""


@pytest.fixture
def address(translator_of, tmp_path):
    translator = translator_of()
    translator.decoding = DecodingConfig(max_length_factor=0, max_extra_length=6)
    live = live_section(translator, SENTENCE, None)
    file = tmp_path / "page.html"
    file.write_text(translation_page(explain(translator, SENTENCE), "x", live), encoding="utf-8")
    return f"{file.as_uri()}#live"


@pytest.fixture(params=[1280])
def watched(request, browser, address):
    with closing(Watched(browser, request.param)) as watched:
        watched.page.goto(address)
        watched.page.locator("[data-live=matrices] figure").first.wait_for()
        watched.settle()
        yield watched
        assert watched.complaints == []


# Scrolls a cell of a map into view, and returns its center on the canvas and its number.
CELL_OF_MAP = """([figure, row, column]) => {
    const { left, top, cell } = figure.layout;
    const grid = figure.querySelector(".grid");
    const [x, y] = [left + (column + 0.5) * cell.width, top + (row + 0.5) * cell.height];
    figure.scrollIntoView({ block: "center" });
    [grid, figure].forEach((one) => { one.scrollLeft = Math.max(0, x - 100); });
    const box = figure.querySelector("canvas").getBoundingClientRect();
    window.scrollBy(0, Math.max(0, box.top + y - innerHeight + 150));
    return { x, y, number: figure.map.values[row][column] };
}"""


def choose_cell(page, figure, row, column):
    """Click a cell of a map, and return its number, or None if it is masked."""
    figure.evaluate("one => one.closest('details')?.setAttribute('open', '')")
    figure.scroll_into_view_if_needed()
    page.wait_for_function("one => one.layout", arg=figure)
    place = figure.evaluate(f"(one, at) => ({CELL_OF_MAP})([one, ...at])", [row, column])
    if place["number"] is not None:
        figure.query_selector("canvas").click(position={name: place[name] for name in "xy"})
    return place["number"]


def matrix(page, head):
    return page.locator("[data-live=matrices] figure").nth(head).element_handle()


@pytest.mark.parametrize("watched", [360, 768, 1280], indirect=True)
def test_an_origin_opens_below_the_candidates_of_its_number(watched):
    page = watched.page
    assert not page.locator("[data-live=origin]").is_visible()
    page.locator("[data-live=steps] button").first.click()
    holder = page.locator("[data-live=steps] + [data-live=origin]")
    assert "probabilities" in holder.locator("h3").inner_text()
    assert 0 <= page.evaluate(BELOW_HEADER) < 900
    assert not watched.is_wider_than_the_screen()
    assert watched.violations() == []


def test_the_requested_and_the_previous_term_are_marked(watched):
    page = watched.page
    origin = page.locator("[data-live=origin]")
    marked = origin.locator("tr[aria-current]")
    columns = matrix(page, 0).evaluate("figure => figure.map.columns")
    for column, piece in enumerate(columns):  # also for pieces with a small share
        choose_cell(page, matrix(page, 0), 0, column)
        assert marked.locator("th").all_inner_texts() == [f"{piece} (asked)"]
    asked = marked.locator("button.number")
    term = asked.inner_text()
    asked.click()
    assert "scores" in origin.locator("h3").inner_text()
    assert origin.locator("thead th").all_inner_texts() == ["term", "query", "key", "result"]
    assert origin.locator("tr.sum th").last.inner_text().startswith("÷ √")
    smallest = origin.locator("tbody tr:has(button)").last
    key = smallest.locator("button.number").nth(1)  # button 0 is the query, button 1 the key
    name, number = smallest.locator("th").inner_text(), key.inner_text()
    key.click()
    assert "keys" in origin.locator("h3").inner_text()
    assert origin.locator(".value").inner_text() == number
    assert 0 <= page.evaluate(BELOW_HEADER) < 900
    page.get_by_role("button", name="← previous number").click()
    assert marked.locator("th").all_inner_texts() == [f"{name} (shown before)", "this number"]
    page.get_by_role("button", name="← previous number").click()
    assert marked.locator("button.number").inner_text() == term
    assert page.evaluate("document.activeElement.dataset.live") == "origin"


@pytest.mark.parametrize("watched", [360, 1280], indirect=True)
def test_the_effect_of_a_switch_is_visible_next_to_the_switches(watched):
    page = watched.page
    page.locator("summary", has_text="Switches").click()
    effect = page.locator("[data-live=effect]")
    boxes = page.locator("[data-live=switches] input")
    untouched = effect.inner_text()
    for n in range(0, boxes.count(), 5):
        boxes.nth(n).uncheck()
        page.get_by_text("With your changes:").wait_for()
        watched.settle()
        box = effect.bounding_box()
        assert 0 <= box["y"] < box["y"] + box["height"] <= 900
        assert "As trained:" in effect.inner_text()
        assert re.search(r"in step \d+: .* from .*% to .*% \([−+]\d", effect.inner_text())
        assert boxes.nth(n).bounding_box()["y"] < box["y"]  # the text does not cover the switch
        boxes.nth(n).check()
        page.get_by_text("With your changes:").wait_for(state="detached")
    assert effect.inner_text() == untouched
    assert not watched.is_wider_than_the_screen()
    assert watched.violations() == []


def test_inputs_of_a_cell_are_highlighted_in_their_matrix(watched):
    """The inputs of a score are a row of the queries and a row of the keys."""
    page = watched.page
    choose = page.locator("[data-live=places]").select_option
    choose(f"{CROSSED}.scores_hts")
    watched.settle()
    choose_cell(page, matrix(page, 2), 1, 3)
    for name, row in (("queries_htd", 1), ("keys_hsd", 3)):
        choose(f"{CROSSED}.{name}")
        watched.settle()
        plain = matrix(page, 2).query_selector("canvas").screenshot()
        lit = page.evaluate(LIT)
        width = matrix(page, 2).evaluate("figure => figure.map.values[0].length")
        assert lit == [[2, row, column] for column in range(width)]
        matrix(page, 2).evaluate(f"figure => {{ figure.lit = []; ({PAINT})(figure); }}")
        assert matrix(page, 2).query_selector("canvas").screenshot() != plain
        assert page.locator("[data-live=matrices] + [data-live=origin] h3").is_visible()
    page.locator("#first-sentence").fill("je suis")
    page.locator("[data-live=origin]").wait_for(state="hidden")
    watched.settle()
    assert page.evaluate(LIT) == []


# Returns the fault of the origin that a click on a cell has opened, or "".
FAULT = """([figure, number]) => {
    const origin = document.querySelector("[data-live=origin]");
    if (origin.hidden || !figure.contains(origin)) return "it is not beside the map";
    if (document.activeElement !== origin) return "it has no focus";
    const [box, title] = [figure.querySelector("canvas"), origin.querySelector("h3")]
      .map((one) => one.getBoundingClientRect());
    if (title.top < 0 || title.bottom > innerHeight) return "its title is not on the screen";
    if (box.bottom < 0 || box.top > innerHeight) return "the map is not on the screen";
    const shown = Number(origin.querySelector("p.value").textContent.replace("−", "-"));
    const isSame = Math.abs(shown - number) <= 6e-5 + 1e-3 * Math.abs(number);
    return isSame ? "" : `${shown}, not ${number}`;
}"""
# For the last cell of each map, returns the number in the map and the number in its origin.
NUMBERS_OF_ALL_MAPS = """async () => {
    const found = [];
    for (const figure of document.querySelectorAll("main > section.drawn figure.map")) {
      const { lines, values } = figure.map;
      const [row, column] = [lines.length - 1, lines.at(-1).length - 1];
      document.querySelector("[data-live=origin]").replaceChildren();
      figure.dispatchEvent(new CustomEvent("numberchosen",
        { bubbles: true, detail: { line: lines[row], column } }));
      for (let n = 0; n < 200 && !document.querySelector("[data-live=origin] p.value"); n++) {
        await new Promise((done) => setTimeout(done, 10));
      }
      const shown = document.querySelector("[data-live=origin] p.value");
      found.push([values[row][column], shown?.textContent]);
    }
    return found;
}"""


def number(text):
    return float(text.replace("−", "-").replace(",", ""))


@pytest.mark.parametrize("pace", ["slow", "fast"])
@pytest.mark.parametrize("size", [(1280, 720), (390, 844)], ids=str)
def test_a_click_on_any_cell_of_any_map_opens_its_origin(watched, size, pace):
    page, seed = watched.page, random.randrange(10**6)
    page.set_viewport_size({"width": size[0], "height": size[1]})
    chosen = random.Random(seed)
    sections = page.locator("main > section.drawn, #live")
    faults = []
    for _ in range(12):
        section = sections.nth(chosen.randrange(sections.count())).get_attribute("id")
        page.evaluate("id => { location.hash = id; }", section)
        watched.settle()
        inside = "[data-live=matrices]" if section == "live" else ""
        maps = f"#{section} {inside} figure.map, .first-screen figure.map"
        figures = page.query_selector_all(maps)
        for figure in chosen.choices(figures, k=5):
            rows, columns = figure.evaluate(
                "one => [one.map.values.length, one.map.values[0].length]"
            )
            at = [chosen.randrange(rows), chosen.randrange(columns)]
            number = choose_cell(page, figure, *at)
            if number is None:
                continue
            if pace == "slow":
                watched.settle()
            if fault := page.evaluate(FAULT, [figure, number]):
                faults.append((section, at, fault))
    assert faults == [], f"seed {seed}"
    assert not watched.is_wider_than_the_screen()
    assert watched.violations() == []


def test_enter_opens_an_origin_and_buttons_move_through_its_history(watched):
    page = watched.page
    page.evaluate("() => { location.hash = 'section-5'; }")
    watched.settle()
    grid = page.locator("#section-5 figure.map .grid").last
    grid.evaluate("one => { const fold = one.closest('details'); if (fold) fold.open = true; }")
    grid.focus()
    page.keyboard.press("Enter")
    origin = page.locator("#section-5 figure.map [data-live=origin]")
    titles = [origin.locator("h3").inner_text()]
    while len(titles) < 4:
        origin.locator("button.number").first.click()
        titles.append(origin.locator("h3").inner_text())
    for name, order in (("← previous number", titles[-2::-1]), ("next number →", titles[1:])):
        for title in order:
            page.get_by_role("button", name=name).click()
            assert origin.locator("h3").inner_text() == title
            assert page.evaluate("document.activeElement.dataset.live") == "origin"
        assert page.get_by_role("button", name=name).count() == 0
    page.locator("#first-sentence").fill("je suis")
    page.locator("[data-live=origin]").wait_for(state="hidden")


def test_the_last_number_of_every_map_has_an_origin(watched):
    """Includes masked maps and maps of a single row."""
    page = watched.page
    for section in page.evaluate(
        "[...document.querySelectorAll('section.drawn')].map(({ id }) => id)"
    ):
        page.evaluate("id => { location.hash = id; }", section)  # sections are drawn when shown
        watched.settle()
    found = page.evaluate(NUMBERS_OF_ALL_MAPS)
    assert len(found) > 100
    for expected, shown in found:
        assert shown is not None
        assert number(shown) == pytest.approx(expected, rel=1e-3, abs=6e-5)
