"""The time-lapse and the training view in a browser, on screens of several widths."""

import pytest
from support.dashboard.browser import Watched

from model.config.transformer import DecodingConfig
from trainer.tasks.probing import probe
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live.panel import live_section
from transloom.observe.explain.time_lapse.section import section_of
from transloom.observe.explain.translation_page import translation_page

pytestmark = [pytest.mark.lab, pytest.mark.needs("browser")]

SENTENCES = ["je suis étudiant", "أنا طالب"]
STEPS = [0, 1, 2, 3, 4]
CHOSEN = "choice => choice.selectedOptions[0].textContent"
OUTPUT = "document.querySelector('[data-lapse=output]').textContent"


@pytest.fixture
def moments(translator_of):
    """Return probes by sentence; a separate network is probed for each step."""

    def probed(step, sentence):
        made = translator_of(seed=step)
        return probe(made.model, made.tokenizers[0], made.tokenizers[-1], sentence)

    return {s: [(f"step {step}", probed(step, s)) for step in STEPS] for s in SENTENCES}


@pytest.fixture(params=[(1280, "light"), (390, "dark"), (320, "light")], ids=str)
def watched(request, browser, moments, translator_of, tmp_path):
    translator = translator_of(dropout=0.1)
    translator.decoding = DecodingConfig(max_length_factor=0, max_extra_length=5)
    explained = explain(translator, SENTENCES[0])
    live = live_section(translator, SENTENCES[0], None)
    file = tmp_path / "page.html"
    file.write_text(
        translation_page(explained, "x", live, lapse=section_of(moments)), encoding="utf-8"
    )
    watched = Watched(browser, *request.param)
    watched.file, watched.lapse = file, f"{file.as_uri()}#time-lapse"
    yield watched
    watched.close()
    assert watched.complaints == []


def test_the_slider_shows_output_and_attention_of_each_step(watched, moments):
    page = watched.page
    page.goto(watched.lapse)
    assert page.locator("[data-lapse=sentence]").evaluate(CHOSEN) == SENTENCES[0]
    slider = page.get_by_label("Step of training", exact=True)
    words = [set(found.output.split()) for _, found in moments[SENTENCES[0]]]
    learned = [2 * len(some & words[-1]) >= len(words[-1]) for some in words]
    assert int(slider.input_value()) == learned.index(True)
    slider.press("Home")
    said = []
    for _ in STEPS:
        said.append(page.evaluate(OUTPUT))
        assert page.locator("[data-lapse=maps] figure").count() == 4
        slider.press("ArrowRight")
    assert said == [found.output for _, found in moments[SENTENCES[0]]]
    assert slider.input_value() == "4"
    assert not watched.is_wider_than_the_screen()
    assert watched.violations() == []


def test_sentence_attention_and_step_can_be_chosen(watched, moments):
    page = watched.page
    page.goto(watched.lapse)
    page.locator("[data-lapse=sentence]").select_option(index=1)
    page.locator("[data-lapse=place]").select_option("encoder.layers.0.self_attention")
    page.locator("[data-lapse=all] [data-at='3']:visible").click()
    found = moments[SENTENCES[1]][3][1]
    assert page.evaluate(OUTPUT) == found.output
    figure = page.evaluate("document.querySelector('[data-lapse=maps] figure').map")
    assert figure["rows"] == figure["columns"] == list(found.source)
    grid = page.locator("[data-lapse=maps] [role=grid]").first
    grid.focus()
    page.keyboard.press("ArrowRight")
    assert f"{found.source[0]}" in grid.locator(".visited").inner_text()
    player = page.locator(".lapse .player")
    player.get_by_text("Play").click()  # plays up to the last step and stops
    player.get_by_text("after step 4").wait_for()
    player.get_by_text("Play").wait_for()
    assert watched.violations() == []


def test_a_reference_changes_losses_and_draw_again_changes_the_mask(watched):
    page = watched.page
    page.goto(f"{watched.file.as_uri()}#live")
    page.locator("#live-reference").wait_for()
    table = page.locator("[data-live=training] table").first
    before = table.inner_text()
    page.locator("#live-reference").fill("i am a student")
    page.wait_for_function(
        "before => document.querySelector('[data-live=training] table').innerText !== before",
        arg=before,
    )
    before = table.inner_text()
    page.get_by_role("button", name="Draw again").click()
    page.get_by_text("seed 2").wait_for()
    assert table.inner_text() != before
    assert not watched.is_wider_than_the_screen()
    assert watched.violations() == []
