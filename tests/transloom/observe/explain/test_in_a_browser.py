"""The page of `transloom explain` and the model's figure in a browser, with all screen sizes."""

from contextlib import closing
from dataclasses import replace

import pytest
import torch
from support.dashboard.browser import Watched

from model.config.transformer import DecodingConfig, ModelConfig
from model.networks.transformer import Transformer
from transloom.inference.translator import Translator
from transloom.observe.explain.blueprint.drawing import svg_file
from transloom.observe.explain.explanation import TracedPieces, explain
from transloom.observe.explain.translation_page import translation_page

pytestmark = [pytest.mark.lab, pytest.mark.needs("browser")]

WIDTHS = (320, 390, 1280)
CONTRAST = 4.5
ACTIVE = "document.activeElement.getAttribute('aria-activedescendant')"
VISITED = f"document.getElementById({ACTIVE}).parentElement.textContent"
# The colours of ground and text of all cells with a visible number.
INKS = """() => {
  document.querySelectorAll('section').forEach((s) => s.classList.add('here'));
  const { groundOf, paint, paletteHere, readableOn, scaleOf } = modules["drawing/heat_map.js"];
  document.querySelectorAll("main > section").forEach((s) => s.draw?.());
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  return [...document.querySelectorAll('figure.map')].flatMap((figure) => {
    paint(figure);
    return figure.layout.writesNumbers ? figure.map.values.flat().filter((v) => v !== null)
      .map((v) => groundOf(paletteHere(), v, scaleOf(figure).full))
      .map((ground) => [ground, readableOn(ground)]) : [];
  });
}"""


@pytest.fixture(scope="module")
def explained(untrained_run):
    """Return the explanation of a sentence with an unknown piece by a network of random weights."""
    untrained = Translator.load(untrained_run.path)
    torch.manual_seed(0)
    config = ModelConfig(
        encoder_layers=2, decoder_layers=2, width=128, heads=4, feed_forward_width=256
    )
    model = Transformer(config, untrained.model.vocabulary)
    decoding = DecodingConfig(max_length_factor=0, max_extra_length=4)
    translator = Translator(model, untrained._tokenizers, decoding, untrained.checkpoint)
    return explain(translator, "je 漢字 suis étudiant")


