"""The page of `transloom explain` in Chromium, at three widths: input, questions and switches."""

import json
import re

import pytest
from support.dashboard.browser import Watched, chromium

from transloom.inference.translator import Translator
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live.panel import live_section
from transloom.observe.explain.translation_page import translation_page

pytestmark = pytest.mark.needs("browser")

SENTENCE = "l'horloge est verte"
OTHER = "elle est à l'école 日本"
ARABIC = "أنا طالب"


@pytest.fixture(scope="module")
def translator(one_rank):
    return Translator.load(one_rank.folder / "one-rank")


@pytest.fixture(scope="module")
def file(translator, tmp_path_factory):
    live = live_section(translator, SENTENCE, None)
    page = translation_page(explain(translator, SENTENCE), SENTENCE, live)
    path = tmp_path_factory.mktemp("live") / "explain.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(params=[(1280, "light"), (390, "dark"), (320, "light")], ids=str)
def watched(request, file):
    with chromium() as browser:
        watched = Watched(browser, *request.param)
        watched.page.goto(f"{file.as_uri()}#live")
        watched.page.locator("[data-live=matrices] figure").first.wait_for()
        watched.settle()
        yield watched
        assert watched.complaints == []
        assert [address.split("#")[0] for address in watched.asked] == [file.as_uri()]


def test_results_for_typed_sentences_equal_those_of_the_model(watched, translator):
    page = watched.page
    for sentence in (OTHER, ARABIC, "", "je suis"):
        page.locator("#first-sentence").fill(sentence)
        found = translator.source_pieces(translator.source_ids(sentence))
        page.wait_for_function(
            """pieces => {
                const shown = document.querySelectorAll("[data-live=pieces] b");
                return JSON.stringify([...shown].map((b) => b.innerText)) === pieces;
            }""",
            arg=json.dumps(found, ensure_ascii=False, separators=(",", ":")),
        )
        watched.settle()
        explained = explain(translator, sentence)
        shown = page.locator("[data-first=made]").inner_text()
        assert shown == (explained.translation or "(nothing)")
        assert page.locator("[data-live=steps] tbody tr").count() == len(explained.chosen.ids)
        assert not watched.is_wider_than_the_screen()
    assert watched.violations() == []


def test_a_sentence_that_is_too_long_dims_the_previous_results(watched):
    page, body = watched.page, watched.page.locator("[data-live=body]")
    state = page.locator("[data-first=state]")
    page.locator("#first-sentence").fill("漢字 " * 200)
    state.get_by_text("the page takes 128").wait_for()
    said = state.inner_text()
    assert re.search(r"These are \d{3} pieces", said)
    assert "shorten the sentence" in said
    assert SENTENCE in said  # the sentence of the dimmed results
    page.wait_for_function("() => getComputedStyle(document.querySelector('.stale')).opacity < 0.5")
    assert body.get_attribute("class") == "stale"
    page.locator("#first-sentence").fill(OTHER)
    page.locator("[data-first=state]", has_text="Computed in").wait_for()
    watched.settle()
    assert page.locator("#live .stale").count() == 0
    page.locator("#live-reference").fill("漢字 " * 200)
    page.get_by_text("shorten the reference").wait_for()
    assert page.locator("[data-live=training] .stale").count() == 3
    page.get_by_role("button", name="Take the model's own").click()
    watched.settle()
    assert page.locator("#live .stale").count() == 0


def test_a_sentence_typed_during_a_computation_replaces_the_one_before(watched):
    """A short sentence is typed right after the computation of a long one has begun."""
    watched.page.evaluate(
        """() => {
            const part = (name) => document.querySelector(`[data-live=${name}]`);
            const box = document.getElementById("first-sentence");
            const type = (text) => {
                box.value = text;
                box.dispatchEvent(new Event("input"));
            };
            window.shown = [];
            new MutationObserver(() => window.shown.push(part("pieces").children.length))
                .observe(part("pieces"), { childList: true });
            new MutationObserver((_, observer) => {
                observer.disconnect();
                setTimeout(() => type("je suis"));
            }).observe(document.querySelector("[data-first=state]"), { childList: true });
            type("est ".repeat(100));
        }"""
    )
    watched.page.wait_for_function("() => window.shown.length > 0")
    watched.settle()
    assert len(watched.page.evaluate("window.shown")) == 1  # not the long sentence's pieces
    assert watched.page.locator("[data-live=pieces] li").count() < 10


