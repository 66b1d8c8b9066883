"""Figures of the page show the model's trace, and bars show the model's probabilities."""

import pytest
import torch
from support.walk import recorded_page

from model.config.transformer import DecodingConfig
from model.generation.search import greedy_search
from transloom.observe.explain import limits
from transloom.observe.explain.explanation import explain

SENTENCE = "elle sera journaliste demain"
NORMS = pytest.mark.parametrize("norm", ["post", "pre"])


def shows(figure, expected):
    """Assert that the figure's numbers equal `expected`; the figure has null for −∞."""
    found = [[float("-inf") if x is None else x for x in row] for row in figure["values"]]
    found = torch.tensor(found, dtype=torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@NORMS
def test_the_sections_have_the_order_of_the_forward_pass(translator_of, norm):
    explained = explain(translator_of(norm=norm), SENTENCE)
    names = recorded_page(explained).names
    assert names[:9] == [
        "Overview",
        "Pieces and ids",
        "Embedding",
        "Positions",
        "Layer 1: attention",
        "Layer 1: the rest",
        "Layer 2: attention",
        "Layer 2: the rest",
        "Memory",
    ]
    assert names[9:] == [
        *(
            f"{t}: {piece} → {chosen}"
            for t, (piece, chosen) in enumerate(
                zip(explained.target_input.texts, explained.chosen.texts, strict=True), start=1
            )
        ),
        "All steps in one pass",
        "Questions",
    ]
    assert names[-3].endswith("→ </s>")


@NORMS
def test_the_encoders_figures_show_the_tensors_of_the_trace(translator_of, norm):
    explained = explain(translator_of(norm=norm), SENTENCE)
    page = recorded_page(explained)
    pieces = list(explained.source.texts)
    encoder = explained.trace.encoder

    shows(page.sections[2].figure("embedding × √32"), encoder.embedding.scaled_btm[0])
    shows(page.sections[3].figure("+ positions"), encoder.embedding.positions_tm)
    shows(page.sections[3].figure("= input"), encoder.embedding.sum_btm[0])
    for layer, traced in enumerate(encoder.layers):
        attention, rest = page.sections[4 + 2 * layer], page.sections[5 + 2 * layer]
        for head in range(4):
            figure = attention.figure(f"head {head + 1}")
            shows(figure, traced.self_attention.weights_bhts[0, head])
            assert figure["rows"] == figure["columns"] == pieces
        queries = [data for caption, data in attention.figures if caption.startswith("queries")]
        shows(queries[2], traced.self_attention.queries_bhtd[0, 2])
        shows(attention.figure("output of"), traced.self_attention.output_btm[0])
        first, second = traced.self_attention_residual, traced.feed_forward_residual
        shows(rest.figure("input of the layer"), first.input_btm[0])
        shows(rest.figure("inner numbers"), traced.feed_forward.inner_btf[0])
        named = {
            name: [data for caption, data in rest.figures if caption.startswith(name)]
            for name in ("layer norm", "sum")
        }
        for figure, residual in zip(named["layer norm"], (first, second), strict=True):
            shows(figure, residual.normed_btm[0])
        for figure, residual in zip(named["sum"], (first, second), strict=True):
            shows(figure, residual.sum_btm[0])
    shows(page.sections[8].figure("memory"), encoder.output_btm[0])


@NORMS
def test_the_figures_of_each_step_show_its_row_of_the_trace(translator_of, norm):
    explained = explain(translator_of(norm=norm), SENTENCE)
    page = recorded_page(explained)
    decoder = explained.trace.decoder
    steps = page.sections[9:-2]
    assert len(steps) == len(explained.chosen.ids) > 2
    for t, step in enumerate(steps):
        parts = decoder.embedding
        entering = [parts.scaled_btm[0, t], parts.positions_tm[t], parts.sum_btm[0, t]]
        shows(step.figure(f"“{explained.target_input.texts[t]}” enters"), torch.stack(entering))
        for layer, traced in enumerate(decoder.layers):
            own = [data for c, data in step.figures if c.startswith("masked self-attention ")][
                layer
            ]
            shows(own, traced.self_attention.weights_bhts[0, :, t, : t + 1])
            assert own["columns"] == list(explained.target_input.texts[: t + 1])
            cross = [data for c, data in step.figures if c.startswith("cross-attention ")][layer]
            shows(cross, traced.cross_attention.weights_bhts[0, :, t])
            assert cross["columns"] == list(explained.source.texts)
            way = step.figure(f"Decoder layer {layer + 1}, the row")
            leaving = traced.feed_forward_residual.output_btm[0, t]
            shows({"values": way["values"][-1:]}, leaving[None])
        shows(step.figure("leaves the decoder"), decoder.output_btm[0, t : t + 1])

    (masked, across) = [data for c, data in page.sections[-2].figures if c.startswith("head 3")][2:]
    last = decoder.layers[-1]
    future = torch.ones(len(steps), len(steps), dtype=torch.bool).triu(1)
    own = last.self_attention.weights_bhts[0, 2].masked_fill(future, float("-inf"))
    shows(masked, own)
    shows(across, last.cross_attention.weights_bhts[0, 2])


@NORMS
def test_bars_show_the_models_probabilities_and_mark_greedy_choices(translator_of, norm):
    translator = translator_of(norm=norm, share_embeddings="none")
    explained = explain(translator, SENTENCE)
    model = translator.model
    source = torch.tensor([explained.source.ids])
    (found,) = greedy_search(model, source, translator.decoding)
    assert explained.chosen.ids == (*found.ids, model.vocabulary.eos_id)
    with torch.no_grad():
        hidden = model.decode(
            torch.tensor([explained.target_input.ids]), model.encode(source), source
        )
        probabilities = model.logits(hidden)[0].softmax(dim=-1)
    for t, step in enumerate(recorded_page(explained).sections[9:-2]):
        shown = [probability for probability, _ in step.bars]
        assert shown[:8] == pytest.approx(probabilities[t].topk(8).values.tolist(), abs=1e-6)
        (chosen,) = [probability for probability, chosen in step.bars if chosen]
        assert chosen == pytest.approx(probabilities[t, explained.chosen.ids[t]].item(), abs=1e-6)


def test_the_page_says_that_the_length_limit_ended_the_translation(translator_of):
    translator = translator_of()
    translator.decoding = DecodingConfig(max_length_factor=0, max_extra_length=2)
    with torch.no_grad():
        translator.model.target_embedding.weight[translator.model.vocabulary.eos_id] = 0
    page = recorded_page(explain(translator, SENTENCE))
    assert "is the most probable piece" in page.sections[-4].text
    assert "reached its maximum length, so it ends here" in page.sections[-3].text


def test_an_empty_sentence_is_explained_as_eos_only(translator_of):
    explained = explain(translator_of(), "")
    assert explained.source.texts == ("</s>",)
    assert recorded_page(explained).sections[4].figure("head 1")["values"] == [[1.0]]


def test_a_page_cuts_large_models_and_long_sentences_and_says_so(translator_of, monkeypatch):
    monkeypatch.setattr(limits, "MAX_LAYERS", 2)
    monkeypatch.setattr(limits, "MAX_PIECES", 12)
    translator = translator_of(
        width=160, heads=20, feed_forward_width=200, encoder_layers=3, decoder_layers=4
    )
    explained = explain(translator, 4 * SENTENCE)
    sizes = len(explained.source.ids), len(explained.chosen.ids)
    assert min(sizes) > limits.MAX_PIECES
    page = recorded_page(explained)
    for cut in (
        "2 of 3 encoder layers",
        "2 of 4 decoder layers",
        "16 of 20 heads",
        "128 of 160 numbers of a vector",
        "128 of 200 inner numbers",
        f"12 of {sizes[0]} source pieces",
        f"12 of {sizes[1]} decoding steps",
    ):
        assert f"the first {cut}" in page.sections[0].text
    assert len(page.sections) == 4 + 2 * 2 + 1 + 12 + 2
    embedding = page.sections[2].figure("embedding × √160")
    shows(embedding, explained.trace.encoder.embedding.scaled_btm[0, :12, :128])
    for section in page.sections:
        for caption, data in section.figures:
            rows, columns = len(data["values"]), len(data["values"][0])
            assert rows <= max(16, limits.MAX_ATTENDED), caption
            assert columns <= 128, caption
            assert len(data["rows"]) == rows
            assert data["columns"] is None or len(data["columns"]) == columns
