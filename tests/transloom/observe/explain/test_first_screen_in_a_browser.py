"""The first screen in a browser: visible without scrolling, and updated for typed sentences."""

import csv
import re
from contextlib import closing
from xml.etree import ElementTree

import pytest
import torch
from support.dashboard.browser import Watched

from model.config.transformer import DecodingConfig
from transloom.inference.translator import Translator
from transloom.observe.explain.compare.section import compare_section
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live.panel import live_section, live_text
from transloom.observe.explain.text.text_explanation import explain_continuing, explain_filling
from transloom.observe.explain.text.text_page import text_page
from transloom.observe.explain.translation_page import translation_page

pytestmark = [pytest.mark.lab, pytest.mark.needs("browser")]

SIZES = [(1280, 800), (390, 844)]
SCHEMES = ["light", "dark"]
SENTENCE = "elle sera journaliste demain"
OTHER = "je 漢字 suis étudiant"
LONG = "le garçon n'est pas allé au parc ce matin, et " * 6
KINDS = ["live", "static", "long", "two", "masked", "continued"]
# Visible elements of the first screen, with their distances from the edges of the viewport.
PLACES = """() => [...document.querySelectorAll(
    '.first-screen [data-first=given], .first-screen textarea, .first-screen [data-first=made],'
    + '.first-screen [data-first=other], .flow-figure li')]
  .filter((one) => one.checkVisibility())
  .map((one) => {
    const { left, top, right, bottom } = one.getBoundingClientRect();
    const name = one.dataset.first ?? one.dataset.flow;
    return [name, left, top, innerWidth - right, innerHeight - bottom];
  })"""
CUT_OFF = """() => [...document.querySelectorAll('.flow-figure li > *')].filter((one) =>
  one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight).length"""


@pytest.fixture(scope="module")
def translators(untrained_run):
    found = [Translator.load(untrained_run.path, step) for step in (2, 1)]
    for one in found:
        one.decoding = DecodingConfig(max_length_factor=0, max_extra_length=8)
    return found


@pytest.fixture
def page_of_kind(translators, filler_of, generator_of, tmp_path):
    def write(kind):
        live = live_section(translators[0], SENTENCE, None) if kind in ("live", "two") else None
        compare = None
        if kind == "two":
            names = ("tiny@2", "another/run@average-of-1-2")
            compare, _ = compare_section(translators, names, SENTENCE, None, live)
        if kind == "masked":
            filler, text = filler_of(), "the cat is [MASK] on[MASK]"
            page = text_page(explain_filling(filler, text), "x", live_text(filler, text))
        elif kind == "continued":
            generator, text = generator_of(), "the cat"
            page = text_page(explain_continuing(generator, text), "x", live_text(generator, text))
        else:
            sentence = LONG if kind == "long" else SENTENCE
            page = translation_page(explain(translators[0], sentence), "a title", live, compare)
        file = tmp_path / f"{kind}.html"
        file.write_text(page, encoding="utf-8")
        return file.as_uri()

    return write


def opened(watched, address, height):
    page = watched.page
    page.set_viewport_size({"width": page.viewport_size["width"], "height": height})
    page.goto(address)
    page.locator("#section-1.here").wait_for()
    page.locator("#section-5").wait_for(state="attached")
    if not re.search("static|long", address):
        page.get_by_text("The model is in this page").wait_for()
        watched.settle()
    return page


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_screen_is_visible_without_scrolling(browser, page_of_kind, kind):
    address = page_of_kind(kind)
    for width, height in SIZES:
        for scheme in SCHEMES:
            with closing(Watched(browser, width, scheme)) as watched:
                page = opened(watched, address, height)
                assert page.evaluate("scrollY") == 0
                places = page.evaluate(PLACES)
                names = [name for name, *_ in places]
                box = "given" if kind in ("static", "long") else "sentence"
                assert names[:2] == [box, "made"]
                assert ("other" in names) == (kind == "two")
                for name, *distances in places:
                    assert min(distances) >= 0, (name, width, distances)
                assert page.evaluate(CUT_OFF) == 0, width
                assert not watched.is_wider_than_the_screen()
                assert watched.violations() == []
                assert watched.complaints == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [320, 1280])
def test_each_box_of_the_flow_links_to_a_section(browser, page_of_kind, kind, width):
    with closing(Watched(browser, width)) as watched:
        page = opened(watched, page_of_kind(kind), 800)
        links = page.locator(".flow-figure a")
        boxes = page.locator(".flow-figure li").count()
        assert links.count() == boxes == (5 if kind in ("masked", "continued") else 7)
        for number in range(boxes):
            links.nth(number).focus()
            page.keyboard.press("Enter")
            page.locator("section.here:not(#section-1)").wait_for()
            page.go_back()
            page.locator("#section-1.here").wait_for()
        assert watched.complaints == []


