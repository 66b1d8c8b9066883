"""Pages of translation models with parts newer than those of the Transformer paper."""

import pytest
from support.walk import recorded_page

from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live.panel import live_section
from transloom.observe.explain.page import PageSection

NEWER = {
    "positions": "rotary",
    "norm_kind": "rms",
    "activation": "swiglu",
    "key_value_heads": 2,
    "norm": "pre",
}
SENTENCE = "je suis étudiant"


@pytest.fixture
def explained(translator_of):
    return explain(translator_of(**NEWER), SENTENCE)


def test_the_page_describes_only_the_parts_of_the_model(explained):
    page = recorded_page(explained)
    said = " ".join(section.text for section in page.sections)
    for words in (
        "RMS norm divides every row",
        "are then rotated by their position",
        "Groups of 2 heads share those of Wk and Wv",
        "multiplied number by number (SwiGLU)",
        "2 of keys and values",
        "Nothing is added to the embedding",
        "Why a gate between the linear layers?",
    ):
        assert words in said, words
    for words in ("ines and cosines", "ReLU", "mean 0 and standard deviation", "+ positions"):
        assert words not in said, words


def test_every_box_and_every_question_has_a_place_on_the_page(explained):
    page = recorded_page(explained)
    boxes = {box.key for box in explained.blueprint.boxes()}
    assert boxes <= set(page.places)
    assert {box for _, _, box in page.questions} <= boxes


def test_rotary_positions_change_only_the_text_about_positions(translator_of):
    def said(**settings):
        explained = explain(translator_of(**settings), SENTENCE)
        page = recorded_page(explained)
        return " ".join(section.text for section in page.sections)

    paper, turned = said(), said(positions="rotary")
    assert "ines and cosines" in paper
    assert "ines and cosines" not in turned
    for words in ("Layer normalisation brings every row", "x·W₁ + b₁", "columns of each matrix"):
        assert words in paper
        assert words in turned


def test_a_model_with_newer_parts_has_a_live_section(translator_of):
    assert isinstance(live_section(translator_of(**NEWER), SENTENCE, None), PageSection)
