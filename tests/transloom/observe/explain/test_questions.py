"""The numbers in the page's answers equal those of the model, computed here independently."""

import re

import pytest
import torch
from support.walk import recorded_page

from transloom.observe.explain.explanation import explain
from transloom.observe.explain.text.text_explanation import explain_continuing, explain_filling

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
def test_answers_have_the_models_numbers(model_and_answers):
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
    parts = [row[0].item(), table[0, 0].item(), x[0, 0, 0].item()]
    assert numbers(answer(answers, "first residual")) == pytest.approx(parts, abs=0.00051)
    joined = answer(answers, "forgotten permute")
    assert f"4 × {len(ids)} × 8 numbers to {len(ids)} × 4 × 8" in joined
    assert f"8 numbers of “{pieces[0]}”, then 8 of “{pieces[1]}”" in joined
    total = x + found
    normed = layer.feed_forward_norm(total) if pre else layer.self_attention_norm(total)
    above = int((layer.feed_forward.inner(normed)[0, 0] > 0).sum())
    assert f"{above} of 48 are above zero" in answer(answers, "ReLU")

    memory = model.encode(torch.tensor([ids]))[0, 0]
    if not pre:  # with pre-norm, the memory is normalized once more
        cosine = torch.cosine_similarity(x[0, 0], memory, dim=0).item()
        assert numbers(answer(answers, "more abstract")) == pytest.approx([cosine], abs=0.0051)


@torch.no_grad()
def test_answers_have_the_models_counts_and_shapes(model_and_answers):
    model, explained, answers = model_and_answers
    counts = [
        sum(p.numel() for p in part.parameters())
        for part in (model, model.encoder.layers, model.decoder.layers)
    ]
    told = re.findall(r"[\d,]{4,}", answer(answers, "How many weights"))
    found = [int(n.rstrip(",").replace(",", "")) for n in told]
    assert found == [*counts, counts[0] - counts[1] - counts[2]]
    one = sum(p.numel() for p in model.encoder.layers[1].parameters())
    assert f"each layer of the encoder has {one:,} parameters" in answer(answers, "share weights")
    s = len(explained.source.ids)
    assert f"K is 8 × {s}, and Q·Kᵀ is {s} × {s}" in answer(answers, "K transposed")
    assert f"Each of the {s} rows has 32 numbers" in answer(answers, "size change")
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
def test_heads_permuted_together_with_the_rows_of_wo_give_the_same_output(translator_of):
    """Check the answer about the order of heads."""
    model = translator_of().model
    explained = explain(translator_of(), SENTENCE)
    traced = explained.trace.encoder.layers[0].self_attention
    output = model.encoder.layers[0].self_attention.output
    turned = traced.mix_bhtd[0].flip(0).transpose(0, 1).flatten(1)
    rows = output.weight.T.view(4, 8, 32).flip(0).flatten(0, 1)
    torch.testing.assert_close(turned @ rows + output.bias, traced.output_btm[0])


def test_each_answer_links_to_a_place_on_the_page(model_and_answers):
    _, explained, answers = model_and_answers
    page = recorded_page(explained)
    links = re.findall(r'<a href="#box-([^"]+)">Where', page.html.rpartition("<section")[2])
    assert len(links) == len(answers) > 18
    assert set(links) <= set(page.places)
    assert all(text in page.sections[-1].text for text in answers.values())
    assert not any("nothing is lost" in text for text in answers.values())


def test_an_empty_sentence_has_answers(translator_of):
    assert all(answer for _, answer, _ in recorded_page(explain(translator_of(), "")).questions)


TEXT = "the cat sat"
HIDDEN = "the [MASK] is [MASK]"


@pytest.fixture(params=["gpt2", "llama", "sines", "bert"])
def text_and_answers(request, generator_of, filler_of):
    forms = {
        "gpt2": {"preset": "gpt2"},
        "llama": {"preset": "llama", "key_value_heads": 2},
        "sines": {"positions": "sinusoidal"},
    }
    if request.param == "bert":
        reader = filler_of(preset="bert")
        explained = explain_filling(reader, HIDDEN)
    else:
        reader = generator_of(**forms[request.param])
        explained = explain_continuing(reader, TEXT)
    return request.param, reader.network, explained, recorded_page(explained)