def test_a_number_is_traced_back_to_the_embedding_by_keyboard(watched):
    page = watched.page
    page.locator("[data-live=matrices] .grid").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    origin = page.locator("[data-live=origin]")
    seen = [origin.locator("h3").inner_text()]
    while origin.locator("button.number").count():
        page.keyboard.press("Tab")
        if not page.evaluate("document.activeElement.matches('button.number')"):
            continue
        page.keyboard.press("Enter")
        seen.append(origin.locator("h3").inner_text())
        assert len(seen) < 60
    assert "embedding × √width" in seen[-1] or "positions" in seen[-1]
    assert watched.violations() == []


def test_small_maps_show_all_heads_and_open_their_numbers(watched, translator):
    page, config = watched.page, translator.model.config
    small = page.locator("[data-live=small-maps] .small-maps button")
    layers = config.encoder_layers + 2 * config.decoder_layers
    assert small.count() == layers * config.heads
    small.first.click()
    watched.settle()
    key = "encoder.layers.0.self_attention.weights_hts"
    assert page.locator("[data-live=places]").input_value() == key
    page.locator("summary", has_text="As arcs").click()
    weights = page.locator("[data-live=matrices] figure").evaluate_all(
        "figures => figures.flatMap(({ map }) => map.values.flat())"
    )
    assert page.locator("path.arc").count() == sum(weight >= 0.02 for weight in weights)
    page.locator("[data-live=measure]").select_option("lengths")
    watched.settle()
    assert page.locator("[data-live=measure-scale]").inner_text() != "full colour: 1"
    page.locator("summary", has_text="Needed").click()
    page.locator("[data-live=needed] figure").nth(1).wait_for()
    steps = len(explain(translator, SENTENCE).chosen.ids)
    for needed in page.locator("[data-live=needed] figure").all():
        assert needed.evaluate("figure => figure.map.values.length") == steps
    lens = page.locator("[data-live=lens] tbody tr")
    assert lens.count() == steps
    assert not watched.is_wider_than_the_screen()
    assert watched.violations() == []


def test_a_model_with_parts_switched_off_is_shown_next_to_the_trained_one(watched):
    page = watched.page
    before = page.locator("[data-live=matrices] figure").count()
    page.locator("summary", has_text="Switches").click()
    page.get_by_label("positions are added").uncheck()
    page.get_by_text("With your changes:").wait_for()
    watched.settle()
    assert page.locator("[data-live=matrices] figure").count() == 2 * before
    assert page.locator("[data-live=steps] th", has_text="with your changes").count() == 1
    assert not watched.is_wider_than_the_screen()
    assert watched.violations() == []
    page.get_by_role("button", name="All on again").click()
    page.get_by_text("With your changes:").wait_for(state="detached")
    watched.settle()
    assert page.locator("[data-live=matrices] figure").count() == before


def test_keyboard_users_can_force_and_free_a_prefix_in_the_beam_search_tree(watched, translator):
    page = watched.page
    page.locator("#first-sentence").fill(OTHER)
    found = translator.translate_n_best([OTHER])[0]
    texts = [translator.target_text(one.ids) or "(nothing)" for one in found]
    first = page.locator("[data-live=found] tbody th")
    page.wait_for_function(
        "text => document.querySelector('[data-live=found] tbody th')?.innerText === text",
        arg=texts[0],
    )
    watched.settle()
    assert first.all_inner_texts() == texts
    assert watched.violations() == []
    assert not watched.is_wider_than_the_screen()

    page.locator("[data-live=tree] [tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    said = page.locator("[data-live=node-said]").inner_text()
    assert said.startswith("step 1, number 2 of ")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == said
    page.keyboard.press("Enter")
    page.get_by_text("Forced to begin with").wait_for()
    watched.settle()
    assert "forced" in page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert page.locator("[data-live=tree] .node.forced").count() == 1
    page.get_by_role("button", name="Free again").click()
    watched.settle()
    assert page.locator("[data-live=tree] .node.forced").count() == 0
    assert first.all_inner_texts() == texts

    page.locator("[data-live=beam-size]").fill("1")
    watched.settle()
    nodes = page.locator("[data-live=tree] .node")
    best, greedy = (nodes.and_(page.locator(f".{way}")).count() for way in ("best", "greedy"))
    assert best == greedy > 0
    assert first.count() == 1
    page.locator("[data-live=beam-size]").fill("")  # not a number: results stay
    assert first.count() == 1
    page.get_by_role("button", name="As in the recipe").click()
    watched.settle()
    assert first.all_inner_texts() == texts