def test_the_tab_key_reaches_each_box_and_the_focus_is_visible(browser, page_of_kind):
    with closing(Watched(browser)) as watched:
        page = opened(watched, page_of_kind("live"), 800)
        page.locator("#first-sentence").focus()
        for example in page.locator("[data-first=examples] button").all():
            page.keyboard.press("Tab")
            assert example.evaluate("button => button === document.activeElement")
        for name in (
            "Tokens", "embedding", "Encoder", "memory", "Decoder", "hidden state", "Output",
        ):  # fmt: skip
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.innerText").startswith(name)
            style = page.evaluate(
                "(({outlineStyle, outlineWidth}) => [outlineStyle, outlineWidth])"
                "(getComputedStyle(document.activeElement))"
            )
            assert style == ["solid", "2px"]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_first_screen_shows_a_typed_sentence(browser, page_of_kind, translators, width):
    expected = explain(translators[0], OTHER)
    with closing(Watched(browser, width)) as watched:
        page = opened(watched, page_of_kind("two"), 844)
        before = page.locator(".flow-figure").inner_text()
        page.locator("#first-sentence").fill(OTHER)
        page.locator("[data-flow=tokens]", has_text="漢字").wait_for()
        watched.settle()
        pieces = page.locator("[data-flow=tokens] .pieces > *").all_inner_texts()
        source = expected.source.texts
        assert pieces == [*source[:5], "…", source[-1]]
        allowed = expected.trace.probabilities_btv[0, 0].clone()
        allowed[list(expected.never_chosen)] = 0
        best = expected.vocabulary[int(allowed.argmax())]
        assert page.locator("[data-flow=output] .token").inner_text() == best
        share = page.locator("[data-flow=output] b").inner_text()
        assert float(share.strip("<>% ")) == pytest.approx(100 * allowed.max().item(), abs=0.0101)
        assert page.locator("[data-first=made]").inner_text() == expected.translation
        assert page.locator("[data-first=other]").is_hidden()
        assert not watched.is_wider_than_the_screen()
        assert watched.violations() == []

        page.locator("#first-sentence").fill("漢 je " * 90)
        page.locator("[data-first=state]", has_text="shorten the sentence").wait_for()
        assert page.locator(".flow-figure.stale").count() == 1
        page.locator("#first-sentence").fill(SENTENCE)
        page.locator("[data-first=state]", has_text="type any sentence").wait_for()
        watched.settle()
        assert page.locator(".flow-figure").inner_text() == before
        assert page.locator("[data-first=other]").is_visible()
        assert watched.complaints == []


@pytest.mark.parametrize("width", [360, 1280])
def test_every_section_is_updated_for_a_typed_sentence(browser, page_of_kind, translators, width):
    """A box that is clicked right after typing opens the section with the new numbers."""
    expected = explain(translators[0], OTHER)
    with closing(Watched(browser, width)) as watched:
        page = opened(watched, page_of_kind("live"), 844)
        page.locator("#first-sentence").fill(OTHER)
        page.locator("[data-flow=memory] a").click()
        page.locator("section.here h1", has_text="The memory").wait_for()
        page.locator("nav a", has_text=f"1: <s> → {expected.chosen.texts[0]}").wait_for()
        watched.settle()
        assert page.evaluate("document.activeElement.matches('section.here')")
        figure = page.locator("section.here figure.map").first.evaluate("figure => figure.map")
        assert figure["rows"] == list(expected.source.texts)
        memory = expected.trace.encoder.output_btm[0]
        torch.testing.assert_close(torch.tensor(figure["values"]), memory, rtol=1e-4, atol=1e-5)
        steps = zip(expected.target_input.texts, expected.chosen.texts, strict=True)
        listed = page.locator("nav a").all_inner_texts()
        for n, (piece, chosen) in enumerate(steps, start=1):
            assert f"{n}: {piece} → {chosen}" in listed
        assert page.locator(".stale").count() == 0
        assert not watched.is_wider_than_the_screen()
        assert watched.violations() == []

        page.evaluate("location.hash = 'section-1'")
        page.locator("[data-first=examples] button", has_text=SENTENCE).click()
        page.locator("[data-flow=tokens]", has_text="demain").wait_for()
        watched.settle()
        first = explain(translators[0], SENTENCE)
        assert page.locator("[data-first=made]").inner_text() == first.translation
        page.locator("[data-flow=tokens] a").click()
        shown = page.locator("section.here table td:nth-child(2)").all_inner_texts()
        assert shown == list(first.source.texts)
        assert watched.complaints == []


def row_shown(page, row):
    return page.locator("[data-first=head-map] > figure").evaluate(
        "(figure, row) => figure.map.values[row]", row
    )


