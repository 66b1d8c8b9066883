"""The comparison of two models in a browser: typed sentences, screen sizes, static pages."""

from contextlib import closing

import pytest
from support.dashboard.browser import Watched

from model.config.transformer import DecodingConfig
from transloom.inference.translator import Translator
from transloom.observe.explain.compare.comparison import compare
from transloom.observe.explain.compare.section import compare_section
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live.panel import live_section
from transloom.observe.explain.translation_page import translation_page

pytestmark = [pytest.mark.lab, pytest.mark.needs("browser")]

SENTENCE = "je suis étudiant"
OTHER = "elle 漢 est là"
NAMES = ("tiny@2", "tiny@1")
DECODING = DecodingConfig(max_length_factor=0, max_extra_length=5)


@pytest.fixture(scope="module")
def translators(untrained_run):
    found = [Translator.load(untrained_run.path, step) for step in (2, 1)]
    for one in found:
        one.decoding = DECODING
    return found


@pytest.fixture(scope="module", params=["live", "static"])
def address(request, translators, tmp_path_factory):
    live = live_section(translators[0], SENTENCE, None) if request.param == "live" else None
    section, _ = compare_section(translators, NAMES, SENTENCE, None, live)
    page = translation_page(explain(translators[0], SENTENCE), "a title", live, section)
    file = tmp_path_factory.mktemp("page") / f"{request.param}.html"
    file.write_text(page, encoding="utf-8")
    return file.as_uri()


def opened(watched, address):
    watched.page.goto(f"{address}#compare")
    watched.page.locator("[data-compare=maps] figure").nth(2).wait_for()
    if "live.html" in address:
        watched.page.locator("#first-sentence").wait_for()
    return watched.page


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark"), (320, "light")])
def test_two_models_are_shown_side_by_side(browser, address, translators, width, scheme):
    expected = compare(translators, NAMES, SENTENCE, None)
    with closing(Watched(browser, width, scheme)) as watched:
        page = opened(watched, address)
        shown = page.locator("[data-compare=translations] output").all_inner_texts()
        assert shown == [side.translation for side in expected.sides]
        steps = page.locator("[data-compare=steps] tbody tr")
        assert steps.count() == len(expected.sides[0].asked) + 1
        where = expected.parting.step
        said = "at the first step." if where == 0 else f"at step {where + 1}, after"
        assert page.inner_text("[data-compare=parting]").startswith(
            f"The translations diverge {said}"
        )
        page.locator("[data-compare=distances] .grid").focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
            page.keyboard.press(key)
        assert page.locator("[data-compare=head]").input_value() == "2"
        key = "encoder.layers.0.self_attention"
        assert page.locator("[data-compare=place]").input_value() == key
        scales = page.locator("[data-compare=maps] .scale").all_inner_texts()
        assert [scale.split(": ")[1][:6] for scale in scales] == ["0 to 1", "0 to 1", "±1.00,"]
        ours, theirs, less = (
            one.evaluate("figure => figure.map.values.flat()")
            for one in page.locator("[data-compare=maps] figure").all()
        )
        for a, b, difference in zip(ours, theirs, less, strict=True):
            assert difference == pytest.approx(b - a, abs=1e-6)
        assert not watched.is_wider_than_the_screen()
        assert watched.violations() == []
        assert watched.complaints == []
        assert [url.split("#")[0] for url in watched.asked] == [address]


def test_a_typed_sentence_is_translated_by_both_models(browser, address, translators):
    expected = compare(translators, NAMES, OTHER, None)
    with closing(Watched(browser)) as watched:
        page = opened(watched, address)
        typed = page.locator("#first-sentence")
        if "live.html" not in address:
            assert "the first model cannot run" in page.inner_text("#compare")
            return
        typed.fill(OTHER)
        page.get_by_text("Computed here by both models").wait_for()
        shown = page.locator("[data-compare=translations] output").all_inner_texts()
        assert shown == [side.translation or "(nothing)" for side in expected.sides]
        assert page.inner_text("[data-compare=read]") == OTHER
        shown = page.locator("[data-compare=maps] figure").first.evaluate("figure => figure.map")
        assert shown["columns"] == expected.sides[0].source
        typed.fill("je " * 200)
        page.locator("[data-compare=state]", has_text="the page takes 128").wait_for()
        page.evaluate("location.hash = 'section-2'")
        page.locator("#section-2.here").wait_for()
        typed.fill(SENTENCE)
        page.locator("nav a", has_text="Two models").click()
        page.locator("[data-compare=read]", has_text=SENTENCE).wait_for()
        assert watched.complaints == []


def test_a_browser_without_decompression_shows_recorded_results(browser, address, translators):
    expected = compare(translators, NAMES, SENTENCE, None)
    with closing(Watched(browser)) as watched:
        watched.page.add_init_script("delete window.DecompressionStream")
        watched.page.goto(f"{address}#compare")
        page = watched.page
        shown = page.locator("[data-compare=translations] output").all_inner_texts()
        assert shown == [side.translation for side in expected.sides]
        if "live.html" in address:
            page.locator("[data-compare=state]", has_text="cannot run the models").wait_for()
            page.locator(".first-screen", has_text="cannot run the model").wait_for()
        assert watched.complaints == []
