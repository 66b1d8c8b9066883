"""The answers' numbers are the model's, worked out here by other code."""

import re

import pytest
import torch
from support.walk import recorded_page

from transloom.observe.explain.explanation import explain

SENTENCE = "elle sera journaliste demain"


@pytest.fixture(params=["post", "pre"])
def model_and_answers(request, translator_of):
    translator = translator_of(norm=request.param)
    explained = explain(translator, SENTENCE)
    return (
        translator.model,
        explained,
        {asked: answer for asked, answer, _ in recorded_page(explained).questions},
    )


def answer(answers, words):
    (found,) = [text for asked, text in answers.items() if words in asked]
    return found


def numbers(text):
    return [float(n.replace("−", "-").replace(",", "")) for n in re.findall(r"−?[\d,]*\.\d+", text)]


@torch.no_grad()
def test_numbers_are_those_of_the_model(model_and_answers):
    model, explained, answers = model_and_answers
    pieces, ids = explained.source.texts, explained.source.ids
    pre = model.config.norm == "pre"
    layer, width, d = model.encoder.layers[0], 32, 8
    row = model.target_embedding.weight[ids[0]] * width**0.5
    table = model.positions(0, len(ids))

    lengths = [(width / 2) ** 0.5, row.norm().item(), row.norm().item() / width**0.5]
    assert numbers(answer(answers, "embedding multiplied")) == pytest.approx(lengths, abs=0.0051)
    near = [(table[0] @ table[1]).item(), (table[0] @ table[-1]).item(), width / 2]
    assert numbers(answer(answers, "nearness")) == pytest.approx(near, abs=0.0051)

    x = (model.target_embedding.weight[list(ids)] * width**0.5 + table)[None]
    read = layer.self_attention_norm(x) if pre else x
    query, key, _ = layer.self_attention.query_key_value(read)[0].split(width, dim=1)
    products = (key[:, :d] @ query[0, :d]).double()
    weights, sharp = (products / d**0.5).softmax(0), products.softmax(0)
    top = int(weights.argmax())
    told = answer(answers, "divided by √8, and why a softmax")
    assert f"takes {weights[top]:.2f} from “{pieces[top]}”" in told
    expected = [d**0.5, weights[top].item(), sharp[top].item()]
    assert numbers(told) == pytest.approx(expected, abs=0.0051)
    assert f"looks most at “{pieces[top]}” in head 1" in answer(answers, "like convolutions")

    found = layer.self_attention(read, model.source_mask(torch.tensor([ids])))
    skip = [x[0, 0, 0].item(), found[0, 0, 0].item(), (x + found)[0, 0, 0].item()]
    assert numbers(answer(answers, "anything lost")) == pytest.approx(skip, abs=0.00051)
    total = x + found
    normed = layer.feed_forward_norm(total) if pre else layer.self_attention_norm(total)
    above = int((layer.feed_forward.inner(normed)[0, 0] > 0).sum())
    assert f"{above} of 48 are above zero" in answer(answers, "ReLU")

    memory = model.encode(torch.tensor([ids]))[0, 0]
    if not pre:  # otherwise the memory is the last layer's output after a norm
        cosine = torch.cosine_similarity(x[0, 0], memory, dim=0).item()
        assert numbers(answer(answers, "more abstract")) == pytest.approx([cosine], abs=0.0051)


@torch.no_grad()
def test_counts_and_shapes_are_those_of_the_model(model_and_answers):
    model, explained, answers = model_and_answers
    counts = [
        sum(p.numel() for p in part.parameters())
        for part in (model, model.encoder.layers, model.decoder.layers)
    ]
    told = re.findall(r"[\d,]{4,}", answer(answers, "How many weights"))
    found = [int(n.rstrip(",").replace(",", "")) for n in told]
    assert found == [*counts, counts[0] - counts[1] - counts[2]]
    one = sum(p.numel() for p in model.encoder.layers[1].parameters())
    assert f"each encoder layer has {one:,} parameters" in answer(answers, "share weights")
    s = len(explained.source.ids)
    assert f"K is 8 × {s}, and Q·Kᵀ is {s} × {s}" in answer(answers, "K transposed")
    steps = len(explained.chosen.ids)
    assert f"it takes {steps} steps here" in answer(answers, "decoding parallel")
    own = explained.trace.decoder.layers[0].self_attention.weights_bhts
    torch.testing.assert_close(own[0, :, 0, 0], torch.ones(4))  # "sees itself alone, with weight 1"
    row = model.target_embedding.weight.shape[0]
    assert f"{row:,} numbers, a 1 at place {explained.source.ids[0]} " in answer(answers, "one-hot")
    weights = explained.trace.decoder.layers[0].cross_attention.weights_bhts[0, 0, 0]
    top = int(weights.argmax())
    said = f"takes {weights[top]:.2f} from “{explained.source.texts[top]}”"
    assert said in answer(answers, "cross-attention")


@torch.no_grad()
def test_heads_joined_in_another_order_give_the_same_with_the_rows_of_wo(translator_of):
    """What the answer on the order of heads says, by doing it."""
    model = translator_of().model
    explained = explain(translator_of(), SENTENCE)
    traced = explained.trace.encoder.layers[0].self_attention
    output = model.encoder.layers[0].self_attention.output
    turned = traced.mix_bhtd[0].flip(0).transpose(0, 1).flatten(1)
    rows = output.weight.T.view(4, 8, 32).flip(0).flatten(0, 1)
    torch.testing.assert_close(turned @ rows + output.bias, traced.output_btm[0])


def test_each_answer_leads_to_a_place_of_the_page(model_and_answers):
    _, explained, answers = model_and_answers
    page = recorded_page(explained)
    links = re.findall(r'<a href="#box-([^"]+)">Where', page.html.rpartition("<section")[2])
    assert len(links) == len(answers) > 18
    assert set(links) <= set(page.places)
    assert all(text in page.sections[-1].text for text in answers.values())
    assert not any("nothing is lost" in text for text in answers.values())


def test_a_sentence_of_nothing_has_answers_too(translator_of):
    assert all(answer for _, answer, _ in recorded_page(explain(translator_of(), "")).questions)
