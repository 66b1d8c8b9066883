"""Sections made from live and recorded traces: the same document with the same numbers."""

import re
from collections import defaultdict
from dataclasses import fields, replace

import pytest
import torch
from support.walk import live_page, recorded_page

from transloom.observe.explain import limits
from transloom.observe.explain.explanation import TracedPieces, explain
from transloom.observe.explain.text.text_explanation import explain_continuing, explain_filling
from transloom.observe.explain.translation_page import section_count

SENTENCE = "elle sera journaliste demain"
NEWER = {"positions": "rotary", "norm_kind": "rms", "activation": "swiglu", "key_value_heads": 2}
TEXT = "the cat  漢 s"
HIDDEN = "the [MASK] is[MASK]"
HOSTILE = "<script>alert(\"x\")</script> & 'je' {{style}} </section> \\u003c"
# The tensors of a trace that a figure shows, by its caption.
TENSORS = {
    r"embedding( ×|$)|“.*” enters": "scaled positions sum",
    r"\+ positions": "positions",
    r"(= )?input of the first": "sum",
    r"head \d+$|weights|(masked self|cross)-attention$": "weights",
    r"queries|.*: query": "queries",
    r"keys|head \d+: keys|.*: key$": "keys",
    r"values|head \d+: values|.*: value$": "values",
    r"scores|.*: scores": "scores",
    r"mix|.*: mix": "mix",
    r"(layer normalisation|RMS norm)": "normed",
    r"sum: input": "sum",
    r"input of the layer": "input",
    r"output of|memory|leaves the decoder": "output",
    r"(feed-forward, )?inner numbers": "inner",
    r"Decoder layer \d+, the row": "input output sum normed",
}
DECIMAL = re.compile(r"(\d+\.\d+)")
UNSEEN = r"<script>.*?</script>| style=\"[^\"]*\""  # their numbers have all digits


def same_document(one, other):
    """Assert that names, texts and markup are equal, and numbers up to one in the last decimal."""
    assert one.names == other.names
    texts = [DECIMAL.split(re.sub(UNSEEN, "", page.html)) for page in (one, other)]
    assert texts[0][::2] == texts[1][::2]
    for first, second in zip(texts[0][1::2], texts[1][1::2], strict=True):
        decimals = len(first.partition(".")[2])
        assert abs(float(first) - float(second)) < 1.01 * 10**-decimals


def same_figures(one, other):
    """Assert that captions, labels and rounded numbers are equal; return the number of figures."""
    maps = [
        [figure for section in page.sections for figure in section.figures] for page in (one, other)
    ]
    assert [caption for caption, _ in maps[0]] == [caption for caption, _ in maps[1]]
    for (caption, first), (_, second) in zip(*maps, strict=True):
        assert first["rows"] == second["rows"], caption
        assert first["columns"] == second["columns"], caption
        values = [
            torch.tensor([[x if x is not None else float("-inf") for x in row] for row in rows])
            for rows in (first["values"], second["values"])
        ]
        largest = values[1].masked_fill(values[1].isinf(), 0).abs().max().item()
        torch.testing.assert_close(*values, rtol=0, atol=1e-5 * max(largest, 1), msg=caption)
    return len(maps[0])


def tensors_of(part, name=""):
    """Yield all tensors of a trace, each with its field's name without axes."""
    if isinstance(part, torch.Tensor):
        yield name.rpartition("_")[0], part.float()
    elif isinstance(part, tuple):
        for one in part:
            yield from tensors_of(one)
    else:
        for field in fields(part):
            yield from tensors_of(getattr(part, field.name), field.name)


@pytest.mark.parametrize("form", [{"norm": "post"}, {"norm": "pre"}, NEWER], ids=str)
def test_every_row_of_every_figure_comes_from_the_tensor_in_its_caption(translator_of, form):
    """Each row of a figure is the start of a row of a tensor that the caption names."""
    explained = explain(translator_of(**form), SENTENCE)
    rows = defaultdict(lambda: defaultdict(list))
    for stack in (explained.trace.encoder, explained.trace.decoder):
        for name, tensor in tensors_of(stack):
            for row in tensor.reshape(-1, tensor.shape[-1]):
                rows[name][row[0].item()].append(row)
    checked = 0
    for section in recorded_page(explained).sections:
        for caption, figure in section.figures:
            title = re.split(r" \d+ × \d+", caption)[0].strip()
            named = [names for pattern, names in TENSORS.items() if re.match(pattern, title)]
            assert named, caption
            for row in figure["values"]:
                found = torch.tensor([x for x in row if x is not None])
                candidates = [
                    one for name in named[0].split() for one in rows[name][found[0].item()]
                ]
                assert any(torch.equal(one[: len(found)], found) for one in candidates), caption
                checked += len(found)
    assert checked > 10_000


