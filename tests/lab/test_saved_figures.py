"""Figures of the page of `transloom explain` saved in Chromium: content of the files."""

import csv
import io
import struct
from contextlib import closing
from xml.etree import ElementTree

import pytest
import torch
from support.dashboard.browser import Watched

from model.inspection.trace import trace
from transloom.inference.translator import Translator
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live.panel import live_section
from transloom.observe.explain.translation_page import translation_page

pytestmark = pytest.mark.needs("browser")

SENTENCE = "l'horloge est verte"
OTHER = "je suis étudiant"


@pytest.fixture(scope="module")
def explained(one_rank):
    return explain(Translator.load(one_rank.folder / "one-rank"), SENTENCE)


@pytest.fixture(scope="module")
def file(one_rank, explained, tmp_path_factory):
    translator = Translator.load(one_rank.folder / "one-rank")
    page = translation_page(explained, SENTENCE, live_section(translator, SENTENCE, None))
    path = tmp_path_factory.mktemp("saved") / "explain.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture
def opened(browser, file):
    with closing(Watched(browser, 1280, "dark")) as watched:
        watched.page.goto(file.as_uri())

        def at(place):
            watched.page.evaluate("place => { location.hash = place; }", place)
            watched.page.locator(f"#{place}.here").wait_for()
            return watched.page

        yield at
        assert watched.complaints == []
        asked = [one.split("#")[0] for one in watched.asked]
        assert {one for one in asked if not one.startswith(("data:", "blob:"))} == {file.as_uri()}


def saved(page, holder, kind):
    """Save the figure in `holder` by its buttons, and return the bytes of the file."""
    holder.evaluate("holder => holder.scrollIntoView()")  # only a figure in view has buttons
    menu = holder.locator("details.save").first
    if menu.get_attribute("open") is None:
        menu.locator("summary").press("Enter")
    with page.expect_download() as download:
        menu.get_by_role("button", name=kind).click()
    assert download.value.suggested_filename.endswith(f".{kind.lower()}")
    return download.value.path().read_bytes()


def rows(data):
    return list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))


def stands_alone(browser, data, tmp_path):
    """Check that a browser shows a dark SVG file without the page's styles; return its size."""
    root = ElementTree.fromstring(data)
    text = data.decode("utf-8")
    assert "var(" not in text
    assert "class=" not in text
    assert "#14161a" in text or "rgb(20, 22, 26)" in text  # the page's dark background
    path = tmp_path / "figure.svg"
    path.write_bytes(data)
    with closing(Watched(browser)) as watched:
        watched.page.goto(path.as_uri())
        assert watched.page.locator("svg :is(rect, path)").count() > 1
        assert watched.complaints == []
    return float(root.get("width")), float(root.get("height"))


def test_a_heat_map_is_saved_as_csv_svg_and_png(opened, browser, explained, tmp_path):
    page = opened("section-5")
    figure = page.locator("#section-5 figure.map").first
    head, *lines = rows(saved(page, figure, "CSV"))
    texts = explained.source.texts  # equal pieces are distinguished by their positions
    assert head == [
        "row",
        *(f"{text} ({n})" if texts.count(text) > 1 else text for n, text in enumerate(texts)),
    ]
    found = torch.tensor([[float(x) for x in line[1:]] for line in lines])
    weights = explained.trace.encoder.layers[0].self_attention.weights_bhts[0, 0]
    torch.testing.assert_close(found, weights, atol=5e-5, rtol=0)
    width, height = stands_alone(browser, saved(page, figure, "SVG"), tmp_path)
    png = saved(page, figure, "PNG")
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", png[16:24]) == pytest.approx((2 * width, 2 * height), abs=2)


def test_the_saved_blueprint_has_the_parameters_of_all_boxes(opened, browser, explained, tmp_path):
    page = opened("section-1")
    holder = page.locator("#section-1 [data-boxes]")
    _, *boxes, total = rows(saved(page, holder, "CSV"))
    assert [box[0] for box in boxes] == [box.key for box in explained.blueprint.boxes()]
    assert sum(int(box[3]) for box in boxes) == int(total[3]) == explained.blueprint.parameters
    stands_alone(browser, saved(page, holder, "SVG"), tmp_path)


def test_saved_figures_of_a_sentence_have_the_models_numbers(opened, browser, one_rank, tmp_path):
    translator = Translator.load(one_rank.folder / "one-rank")
    page = opened("live")
    page.locator("#first-sentence").fill(OTHER)
    piece = translator.source_pieces(translator.source_ids(OTHER))[0]
    page.locator("[data-live=pieces] b", has_text=piece).first.wait_for()
    explained = explain(translator, OTHER)
    read = torch.tensor([explained.target_input.ids])
    traced = trace(translator.model, torch.tensor([explained.source.ids]), read)
    crossed = traced.decoder.layers[0].cross_attention.weights_bhts[0]

    head, *lines = rows(saved(page, page.locator("[data-live=matrices] figure").first, "CSV"))
    texts = explained.source.texts  # equal pieces are distinguished by their positions
    assert head == [
        "row",
        *(f"{text} ({n})" if texts.count(text) > 1 else text for n, text in enumerate(texts)),
    ]
    found = torch.tensor([[float(x) for x in line[1:]] for line in lines])
    torch.testing.assert_close(found, crossed[0], atol=1e-6, rtol=1e-5)

    page.locator("summary", has_text="As arcs").click()
    _, *arcs = rows(saved(page, page.locator("[data-live=arcs-save]"), "CSV"))
    found = torch.tensor([float(line[3]) for line in arcs]).view(crossed.shape)
    torch.testing.assert_close(found, crossed, atol=1e-6, rtol=1e-5)

    small = page.locator("[data-live=small-maps] figure").last
    stands_alone(browser, saved(page, small, "SVG"), tmp_path)
    for place in ("arcs-save", "tree-save"):
        svg = saved(page, page.locator(f"[data-live={place}]"), "SVG")
        stands_alone(browser, svg, tmp_path)

    _, *nodes = rows(saved(page, page.locator("[data-live=tree-save]"), "CSV"))
    best = max(float(node[8]) for node in nodes if node[9] == "ended")
    assert best == pytest.approx(translator.translate_n_best([OTHER])[0][0].score, rel=1e-5)
