"""Pages with a model of each family in Node: what a user does, and what the page then shows."""

import json
from pathlib import Path

import pytest
from support.large_weights import make_weights_large
from support.node_program import run_node
from torch import Tensor

from model.config.transformer import DecodingConfig
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live.panel import live_section, live_text
from transloom.observe.explain.text.text_explanation import explain_continuing, explain_filling
from transloom.observe.explain.text.text_page import text_page
from transloom.observe.explain.translation_page import translation_page

EXPLAIN = {"translator": explain, "generator": explain_continuing, "filler": explain_filling}
LLAMA = {
    "positions": "rotary",
    "norm_kind": "rms",
    "activation": "swiglu",
    "key_value_heads": 2,
    "norm": "pre",
    "share_embeddings": "none",
}
# The program that uses each page, and the page's model and text.
PAGES = {
    "translation": (
        "translator",
        {"dropout": 0.3, "attention_dropout": 0.2},
        "l'horloge est verte",
    ),
    "newer_translation": ("translator", LLAMA, "je suis"),
    "continuation": ("generator", {"preset": "gpt2"}, "the cat"),
    "newer_continuation": ("generator", {"preset": "llama", "key_value_heads": 2}, "the cat"),
    "filling": ("filler", {"preset": "bert"}, "the [MASK] is[MASK] ||| a [MASK]"),
    "newer_filling": ("filler", {"norm": "pre", "segments": 0}, "the [MASK] is[MASK]"),
}


def plain(one):
    return one.tolist() if isinstance(one, Tensor) else getattr(one, "__dict__", None)


@pytest.mark.parametrize("program", PAGES)
def test_a_page_shows_its_models_numbers_and_follows_its_user(program, request, tmp_path):
    kind, form, text = PAGES[program]
    build = request.getfixturevalue(f"{kind}_of")
    if kind == "translator":
        made = build(output_bias=True, **form)
        make_weights_large(made.model, 6)
        made.decoding = DecodingConfig(beam_size=3, max_length_factor=0.25, max_extra_length=4)
        page_of, live = translation_page, live_section(made, text, None)
    else:
        made = build(**form)
        made.pairs = "|||" in text
        page_of, live = text_page, live_text(made, text)
    explained = EXPLAIN[kind](made, text)
    files = tmp_path / "page.html", tmp_path / "explained.json"
    files[0].write_text(page_of(explained, text, live), encoding="utf-8")
    numbers = json.dumps(explained, default=plain).replace("-Infinity", "null")
    files[1].write_text(numbers, encoding="utf-8")
    run_node(Path(__file__).with_name(f"{program}.mjs"), *files)
