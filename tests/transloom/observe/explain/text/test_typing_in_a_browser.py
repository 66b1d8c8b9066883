"""Pages of a language model and a masked model in a browser: typed texts change the page."""

from contextlib import closing

import pytest
from support.dashboard.browser import Watched

from transloom.observe.explain.live.panel import live_text
from transloom.observe.explain.text.text_explanation import (
    STEPS,
    explain_continuing,
    explain_filling,
)
from transloom.observe.explain.text.text_page import text_page

pytestmark = [pytest.mark.lab, pytest.mark.needs("browser")]

WIDTHS = [360, 1280]
TYPED = "أنا طالب  漢"
HIDDEN = "is [MASK] a [MASK]"


@pytest.fixture
def continued(generator_of, tmp_path):
    generator = generator_of(preset="llama", key_value_heads=2)
    page = text_page(explain_continuing(generator, "the cat"), "x", live_text(generator, "the cat"))
    file = tmp_path / "continued.html"
    file.write_text(page, encoding="utf-8")
    return generator, file.as_uri()


def opened(watched, address):
    watched.page.goto(address)
    watched.page.get_by_text("The model is in this page").wait_for()
    return watched.page


def made(page):
    return page.locator("[data-first=made]").inner_text()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_continues_a_typed_text(browser, continued, width):
    generator, address = continued
    with closing(Watched(browser, width)) as watched:
        page = opened(watched, address)
        page.locator("#first-sentence").press_sequentially(" sat")
        expected = explain_continuing(generator, "the cat sat")
        page.locator("[data-flow=tokens]", has_text=f"{expected.given} pieces").wait_for()
        watched.settle()
        page.locator("#first-sentence").fill(TYPED)
        expected = explain_continuing(generator, TYPED)
        page.locator("[data-flow=tokens]", has_text=f"{expected.given} pieces").wait_for()
        watched.settle()
        assert page.locator("[data-first=made]").text_content() == expected.continuation
        assert page.locator("[data-flow=tokens] .pieces").get_attribute("dir") == "rtl"
        names = page.locator("nav a").all_text_contents()
        page.locator("nav a", has_text="Step by step").click()
        page.locator("section.here h1", has_text="The continuation").wait_for()
        steps = page.locator("section.here summary", has_text="→").all_text_contents()
        assert [step.split("→")[1].strip(" “”") for step in steps] == [
            piece.strip() for piece in expected.chosen.texts
        ]
        assert len(names) == page.locator("main > section").count()
        for name in names:
            page.locator("nav a", has_text=name).first.click()
            assert not watched.is_wider_than_the_screen(), name
            assert watched.violations() == [], name
        assert watched.complaints == []
        assert [one for one in watched.asked if not one.startswith("data:")] == [address]


@pytest.mark.parametrize("width", WIDTHS)
def test_sampling_settings_typed_in_the_page_give_the_text_of_generate(browser, continued, width):
    generator, address = continued
    with closing(Watched(browser, width)) as watched:
        page = opened(watched, address)
        page.locator("nav a", has_text="The next piece").click()
        temperature = page.get_by_label("Temperature")
        temperature.focus()
        page.keyboard.press("Control+A")
        page.keyboard.type("0.7")
        page.get_by_text("The number drawn in").first.wait_for()
        assert temperature.evaluate("node => node === document.activeElement")
        for name, value in (("top-k", "5"), ("top-p", "0.8")):
            page.get_by_label(name).fill(value)
        page.get_by_label("seed").select_option("3")
        page.get_by_text("The number drawn in").first.wait_for()
        watched.settle()
        changed = {"temperature": 0.7, "top_k": 5, "top_p": 0.8, "seed": 3, "max_new_tokens": STEPS}
        generator.sampling = generator.sampling.model_copy(update=changed)
        (expected,) = generator.generate(["the cat"])
        page.wait_for_function(
            "text => document.querySelector('[data-first=made]').textContent === text",
            arg=expected.text,
        )
        assert page.locator("section.here tr.marked").count() == 1
        page.get_by_label("Temperature").fill("")  # an empty value has no effect
        assert page.locator("[data-first=made]").text_content() == expected.text
        assert watched.violations() == []
        assert not watched.is_wider_than_the_screen()
        assert watched.complaints == []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fills_the_masks_of_a_typed_text(browser, filler_of, tmp_path, width):
    filler = filler_of(preset="bert")
    page = text_page(explain_filling(filler, "the [MASK]"), "x", live_text(filler, "the [MASK]"))
    file = tmp_path / "filled.html"
    file.write_text(page, encoding="utf-8")
    with closing(Watched(browser, width)) as watched:
        page = opened(watched, file.as_uri())
        box = page.locator("#first-sentence")
        box.fill(HIDDEN)
        page.locator("[data-flow=output]", has_text="for the first").wait_for()
        watched.settle()
        assert (
            page.locator("[data-first=made]").text_content()
            == explain_filling(filler, HIDDEN).filled
        )
        page.locator("nav a", has_text="What is hidden").click()
        assert page.locator("section.here table.bars").count() == 2
        assert watched.violations() == []
        page.go_back()
        box.fill("nothing is hidden")
        page.get_by_text("The dimmed results below are those of").wait_for()
        assert "[MASK]" in page.locator("[data-first=state]").inner_text()
        box.fill(HIDDEN)
        page.get_by_text("The model is in this page").wait_for()
        assert not watched.is_wider_than_the_screen()
        assert watched.complaints == []
