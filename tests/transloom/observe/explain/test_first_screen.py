"""The first screen of a page: texts, data flow, and links to sections."""

import re
from html import escape

import pytest
import torch
from support.explained_page import PageReader
from support.node_program import answer_of_node, named_modules
from support.walk import recorded_page

from transloom.observe.explain.compare.section import compare_section
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.live.panel import live_section
from transloom.observe.explain.page import PageStart, first_screen_markup
from transloom.observe.explain.text.text_explanation import explain_continuing, explain_filling
from transloom.observe.explain.text.text_page import text_page
from transloom.observe.explain.translation_page import translation_page

SENTENCE = "elle sera journaliste demain"
BAD = '<b class="x">&</b> {{given}}'


def first_screen(page):
    return re.search(r'<div class="first-screen">.*?</figure>\n</div>', page, re.S)[0]


def predicted(page):
    """Return the piece at the flow's output, and its probability in percent."""
    piece, share = re.search(
        r"<bdi[^>]*>(.*?)</bdi>.*<b>[<> ]*([\d.]+)%</b>", page.flow["output"]
    ).groups()
    return piece, float(share)


def check_numbers(page, name, rows, piece):
    """Assert that an arrow shows the shape of `rows` and the first numbers of the first row."""
    said = page.flow[name]
    height, width = rows.shape
    assert f"{height} × {width}, <bdi>{piece}</bdi>: " in said
    texts = re.findall(r"<i [^>]*>(.*?)</i>", said)
    numbers = [float(text.replace("−", "-")) for text in texts]
    torch.testing.assert_close(torch.tensor(numbers), rows[0, :3], rtol=0, atol=0.00501)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_flow_of_a_translation_shows_the_models_numbers(translator_of, norm):
    translator = translator_of(norm=norm, encoder_layers=3, decoder_layers=1)
    model, vocabulary = translator.model, translator.model.vocabulary
    explained = explain(translator, SENTENCE)
    page = recorded_page(explained)
    ids = translator.source_ids(SENTENCE)
    source = torch.tensor([ids])
    with torch.no_grad():
        memory = model.encode(source)
        hidden = model.decode(torch.tensor([[vocabulary.bos_id]]), memory, source)
        probabilities = model.logits(hidden)[0, 0].softmax(dim=-1)
    probabilities[[vocabulary.pad_id, vocabulary.bos_id]] = 0  # the search never chooses them
    best = probabilities.argmax().item()

    tokens, _, encoder, _, decoder, *_ = page.flow.values()
    assert list(page.flow) == [
        "tokens", "embedding", "encoder", "memory", "decoder", "hidden state", "output",
    ]  # fmt: skip
    pieces = re.findall(r"<bdi[^>]*>(.*?)</bdi>|<i>(…)</i>", tokens)
    assert [piece for piece, _ in pieces] == translator.source_texts(SENTENCE)
    assert f"{len(ids)} pieces" in tokens
    assert "3 layers" in encoder
    first = translator.source_texts(SENTENCE)[0]
    check_numbers(page, "embedding", explained.trace.encoder.embedding.sum_btm[0], first)
    check_numbers(page, "memory", memory[0], first)
    check_numbers(page, "hidden state", hidden[0], "<s>")
    assert "1 layer;" in decoder
    assert f">{translator.target_pieces([vocabulary.bos_id])[0]}</bdi>" in decoder
    share = pytest.approx(100 * probabilities[best].item(), abs=0.0101)
    assert predicted(page) == (translator.target_pieces([best])[0], share)
    titles = page.titles_of_flow()
    assert titles.pop("decoder").startswith("Decoding step 1: after “")
    assert titles == {
        "tokens": "Pieces and their ids",
        "embedding": "Each id picks a row of numbers",
        "encoder": "Encoder layer 1: self-attention",
        "memory": "The memory",
        "hidden state": "The next piece",
        "output": "The next piece",
    }


