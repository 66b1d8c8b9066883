"""The scripts of whole pages, run in Node: what they draw, and what a user's actions change."""

from pathlib import Path

import pytest
from support.node_program import run_node

from model.config.transformer import DecodingConfig
from trainer.tasks.probing import probe
from transloom.observe.explain.compare.section import compare_section
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live.panel import live_section
from transloom.observe.explain.text.text_explanation import explain_continuing, explain_filling
from transloom.observe.explain.text.text_page import text_page
from transloom.observe.explain.time_lapse.section import section_of
from transloom.observe.explain.translation_page import translation_page

SENTENCE = "l'horloge est verte"
NEWER = {"positions": "rotary", "norm_kind": "rms", "activation": "swiglu", "key_value_heads": 2}


@pytest.fixture
def pages(translator_of, generator_of, filler_of):
    """Return functions that build a page of each kind."""

    def translation(is_live, *forms):
        both = [translator_of(seed, share_embeddings="none", **f) for seed, f in enumerate(forms)]
        for one in both:
            one.decoding = DecodingConfig(max_length_factor=0, max_extra_length=5)
        live = live_section(both[0], SENTENCE, None) if is_live else None
        compared, _ = compare_section(both, ["one", "other"], SENTENCE, None, live)
        given = [(one.model, one.tokenizers[0], one.tokenizers[-1]) for one in both]
        lapse = {
            s: [(f"step {n}", probe(*one, s)) for n, one in enumerate(given * 2)]
            for s in (SENTENCE, "je")
        }
        return translation_page(explain(both[0], SENTENCE), "x", live, compared, section_of(lapse))

    def continued(**form):
        return text_page(explain_continuing(generator_of(**form), "the cat"), "x")

    def filled(**form):
        return text_page(explain_filling(filler_of(**form), "is [MASK] a [MASK]"), "x")

    return {
        "live": lambda: translation(True, {}, {}),
        "newer": lambda: translation(
            False, NEWER | {"norm": "pre"}, {"heads": 2, "decoder_layers": 1}
        ),
        "gpt2": lambda: continued(preset="gpt2"),
        "llama": lambda: continued(preset="llama", key_value_heads=2),
        "bert": lambda: filled(preset="bert"),
    }


PROGRAMS = {
    "live": "stepping drawn_parts typing comparing",
    "newer": "heat_maps arriving saving lapse side_by_side apart:equal apart:vocabularies "
    "apart:languages apart:later sections first_screen first_screen:still unpacking",
    "gpt2": "sections",
    "llama": "sections first_screen",
    "bert": "sections first_screen",
}


@pytest.mark.parametrize(
    ("page", "program"), [(page, one) for page, some in PROGRAMS.items() for one in some.split()]
)
def test_a_page_shows_its_numbers_and_follows_its_user(pages, tmp_path, page, program):
    (file := tmp_path / "page.html").write_text(pages[page](), encoding="utf-8")
    name, _, change = program.partition(":")
    run_node(Path(__file__).with_name(f"{name}.mjs"), file, Path(change))
