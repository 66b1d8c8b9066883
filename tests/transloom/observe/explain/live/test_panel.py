"""The live section of a page sends no network requests and runs only its own scripts."""

import base64
import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path

from support.explained_page import PageReader

from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live import packing
from transloom.observe.explain.live.panel import live_section
from transloom.observe.explain.page import PageSection
from transloom.observe.explain.translation_page import translation_page

HOSTILE = '</textarea></script><script>alert(1)</script> & {{model}} "x"'


def live_page(translator, sentence):
    live = live_section(translator, sentence, None)
    assert isinstance(live, PageSection)
    return translation_page(explain(translator, sentence), sentence, live)


def test_the_live_section_follows_the_figure_and_contains_the_model(translator_of):
    translator = translator_of()
    page = PageReader(live_page(translator, "je suis étudiant"))
    assert "Your sentence" in page.sections[1].text
    assert [a["id"] for tag, a in page.tags if tag == "section"] == ["section-1", "live"]
    ((_, walk),) = page.sections[0].figures
    assert walk["recorded"] is None  # the page's model computes the walk
    assert walk["places"] == [{"title": "Type your own sentence", "place": "live"}]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    ((_, model),) = page.sections[1].figures
    assert model["config"]["width"] == 32
    assert model.pop("sentence") == "je suis étudiant"
    assert model.pop("training")["label_smoothing"] == 0.1
    assert json.loads(json.dumps(packing.packed(translator))) == model


def test_only_hashed_scripts_may_run_and_they_send_no_requests(translator_of):
    text = live_page(translator_of(), HOSTILE)
    policy = re.search(r'content="(default-src[^"]+)"', text)[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 1
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
        script = script.replace('"http://www.w3.org/2000/svg"', "")  # a namespace, not a request
        assert not re.search(
            r"https?:|fetch\(|XMLHttp|import\(|eval\(|Function\(|innerHTML", script
        )
    script_policy = re.search("script-src ([^;]+)", policy)[1]
    assert "unsafe" not in script_policy
    assert policy.startswith("default-src 'none'")
    _, live = PageReader(text).sections
    assert HOSTILE not in live.text
    assert [data["sentence"] for _, data in live.figures] == [HOSTILE]


def test_live_section_says_why_a_model_cannot_run_in_a_page(translator_of, monkeypatch):
    monkeypatch.setattr(packing, "MOST_WEIGHTS", 10)
    assert "more than 10" in live_section(translator_of(), "je", None)


def test_a_model_with_exactly_the_maximum_weights_is_accepted(translator_of, monkeypatch):
    translator = translator_of()
    count = sum(weight.numel() for weight in translator.model.parameters())
    monkeypatch.setattr(packing, "MOST_WEIGHTS", count)
    assert isinstance(live_section(translator, "je", None), PageSection)
    monkeypatch.setattr(packing, "MOST_WEIGHTS", count - 1)
    said = live_section(translator, "je", None)
    assert said == f"it has {count:,} weights, more than {count - 1:,}"


def test_the_documentation_names_the_maximum_number_of_weights():
    document = Path(__file__).parents[5] / "docs" / "how-to" / "looking-inside.md"
    (said,) = re.findall(r"networks of up to (\d+) million\s+weights", document.read_text("utf-8"))
    assert int(said) * 1_000_000 == packing.MOST_WEIGHTS


def test_the_page_contains_recorded_results_for_a_too_long_sentence(translator_of):
    script = files("transloom.observe.explain") / "live/page/computing.js"
    assert f"MOST_PIECES = {packing.MOST_PIECES};" in script.read_text(encoding="utf-8")
    translator = translator_of()
    for sentence, is_recorded in (("je", False), ("je " * packing.MOST_PIECES, True)):
        page = PageReader(live_page(translator, sentence))
        ((_, walk),) = page.sections[0].figures
        assert (walk["recorded"] is not None) == is_recorded