@pytest.mark.long
def test_the_flow_of_a_continued_text_shows_the_models_numbers(generator_of):
    generator = generator_of(preset="gpt2", layers=3)
    explained = explain_continuing(generator, "the cat")
    page = recorded_page(explained)
    ids = generator.ids("the cat")
    with torch.no_grad():
        hidden = generator.network.hidden(
            torch.tensor([ids]), torch.zeros(1, len(ids), dtype=torch.int64)
        )
        probabilities = generator.network.logits(hidden)[0, -1].softmax(dim=-1)
    best = probabilities.argmax().item()
    assert list(page.flow) == ["tokens", "embedding", "decoder", "hidden state", "output"]
    check_numbers(page, "hidden state", hidden[0, -1:], generator.tokenizer.piece(ids[-1]))
    assert f"{len(ids)} pieces" in page.flow["tokens"]
    assert "3 layers" in page.flow["decoder"]
    assert predicted(page) == (
        generator.tokenizer.piece(best),
        pytest.approx(100 * probabilities[best].item(), abs=0.0101),
    )
    assert explained.continuation in text_page(explained, "a title")
    titles = page.titles_of_flow()
    assert titles["tokens"] == "Pieces and their ids"
    assert titles["decoder"] == "Layer 1: self-attention"
    assert titles["output"].startswith("After “")


def test_the_flow_of_a_filled_text_shows_the_best_candidate(filler_of):
    filler = filler_of(preset="bert")
    for text, of_which in (("the [MASK] is", "for <mask>"), ("a [MASK] is[MASK]", "for the first")):
        (found,) = filler.fill([text])
        explained = explain_filling(filler, text)
        page = recorded_page(explained)
        assert list(page.flow) == ["tokens", "embedding", "encoder", "hidden state", "output"]
        check_numbers(page, "embedding", explained.trace.stack.embedding.normed_btm[0], "<s>")
        best = found.masks[0][0]
        assert of_which in page.flow["output"]
        share = pytest.approx(100 * best.probability, abs=0.0101)
        assert predicted(page) == (best.piece, share)
        assert escape(found.filled) in text_page(explained, "a title")
        titles = page.titles_of_flow()
        assert titles["tokens"] == "Pieces and their ids"
        assert titles["encoder"] == "Layer 1: self-attention"
        assert titles["output"] == "Which pieces were hidden?"


def test_the_first_screen_of_two_models_shows_both_translations(translator_of):
    both = [translator_of(seed) for seed in (0, 1)]
    section, _ = compare_section(both, ["one", BAD], SENTENCE, None, None)
    page = translation_page(explain(both[0], SENTENCE), "a title", None, section)
    screen = PageReader(f"<section>{first_screen(page)}</section>").sections[0].text
    for one, name in zip(both, ("one", BAD), strict=True):
        assert f"Translation by {name} {explain(one, SENTENCE).translation}" in screen
    assert 'href="#compare"' in first_screen(page)
    assert "<b class" not in first_screen(page)


def test_only_a_page_with_the_model_has_an_input_for_sentences(translator_of):
    translator = translator_of()
    explained = explain(translator, SENTENCE)
    live = translation_page(explained, "", live_section(translator, SENTENCE, None))
    static = translation_page(explained, "")
    assert 'data-first="typing" hidden>' in first_screen(live)  # hidden until the script runs
    assert "textarea" not in first_screen(static)
    given = f'<span class="text" dir="auto">{SENTENCE}</span>'
    assert given in first_screen(live)
    assert given in first_screen(static)


def test_texts_of_the_first_screen_are_escaped(translator_of):
    explained = explain(translator_of(), "je")
    start = PageStart(BAD, (BAD, BAD), (BAD, ""), BAD, explained.blueprint, 1, {})
    reader = PageReader(f"<section>{first_screen_markup(start, [(BAD, BAD), (BAD, '')])}</section>")
    assert not [attributes for tag, attributes in reader.tags if attributes.get("class") == "x"]
    assert reader.sections[0].text.count(BAD) == 7
    assert reader.sections[0].text.count("(nothing)") == 2


def test_a_long_list_of_pieces_is_abbreviated(tmp_path):
    pieces = [f"▁{n}" for n in range(20)]
    program = (
        'const fs = require("node:fs");\n'
        'const asked = JSON.parse(fs.readFileSync(process.argv[2], "utf-8"));\n'
        "const found = asked.map(([pieces, keep]) => excerptOf(pieces, keep ?? undefined));\n"
        "fs.writeFileSync(process.argv[3], JSON.stringify(found));\n"
    )
    cases = {
        (8, None): pieces[:8],
        (20, None): [*pieces[:5], None, "▁19"],
        (20, 12): [*pieces[:5], None, "▁12", None, "▁19"],
        (20, 18): [*pieces[:5], None, "▁18", "▁19"],
        (20, 2): [*pieces[:5], None, "▁19"],
    }
    code = named_modules("explain/walk/first_screen.js") + program
    asked = [(pieces[:count], keep) for count, keep in cases]
    assert answer_of_node(code, asked, tmp_path) == list(cases.values())