NEWER = {"positions": "rotary", "norm_kind": "rms", "activation": "swiglu", "key_value_heads": 2}


@pytest.mark.parametrize("form", [{}, {"norm": "pre"}, NEWER], ids=["post", "pre", "newer"])
def test_live_and_recorded_translations_give_the_same_page(translator_of, form):
    translator = translator_of(**form)
    live, recorded = (
        live_page(translator, SENTENCE),
        recorded_page(explain(translator, SENTENCE)),
    )
    same_document(live, recorded)
    assert same_figures(live, recorded) > 100
    assert live.places == recorded.places


FORMS = {
    "gpt2": {"preset": "gpt2"},
    "llama": {"preset": "llama", "key_value_heads": 2},
    "sines": {"positions": "sinusoidal", "norm_kind": "rms", "activation": "relu"},
}


@pytest.mark.parametrize("form", FORMS)
def test_live_and_recorded_continuations_give_the_same_page(generator_of, form):
    generator = generator_of(**FORMS[form])
    same_pages(live_page(generator, TEXT), recorded_page(explain_continuing(generator, TEXT)))


@pytest.mark.parametrize("form", [{"preset": "bert"}, {"activation": "gelu_tanh"}], ids=str)
def test_live_and_recorded_filled_texts_give_the_same_page(filler_of, form):
    filler = filler_of(**form)
    for text in (HIDDEN, "[MASK]a  漢 [MASK]"):
        same_pages(live_page(filler, text), recorded_page(explain_filling(filler, text)))


def same_pages(live, recorded):
    same_document(live, recorded)
    assert same_figures(live, recorded) > 60
    assert live.places == recorded.places


def test_live_and_recorded_pages_cut_a_large_model_in_the_same_way(translator_of, monkeypatch):
    for limit, value in {"LAYERS": 1, "HEADS": 2, "NUMBERS": 10, "PIECES": 4}.items():
        monkeypatch.setattr(limits, f"MAX_{limit}", value)
    translator = translator_of(encoder_layers=2)
    live, recorded = (
        live_page(translator, SENTENCE),
        recorded_page(explain(translator, SENTENCE)),
    )
    same_document(live, recorded)
    same_figures(live, recorded)


def test_section_count_equals_the_number_of_sections(translator_of):
    explained = explain(translator_of(), SENTENCE)
    page = recorded_page(explained)
    assert section_count(explained) == len(page.sections)
    ids = [a["id"] for tag, a in page.tags if tag == "section"]
    assert ids == [f"section-{n}" for n in range(1, len(ids) + 1)]


def test_texts_are_escaped_in_sections(translator_of):
    hostile = recorded_page(explain(translator_of(), HOSTILE))
    plain = recorded_page(explain(translator_of(), "je"))
    assert {tag for tag, _ in hostile.tags} == {tag for tag, _ in plain.tags}
    labels = {
        label
        for section in hostile.sections
        for _, data in section.figures
        for label in data["rows"]
    }
    assert any("<" in label for label in labels)


def test_pieces_are_read_in_the_direction_of_their_script(translator_of):
    explained = explain(translator_of(), "je suis")
    arabic = TracedPieces(explained.source.ids, ("▁أنا", "▁طالب", *explained.source.texts[2:]))
    page = recorded_page(replace(explained, source=arabic))
    pieces = page.html.split("<section")[2]
    assert '<div dir="rtl" class="row"><bdi class="token">▁أنا</bdi>' in pieces
    assert "“<bdi>▁أنا</bdi>”" in page.html
    assert 'dir="rtl"' not in recorded_page(explained).html


def test_special_pieces_do_not_determine_the_direction(translator_of, generator_of):
    explained = explain(translator_of(), "je suis")
    tagged = TracedPieces(explained.source.ids, ("<2en>", "▁أنا", *explained.source.texts[2:]))
    continued = recorded_page(explain_continuing(generator_of(), "أنا"))  # the text follows <s>
    for page in (recorded_page(replace(explained, source=tagged)), continued):
        assert 'dir="rtl" class="row"' in page.html.split("<section")[2]
        assert 'dir="rtl" class="pieces"' in page.html.split("<section")[1]