@torch.no_grad()
def test_answers_about_a_text_have_the_models_numbers(text_and_answers):
    form, network, explained, page = text_and_answers
    answers = {asked: said for asked, said, _ in page.questions}
    stack, pieces = explained.trace.stack, explained.pieces
    layers = network.encoder.layers if form == "bert" else network.layers
    counts = [sum(p.numel() for p in part.parameters()) for part in (network, layers, layers[0])]
    told = re.findall(r"[\d,]{3,}", answer(answers, "How many weights"))
    found = [int(number.strip(",").replace(",", "")) for number in told]
    assert found == [counts[0], counts[1], counts[0] - counts[1]]
    assert f"has {counts[2]:,} parameters" in answer(answers, "share weights")
    assert f"({explained.config.dropout:g} in this model)" in answer(answers, "Is it dropout")
    assert f"a 1 at place {pieces.ids[0]} " in answer(answers, "one-hot")

    attention = stack.layers[0].self_attention
    t = 0 if form == "bert" else min(len(pieces.ids), 32) - 1
    weights = attention.weights_bhts[0, 0, t]
    top = int(weights.argmax())
    said = f"“{pieces.texts[t]}” takes {weights[top]:.2f} from “{pieces.texts[top]}”"
    assert said in answer(answers, "and why a softmax")
    last = stack.layers[-1].feed_forward_residual.output_btm[0, 0]
    first = stack.layers[0].self_attention_residual.input_btm[0, 0]
    cosine = torch.cosine_similarity(first, last, dim=0).item()
    assert numbers(answer(answers, "more abstract")) == pytest.approx([cosine], abs=0.0051)
    told = {
        "sines": "Why is the embedding multiplied",
        "llama": "how does the model know the order",
    }.get(form, "know the order of the pieces")
    if form != "llama":
        token = stack.embedding.tokens_btm[0, 0].norm().item()
        other = 4.0 if form == "sines" else stack.embedding.positions_tm[0].norm().item()
        found = sorted(numbers(answer(answers, told))[:3])
        assert all(min(abs(one - two) for two in found) < 0.0051 for one in (token, other))
    else:
        assert "8 numbers of a head form 4 pairs" in answer(answers, told)


def test_the_answer_about_attention_names_the_largest_weight_between_words(text_and_answers):
    _, _, explained, page = text_and_answers
    answers = {asked: said for asked, said, _ in page.questions}
    attention, texts = explained.trace.stack.layers[0].self_attention, explained.pieces.texts
    words = [bool(re.search(r"\w", text.strip("_▁"))) and text[0] != "<" for text in texts]
    assert not all(words)
    allowed = torch.tensor(
        [[a and b and s != t for s, b in enumerate(words)] for t, a in enumerate(words)]
    )
    weights = attention.weights_bhts[0].masked_fill(~allowed, -1.0)
    best = weights.max().item()
    head, t, s = (weights == best).nonzero()[0].tolist()
    said = answer(answers, "What do query, key and value mean")
    assert (
        f"In head {head + 1} of layer 1, the query of “{texts[t]}” fits the key of “{texts[s]}”"
        in said
    )
    assert f"takes {best:.2f} of the value of “{texts[s]}”" in said
    score = attention.scores_bhts[0, head, t, s].item()
    assert f"the score {score:.2f}".replace("-", "−") in said


LEARNERS = ["need a decoder to classify", "different lengths", "query, key and value mean"]


def test_text_pages_of_every_model_family_answer_learners_questions(text_and_answers):
    form, _, explained, page = text_and_answers
    answers = {asked: said for asked, said, _ in page.questions}
    mask = "Why does no mask hide" if form == "bert" else "What would happen without the mask"
    assert all(answer(answers, words) for words in [*LEARNERS, mask])
    links = {box for _, _, box in page.questions}
    assert links <= set(page.places)
    if form != "bert":
        given = explained.pieces.texts[: explained.given]
        said = f"the row of “{given[-2]}” must predict “{given[-1]}”"
        assert said in answer(answers, mask)


def test_a_translation_page_answers_learners_questions(model_and_answers):
    _, explained, answers = model_and_answers
    assert all(answer(answers, words) for words in LEARNERS)
    read = explained.target_input.texts
    said = answer(answers, "What would happen without the mask")
    assert f"the row of “{read[-2]}” must predict “{read[-1]}”" in said
    steps, s = len(explained.chosen.ids), len(explained.source.ids)
    assert f"a table of {steps} × {s}" in answer(answers, "different lengths")


def test_texts_without_words_have_answers(generator_of, filler_of):
    pages = [explain_continuing(generator_of(), ""), explain_filling(filler_of(), "[MASK]")]
    for explained in pages:
        assert all(said for _, said, _ in recorded_page(explained).questions)
