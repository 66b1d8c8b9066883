"""Figures of a page stay visible when the system forces colours."""

import io
from contextlib import closing

import pytest
from PIL import Image
from support.dashboard.browser import Watched

from model.config.transformer import DecodingConfig
from transloom.inference.translator import Translator
from transloom.observe.explain.compare.section import compare_section
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live.panel import live_section
from transloom.observe.explain.translation_page import translation_page

pytestmark = [pytest.mark.lab, pytest.mark.needs("browser")]

SENTENCE = "je 漢 suis étudiant"
PRODUCT = "encoder.layers.0.self_attention.scores_hts"  # its origin is drawn
# Elements whose colours have a meaning, keyed by section.
PICTURES = {
    "#section-1": ("svg.blueprint.wide",),
    "#section-4": ("section.here figure.map canvas",),
    "#live": (".small-map", ".shapes svg"),
    "#compare": (".track",),
}


@pytest.fixture(scope="module")
def address(untrained_run, tmp_path_factory):
    translators = [Translator.load(untrained_run.path, step) for step in (2, 1)]
    for one in translators:
        one.decoding = DecodingConfig(max_length_factor=0, max_extra_length=4)
    live = live_section(translators[0], SENTENCE, None)
    compare, _ = compare_section(translators, ("2", "1"), SENTENCE, None, live)
    explained = explain(translators[0], SENTENCE)
    file = tmp_path_factory.mktemp("page") / "explain.html"
    file.write_text(translation_page(explained, "a title", live, compare), encoding="utf-8")
    return file.as_uri()


def luminance(rgb):
    shares = [round(part) / 255 for part in rgb]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def opened(watched, address, place):
    watched.page.goto(f"{address}{place}")
    watched.page.locator(f"{place}.here").wait_for()
    if place == "#live":
        watched.page.locator("[data-live=places]").select_option(PRODUCT)
        watched.page.locator("[data-live=matrices] .grid").first.press("Enter")
        watched.page.locator(".shapes svg").first.wait_for()
    return watched.page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_meaningful_parts_stay_visible_with_forced_colours(browser, address, scheme):
    with closing(Watched(browser, 1280, scheme, forced="active")) as watched:
        for place, pictures in PICTURES.items():
            page = opened(watched, address, place)
            for picture in pictures:
                shown = Image.open(io.BytesIO(page.locator(picture).first.screenshot()))
                colours = shown.convert("RGB").getcolors(maxcolors=1 << 20)
                ground = page_ground(page)
                seen = max(contrast(ground, other) for n, other in colours if n > 3)
                assert seen > 1.3, (place, picture, colours[:5])
                assert len(colours) > 2, (place, picture, colours)  # not only a frame
            assert watched.violations() == [], place
        assert page.locator("#compare td.share").first.inner_text().endswith("%")
        assert watched.complaints == []


def page_ground(page):
    """Return the background colour of the page."""
    corner = page.screenshot(clip={"x": 1270, "y": 450, "width": 4, "height": 4})
    return Image.open(io.BytesIO(corner)).convert("RGB").getpixel((1, 1))