def test_a_row_of_a_head_is_computed_in_stages_in_the_map(browser, page_of_kind):
    """After the last stage the map is as before; first_screen.mjs compares the numbers of each."""
    with closing(Watched(browser, 390)) as watched:
        page = opened(watched, page_of_kind("live"), 844)
        page.locator("[data-first=head]").select_option(
            label="Decoder layer 1, self-attention, head 2"
        )
        page.get_by_label("One row, computed:").select_option(index=2)
        before = row_shown(page, 2)
        page.get_by_label("Stage", exact=True).press("Home")
        assert row_shown(page, 2) != before
        page.locator("[data-first=head-map]").get_by_text("Play").click()
        page.get_by_text("5 of 5, mix").wait_for()
        assert row_shown(page, 2) == before
        assert not watched.is_wider_than_the_screen()
        assert watched.violations() == []
        page.emulate_media(reduced_motion="reduce")
        page.reload()
        page.get_by_text("5 of 5, mix").wait_for(state="hidden")
        assert page.locator("[data-first=head-map] figure").count() == 6
        assert page.get_by_text("Play").filter(visible=True).count() == 0
        assert watched.violations() == []
        assert watched.complaints == []


def test_the_figure_is_saved_as_svg_png_and_csv(browser, page_of_kind, tmp_path):
    for width in (390, 1280):
        with closing(Watched(browser, width)) as watched:
            page = opened(watched, page_of_kind("live"), 800)
            page.locator("#first-sentence").fill("je 🐈 suis")
            page.locator("[data-flow=tokens]", has_text="🐈").wait_for()
            watched.settle()
            save = page.locator("[data-first=flow] > figcaption .save")
            save.locator("summary").click()
            saved = {}
            for kind in ("SVG", "PNG", "CSV"):
                with page.expect_download() as download:
                    save.get_by_role("button", name=kind).click()
                saved[kind] = tmp_path / f"{width}.{kind}"
                download.value.save_as(saved[kind])
            svg = ElementTree.parse(saved["SVG"]).getroot()
            texts = "".join("".join(svg.itertext()).split())  # each line is a text element
            for text in page.locator(".flow-figure li :is(strong, .token, b, .row i)").all():
                assert "".join(text.inner_text().split()) in texts
            assert float(svg.get("width")) < width
            # The map consists of shapes: labels, and a rectangle for each weight.
            head_map = page.locator("[data-first=head-map] > figure")
            labels = head_map.evaluate("({layout: l}) => [...l.rowLabels, ...l.columnLabels]")
            assert all("".join(label.split()) in texts for label in labels)
            assert len(svg.findall(".//{*}rect")) > (len(labels) / 2) ** 2
            assert svg.findall(".//{*}image") == []
            assert saved["PNG"].read_bytes().startswith(b"\x89PNG")
            rows = list(csv.reader(saved["CSV"].read_text(encoding="utf-8").splitlines()))
            cells = page.locator("[data-flow=memory] .row i").all_inner_texts()
            (memory,) = [row for row in rows if row[0] == "memory"]
            shown = [float(cell.replace("−", "-")) for cell in cells]
            assert shown == pytest.approx([float(number) for number in memory[2:5]], abs=0.00501)
            assert watched.complaints == []


def test_sections_are_reached_by_the_menu_and_the_skip_link(browser, page_of_kind):
    with closing(Watched(browser, 360)) as watched:
        page = opened(watched, page_of_kind("live"), 800)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "first-sentence"
        page.locator(".skip").press("Enter")
        assert page.locator("#section-1").evaluate("section => section === document.activeElement")
        menu = page.get_by_label("Section", exact=True)
        sections = page.locator("nav a:not(nav ol ol a)")  # parts are not in the menu
        assert menu.locator("option").all_inner_texts() == sections.all_inner_texts()
        menu.select_option(label="Memory")
        page.locator("section.here h1", has_text="The memory").wait_for()
        top = page.locator("section.here h1").evaluate("title => title.getBoundingClientRect().top")
        assert 0 <= top < 400
        page.go_back()
        page.locator("#section-1.here").wait_for()
        assert menu.evaluate("menu => menu.selectedOptions[0].textContent") == "Overview"
        assert watched.violations() == []
        assert watched.complaints == []


def test_the_browser_prints_all_sections_and_the_button_prints_one(browser, page_of_kind):
    with closing(Watched(browser)) as watched:
        page = opened(watched, page_of_kind("live"), 800)
        page.evaluate("location.hash = 'section-3'")
        page.locator("#section-3.here").wait_for()
        page.emulate_media(media="print")
        count = (
            "[...document.querySelectorAll('main > section')]"
            ".filter((section) => section.checkVisibility()).length"
        )
        assert page.evaluate(count) == page.locator("main > section").count()
        page.evaluate(f"window.print = () => {{ window.printed = {count} }}")
        page.locator("#print").evaluate("button => button.click()")
        assert page.evaluate("window.printed") == 1
        assert watched.complaints == []


def test_a_reader_without_scripts_sees_the_translation(browser, page_of_kind, translators):
    address = page_of_kind("live")
    context = browser.new_context(viewport={"width": 390, "height": 844}, java_script_enabled=False)
    with closing(context):
        page = context.new_page()
        page.goto(address)
        shown = page.locator(".first-screen").inner_text()
        assert SENTENCE in shown
        assert explain(translators[0], SENTENCE).translation in shown
        assert page.locator("#first-sentence").is_hidden()
        assert "scripts are disabled" in page.locator("#section-1").inner_text()
