"""The page of `transloom serve` in a browser, and its API documentation."""

from contextlib import closing

import pytest
from support.dashboard.browser import Watched
from support.recipes import SHORT_TRANSLATIONS, tiny_values, write_yaml
from support.runs import Runs
from support.serving.running import RunningServer

from cluster.recipe import Recipe
from data_pipeline.preparation.prepare import prepare
from transloom.inference.translator import Translator

pytestmark = pytest.mark.needs("browser")

SCREENS = [(w, s) for w in (390, 1280) for s in ("light", "dark")]
TEXT = "je suis étudiant\nelle est là"


def served(folder, dataset, **languages):
    """Train a run until it writes words, and return its folder."""
    values = tiny_values(dataset) | {"decoding": SHORT_TRANSLATIONS}
    values["data"] |= languages
    if not dataset.exists():
        prepare(Recipe.of(values).data_settings, lambda progress: None)
    write_yaml(folder / "tiny.yaml", values)
    Runs(folder / "tiny.yaml", folder, "").train("phrases", "trainer.max_steps=200", inline=True)
    return folder / "phrases"


@pytest.fixture(scope="module")
def run(tmp_path_factory, phrasebook):
    return served(tmp_path_factory.mktemp("served"), phrasebook)


@pytest.fixture(scope="module")
def server(run):
    with RunningServer(run) as server:
        yield server


def opened(watched, server, path="/"):
    watched.page.goto(server.address + path)
    return watched.page


def assert_nothing_is_wrong(watched, server):
    assert watched.violations() == []
    assert not watched.is_wider_than_the_screen()
    assert watched.complaints == []
    assert [url for url in watched.asked if not url.startswith(server.address)] == []


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_typed_text_is_translated(browser, server, run, width, scheme):
    with closing(Watched(browser, width, scheme)) as watched:
        page = opened(watched, server)
        page.get_by_role("textbox", name="Source (fr)").fill(TEXT)
        pairs = page.locator("#pairs > li")
        pairs.nth(1).wait_for()
        expected = Translator.load(run).translate(TEXT.split("\n"))
        shown = [" ".join(one.split()) for one in pairs.locator(".best").all_inner_texts()]
        assert shown == [" ".join(one.split()) for one in expected]
        page.get_by_label("Translations").select_option("3")
        page.locator(".others li").nth(3).wait_for()
        assert_nothing_is_wrong(watched, server)


def test_aligned_words_are_marked_by_pointer_and_by_keyboard(browser, server):
    with closing(Watched(browser)) as watched:
        page = opened(watched, server)
        asked = server.translate({"sentences": ["je suis étudiant"], "alignments": True})
        best = asked.json["translations"][0][0]
        first = [source for source, target in best["alignment"] if target == 0]
        page.get_by_role("textbox", name="Source (fr)").fill("je suis étudiant")
        page.locator(".best .word").first.hover()
        marked = page.locator(".source .word.marked")
        assert marked.count() == len(first)
        words = ["je", "suis", "étudiant"]
        page.mouse.move(0, 0)
        assert page.locator(".marked").count() == 0
        page.locator("#pairs > li > [role=group]").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator(".best .word.marked").count() == 1
        said = page.locator("#said").inner_text()
        assert said.endswith(" ".join(words[n] for n in first) or "no word")


def test_a_problem_is_shown_until_the_text_is_corrected(browser, server):
    with closing(Watched(browser)) as watched:
        page = opened(watched, server)
        page.get_by_role("textbox", name="Source (fr)").fill("mot " * 900)
        page.locator("#said.problem", has_text="split the sentence").wait_for()
        watched.complaints.clear()  # the browser's message about the HTTP status
        page.get_by_role("textbox", name="Source (fr)").fill("elle est là")
        page.locator("#pairs > li").wait_for()
        page.locator("#said:not(.problem)").wait_for(state="attached")
        assert_nothing_is_wrong(watched, server)


def test_right_to_left_languages_are_shown_from_right_to_left(browser, tmp_path):
    languages = {"source_language": "ar", "target_language": "he"}
    run = served(tmp_path, tmp_path / "dataset", **languages)
    with RunningServer(run) as server, closing(Watched(browser)) as watched:
        page = opened(watched, server)
        page.get_by_role("textbox", name="Source (ar)").fill("elle est là")
        page.locator("#pairs > li").wait_for()
        assert page.locator("#source").get_attribute("dir") == "rtl"
        assert page.locator(".best").get_attribute("dir") == "rtl"
        assert page.locator(".best").get_attribute("lang") == "he"
        assert_nothing_is_wrong(watched, server)


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_the_api_documentation_is_shown(browser, server, width, scheme):
    with closing(Watched(browser, width, scheme)) as watched:
        page = opened(watched, server, "/docs")
        page.get_by_role("heading", name="POST /translate", exact=True).wait_for()
        page.get_by_role("link", name="TranslateRequest").first.click()
        assert_nothing_is_wrong(watched, server)