@pytest.fixture(scope="module")
def address(explained, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "explain.html"
    file.write_text(translation_page(explained, "a title"), encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def watched(browser):
    with closing(Watched(browser)) as watched:
        yield watched
        assert watched.complaints == []


def opened(watched, address, section):
    watched.page.goto(f"{address}#section-{section}")
    watched.page.locator(f"#section-{section}.here").wait_for()
    return watched.page


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_section_fits_every_screen_without_axe_violations(browser, address, width, scheme):
    with closing(Watched(browser, width, scheme)) as watched:
        sections = opened(watched, address, 1).locator("main > section").count()
        for number in range(1, sections + 1):
            page = opened(watched, address, number)
            page.evaluate("document.querySelectorAll('details').forEach((f) => { f.open = true; })")
            assert not watched.is_wider_than_the_screen(), number
            strips = page.evaluate(  # only vectors with the narrowest clickable columns may scroll
                "[...document.querySelectorAll('section.here figure.map')].filter((f) =>"
                " f.map.columns === null && f.scrollWidth > f.clientWidth"
                " && f.layout?.cell.width > 3).length"
            )
            assert strips == 0, number
            if number in (1, 5, sections - 2, sections):
                assert watched.violations() == [], number
        assert watched.complaints == []
        assert [url for url in watched.asked if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_and_each_chosen_section_open_at_their_top(browser, address, width):
    with closing(Watched(browser, width)) as watched:
        page = watched.page
        page.goto(address)
        page.locator("#section-1.here").wait_for()
        last = page.locator("main > section").count()
        for number in (1, 2, last):
            if number > 1:
                page.evaluate("n => { location.hash = `section-${n}`; }", number)
                page.locator(f"#section-{number}.here").wait_for()
                top = page.locator(f"#section-{number}").bounding_box()["y"]
                header = page.locator("header").bounding_box()
                assert top == pytest.approx(max(0, header["y"] + header["height"]), abs=2), number
            else:
                assert page.evaluate("scrollY") == 0
        if width > 820:  # the list is next to the text and scrolls separately
            current, nav = (
                page.locator(css).bounding_box() for css in ("nav a[aria-current]", "nav")
            )
            assert nav["y"] <= current["y"]
            assert current["y"] + current["height"] <= nav["y"] + nav["height"] + 1
        assert watched.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_in_cells_have_enough_contrast(browser, address, scheme):
    def luminance(rgb):
        shares = [round(part) / 255 for part in rgb]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    with closing(Watched(browser, 1280, scheme)) as watched:
        cells = opened(watched, address, 5).evaluate(INKS)
    assert len(cells) > 100
    for ground, ink in cells:
        dark, light = sorted((luminance(ground), luminance(ink)))
        assert (light + 0.05) / (dark + 0.05) >= CONTRAST


def test_arrow_keys_move_within_the_focused_map(watched, address):
    page = opened(watched, address, 5)
    page.keyboard.press("ArrowRight")
    assert page.locator("#place").inner_text().startswith("5 of")
    while page.evaluate("document.activeElement.getAttribute('role')") != "grid":
        page.keyboard.press("Tab")
    data = page.evaluate("document.activeElement.closest('figure').map")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    rows, columns, values = data["rows"], data["columns"], data["values"]
    number = f"{values[1][1]:.4f}".replace("-", "−")
    assert page.evaluate(VISITED) == f"{rows[1]} → {columns[1]}: {number}"
    assert page.locator("#tip").inner_text() == f"{rows[1]} → {columns[1]}: {number}"
    page.keyboard.press("End")
    assert f" → {columns[-1]}: " in page.evaluate(VISITED)
    assert page.locator("#place").inner_text().startswith("5 of")


def test_a_box_opens_its_section_and_back_returns_to_the_figure(watched, address):
    page = opened(watched, address, 1)
    box = page.locator("svg.wide [data-box='decoder.2.feed_forward']")
    box.focus()
    page.keyboard.press("Enter")
    page.locator("section.here details[open]", has_text="feed-forward").wait_for()
    page.go_back()
    page.locator("#section-1.here").wait_for()
    page.locator("svg.wide [data-box='encoder.1.self_attention']").click()
    page.locator("h1", has_text="Encoder layer 1: self-attention").wait_for()
    page.get_by_role("button", name="Next").click()
    page.locator("#section-6.here").wait_for()
    page.go_back()
    page.locator("#section-5.here").wait_for()


def test_all_signed_maps_of_a_section_can_share_a_scale(watched, address):
    page = opened(watched, address, 4)
    said = page.locator("section.here .scale")
    assert len({*said.all_inner_texts()}) > 1
    assert all("of this map alone" in text for text in said.all_inner_texts())
    page.get_by_label("Colour scale of signed maps").select_option("shared")
    assert len({*said.all_inner_texts()}) == 1
    assert "of all such maps in this section" in said.first.inner_text()


def test_folded_parts_are_opened_for_printing(watched, address):
    page = opened(watched, address, 5)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    empty = "[...document.querySelectorAll('figure.map')].filter((f) => !f.layout).length"
    assert page.evaluate(empty) == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_figures_text_fits_in_its_boxes(browser, explained, tmp_path, scheme):
    file = tmp_path / "figure.svg"
    file.write_text(svg_file(explained.blueprint, each_layer=True), encoding="utf-8")
    with closing(Watched(browser, 1280, scheme)) as watched:
        watched.page.goto(file.as_uri())
        outside = watched.page.evaluate(
            "[...document.querySelectorAll('.box')].filter((box) => {"
            " const shape = box.firstElementChild.getBBox();"
            " return [...box.querySelectorAll('text')].some((text) => {"
            "  const t = text.getBBox();"
            "  return t.x < shape.x || t.x + t.width > shape.x + shape.width"
            "   || t.y + t.height > shape.y + shape.height + 4; }); }).length"
        )
        assert outside == 0
        watched.page.keyboard.press("Tab")
        assert watched.page.evaluate("document.activeElement.dataset.box") == "encoder.ids"
        assert watched.complaints == []


def test_arabic_pieces_are_placed_from_right_to_left(watched, explained, tmp_path):
    pieces = ("▁أنا", "▁طالب", "▁في", "</s>")
    arabic = replace(explained, source=TracedPieces(explained.source.ids[:4], pieces))
    file = tmp_path / "arabic.html"
    file.write_text(translation_page(arabic, "a title"), encoding="utf-8")
    page = opened(watched, file.as_uri(), 2)
    places = [token.bounding_box()["x"] for token in page.locator("#section-2 .token").all()]
    assert places == sorted(places, reverse=True)
    assert len(set(places)) == 4
