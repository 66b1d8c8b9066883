"""Pages of masked models and of language models: numbers and texts."""

import re
from html import escape

import pytest
import torch
from support.walk import recorded_page

from model.losses.loss import token_losses
from trainer.errors import TextError
from transloom.observe.explain import limits
from transloom.observe.explain.live.panel import live_text
from transloom.observe.explain.text.text_explanation import (
    STEPS,
    explain_continuing,
    explain_filling,
)
from transloom.observe.explain.text.text_page import (
    section_count,
    text_page,
)

pytestmark = pytest.mark.long

ENCODERS = {"bert": {"preset": "bert"}, "pre": {}, "relu": {"activation": "relu", "segments": 3}}
DECODERS = {
    "gpt2": {"preset": "gpt2"},
    "llama": {"preset": "llama", "key_value_heads": 2},
    "sines": {"positions": "sinusoidal", "norm_kind": "rms", "activation": "relu"},
}
HIDDEN = "the [MASK] is[MASK]"
HOSTILE = "<script>alert(1)</script> {{style}} [MASK]"


def boxes_without_a_place(explained):
    return {box.key for box in explained.blueprint.boxes()} - {*recorded_page(explained).places}


@pytest.fixture(params=list(ENCODERS))
def filled(request, filler_of):
    return explain_filling(filler_of(**ENCODERS[request.param]), HIDDEN)


@pytest.fixture(params=list(DECODERS))
def continued(request, generator_of):
    return explain_continuing(generator_of(**DECODERS[request.param]), "the cat")


def test_the_page_of_a_masked_text_shows_the_numbers_of_the_trace(filled):
    page = recorded_page(filled)
    assert len(page.sections) == 3 + 2 * 2 + 3
    states = page.sections[-3].figure("hidden states")
    torch.testing.assert_close(torch.tensor(states["values"]), filled.trace.stack.output_btm[0])
    assert states["rows"] == list(filled.pieces.texts)
    weights = page.sections[3].figure("head 2")["values"]
    attention = filled.trace.stack.layers[0].self_attention.weights_bhts[0, 1]
    torch.testing.assert_close(torch.tensor(weights), attention)
    assert section_count(filled) == len(page.sections)


def test_the_page_of_a_masked_text_shows_the_candidates_of_fill(filler_of):
    filler = filler_of(preset="bert")
    explained = explain_filling(filler, HIDDEN)
    (found,) = filler.fill([HIDDEN])
    assert explained.filled == found.filled
    bars = recorded_page(explained).sections[-2].bars
    chosen = [probability for probability, is_chosen in bars if is_chosen]
    assert chosen == pytest.approx([each[0].probability for each in found.masks], abs=1e-6)


def test_every_box_of_a_masked_models_figure_has_a_place_on_the_page(filled):
    assert not boxes_without_a_place(filled)


def test_every_box_of_a_language_models_figure_has_a_place_on_the_page(continued):
    assert not boxes_without_a_place(continued)


def test_the_page_shows_the_continuation_of_generate(generator_of):
    generator = generator_of(preset="gpt2")
    explained = explain_continuing(generator, "the cat")
    changed = {"temperature": 0, "max_new_tokens": STEPS}
    generator.sampling = generator.sampling.model_copy(update=changed)
    (found,) = generator.generate(["the cat"])
    assert explained.continuation == found.text
    bars = recorded_page(explained).sections[-3].bars
    product = sum(torch.tensor(probability).log().item() for probability, chosen in bars if chosen)
    assert product == pytest.approx(found.log_probability, abs=1e-3)


def test_the_page_shows_the_training_loss_of_the_text(continued, generator_of):
    tokens = torch.tensor([continued.pieces.ids[: continued.given]])
    form = next(form for form in DECODERS.values() if _has(continued.config, form))
    network = generator_of(**form).network
    part = torch.zeros(1, continued.given - 1, dtype=torch.int64)
    losses = network(tokens[:, :-1], tokens[:, 1:], part, token_losses)
    last = recorded_page(continued).sections[-2].text
    said = re.search(r"the mean is (\d+\.\d\d) nats", last)
    assert float(said[1]) == pytest.approx(losses.mean().item(), abs=0.006)


def _has(config, form):
    return all(getattr(config, name) == value for name, value in form.items())


def test_no_position_attends_to_later_tokens(continued):
    page = recorded_page(continued)
    values = page.sections[3].figure("head 1")["values"]
    for place, row in enumerate(values):
        assert all(value is not None for value in row[: place + 1])
        assert all(value is None for value in row[place + 1 :])


def test_the_page_describes_the_parts_of_its_network(generator_of):
    def said(**form):
        page = recorded_page(explain_continuing(generator_of(**form), "the cat"))
        return " ".join(section.text for section in page.sections)

    llama = said(**DECODERS["llama"])
    for words in (
        "RMS norm divides every row",
        "Groups of 2 heads share those of Wk and Wv",
        "rotated by their position",
        "gates the second",
        "mix·Wo.",
    ):
        assert words in llama, words
    gpt2 = said(**DECODERS["gpt2"])
    for words in (
        "Layer normalisation brings",
        "x·Wq + bq",
        "learned row of numbers",
        "mix·Wo + bo",
    ):
        assert words in gpt2, words
        assert words not in llama, words
    assert "sines and cosines" in said(**DECODERS["sines"])


def test_a_text_is_escaped_everywhere(filler_of):
    explained = explain_filling(filler_of(), HOSTILE)
    page = text_page(explained, HOSTILE)
    assert "<script>alert" not in page
    assert f'dir="auto">{escape(HOSTILE)}</span>' in page


def test_the_page_of_a_too_large_model_has_no_input_and_says_why(generator_of, monkeypatch):
    generator = generator_of()
    explained = explain_continuing(generator, "the cat")
    live = text_page(explained, "x", live_text(generator, "the cat"))
    assert "<textarea" in live
    assert '"recorded":null' in live
    monkeypatch.setattr("transloom.observe.explain.text.text_page.MOST_PIECES", 3)
    too_long = text_page(explained, "x", live_text(generator, "the cat"))
    assert '"recorded":{' in too_long  # the script cannot compute this text
    assert "<textarea" in too_long
    monkeypatch.setattr("transloom.observe.explain.live.packing.MOST_WEIGHTS", 10)
    page = text_page(explained, "x", live_text(generator, "the cat"))
    count = sum(weight.numel() for weight in generator.network.parameters())
    assert f"This page shows only this text: it has {count:,} weights, more than 10." in page
    assert "<textarea" not in page
    assert '"recorded":{' in page


def test_layers_and_pieces_beyond_the_limits_are_cut_and_named(generator_of, monkeypatch):
    monkeypatch.setattr(limits, "MAX_LAYERS", 1)
    monkeypatch.setattr(limits, "MAX_PIECES", 6)
    explained = explain_continuing(generator_of(), "the cat sat")
    page = recorded_page(explained)
    assert "the first 1 of 2 layers" in page.sections[0].text
    assert len(page.sections) == section_count(explained) == 3 + 2 + 4
    assert len(page.sections[2].figure("embedding")["values"]) == 6


def test_texts_that_cannot_be_explained_are_refused(filler_of, generator_of):
    with pytest.raises(TextError, match="no \\[MASK\\]"):
        explain_filling(filler_of(), "the cat")
    with pytest.raises(TextError, match=r"has 29 tokens .* at most 28"):
        explain_continuing(generator_of(), "a" * 28)
