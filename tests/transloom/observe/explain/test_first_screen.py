"""The first screen: its texts, its figure and its links are those of the model and the page."""

import re
from importlib.resources import files

import pytest
import torch
from support.explained_page import PageReader

from transloom.observe.explain.compare.section import compare_section
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.first_screen import (
    MAX_PIECES,
    continuation_screen,
    excerpt,
    filling_screen,
    first_screen_markup,
    translation_screen,
)
from transloom.observe.explain.live.panel import live_section
from transloom.observe.explain.page import render
from transloom.observe.explain.parts import FirstScreen, FlowBox, percent
from transloom.observe.explain.sections import sections_of
from transloom.observe.explain.text.continued_page import continued_page_of
from transloom.observe.explain.text.masked_page import masked_page_of
from transloom.observe.explain.text.text_explanation import explain_continuing, explain_filling

SENTENCE = "elle sera journaliste demain"
BAD = '<b class="x">&</b> {{given}}'


def box(screen, name):
    (found,) = [box for box in screen.boxes if box.name == name]
    return found


def first_screen(page):
    return re.search(r'<div class="first-screen">.*?</figure>\n</div>', page, re.S)[0]


def targets(page):
    """The title of the part of the page to which each box of the figure leads."""
    titles = dict(re.findall(r'<section id="([^"]+)"[^>]*><h1>([^<]+)', page))
    titles |= dict(re.findall(r'<h2 class="part" id="([^"]+)">([^<]+)', page))
    links = re.findall(r'<a href="#([^"]+)" data-box="[^"]+"><strong>(\w+)', first_screen(page))
    return {name: titles[place] for place, name in links}


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_flow_of_a_translation_is_that_of_the_model(translator_of, norm):
    translator = translator_of(norm=norm, encoder_layers=3, decoder_layers=1)
    model, vocabulary = translator.model, translator.model.vocabulary
    screen = translation_screen(explain(translator, SENTENCE))
    ids = translator.source_ids(SENTENCE)
    source = torch.tensor([ids])
    with torch.no_grad():
        memory = model.encode(source)
        hidden = model.decode(torch.tensor([[vocabulary.bos_id]]), memory, source)
        probabilities = model.logits(hidden)[0, 0].softmax(dim=-1)
    probabilities[[vocabulary.pad_id, vocabulary.bos_id]] = 0  # the search never takes them
    best = probabilities.argmax().item()

    assert [box.name for box in screen.boxes] == [
        *("Tokens", "Encoder", "Memory", "Decoder", "Output"),
    ]
    assert box(screen, "Tokens").pieces == excerpt(translator.source_texts(SENTENCE))
    assert box(screen, "Tokens").text == f"{len(ids)} pieces"
    assert "3 layers" in box(screen, "Encoder").text
    assert f"{memory.shape[1]} rows of {memory.shape[2]} numbers" in box(screen, "Memory").text
    assert "1 layer;" in box(screen, "Decoder").text
    assert list(box(screen, "Decoder").pieces) == translator.target_pieces([vocabulary.bos_id])
    output = box(screen, "Output")
    assert output.pieces == translator.target_pieces([best])
    assert output.probability == pytest.approx(probabilities[best].item(), abs=1e-6)
    translator.decoding = translator.decoding.model_copy(update={"beam_size": 1})
    assert screen.given[1] == SENTENCE
    assert screen.made[1] == translator.translate([SENTENCE])[0]


def test_the_page_shows_the_figure_and_links_each_box_to_a_section(translator_of):
    explained = explain(translator_of(), SENTENCE)
    page = render(sections_of(explained), "a title")
    screen = first_screen(page)
    output = box(translation_screen(explained), "Output")
    assert f"<b>{percent(output.probability)}</b>" in screen
    titles = targets(page)
    assert titles.pop("Decoder").startswith("Decoding step 1: after “")
    assert titles == {
        "Tokens": "Pieces and their ids",
        "Encoder": "Encoder layer 1: self-attention",
        "Memory": "The memory",
        "Output": "The next piece",
    }


@pytest.mark.long
def test_the_flow_of_a_continued_text_is_that_of_the_model(generator_of):
    generator = generator_of(preset="gpt2", layers=3)
    explained = explain_continuing(generator, "the cat")
    screen = continuation_screen(explained)
    ids = generator.ids("the cat")
    with torch.no_grad():
        hidden = generator.network.hidden(
            torch.tensor([ids]), torch.zeros(1, len(ids), dtype=torch.int64)
        )
        probabilities = generator.network.logits(hidden)[0, -1].softmax(dim=-1)
    best = probabilities.argmax().item()
    assert [box.name for box in screen.boxes] == ["Tokens", "Decoder", "Output"]
    assert box(screen, "Tokens").text == f"{len(ids)} pieces"
    assert "3 layers" in box(screen, "Decoder").text
    output = box(screen, "Output")
    assert output.pieces == [generator.tokenizer.piece(best)]
    assert output.probability == pytest.approx(probabilities[best].item(), abs=1e-5)
    assert screen.made[1] == explained.continuation
    titles = targets(render(continued_page_of(explained), "a title"))
    assert titles["Tokens"] == "Pieces and their ids"
    assert titles["Decoder"] == "Layer 1: self-attention"
    assert titles["Output"].startswith("After “")


def test_the_flow_of_a_filled_text_is_what_fill_takes(filler_of):
    filler = filler_of(preset="bert")
    for text, of_which in (("the [MASK] is", "for <mask>"), ("a [MASK] is[MASK]", "for the first")):
        (found,) = filler.fill([text])
        explained = explain_filling(filler, text)
        screen = filling_screen(explained)
        assert [box.name for box in screen.boxes] == ["Tokens", "Encoder", "Output"]
        output, best = box(screen, "Output"), found.masks[0][0]
        assert of_which in output.text
        assert output.pieces == [best.piece]
        assert output.probability == pytest.approx(best.probability, abs=1e-6)
        assert screen.made[1] == found.filled
        titles = targets(render(masked_page_of(explained), "a title"))
        assert titles["Tokens"] == "Pieces and their ids"
        assert titles["Encoder"] == "Layer 1: self-attention"
        assert titles["Output"] == "Which pieces were hidden?"


def test_a_page_of_two_models_names_both_translations(translator_of):
    both = [translator_of(seed) for seed in (0, 1)]
    section, _ = compare_section(both, ["one", BAD], SENTENCE, None, None)
    page = render(sections_of(explain(both[0], SENTENCE)), "a title", None, section)
    screen = PageReader(f"<section>{first_screen(page)}</section>").sections[0].text
    for one, name in zip(both, ("one", BAD), strict=True):
        assert f"Translation by {name} {explain(one, SENTENCE).translation}" in screen
    assert 'href="#compare"' in first_screen(page)
    assert "<b class" not in first_screen(page)


def test_the_box_to_type_in_needs_the_model_in_the_page(translator_of):
    translator = translator_of()
    explained = explain(translator, SENTENCE)
    live = render(sections_of(explained), "", live_section(translator, SENTENCE, None))
    static = render(sections_of(explained), "")
    assert 'data-first="typing" hidden>' in first_screen(live)  # until the script runs
    assert "textarea" not in first_screen(static)
    given = f'<span class="text" dir="auto">{SENTENCE}</span>'
    assert given in first_screen(live)
    assert given in first_screen(static)


def test_texts_of_the_first_screen_are_escaped():
    flow = FlowBox(BAD, BAD, "", [BAD, None], 0.5)
    screen = first_screen_markup(
        FirstScreen((BAD, BAD), (BAD, ""), [flow], BAD), {}, False, [(BAD, BAD), (BAD, "")]
    )
    reader = PageReader(f"<section>{screen}</section>")
    assert not [attributes for tag, attributes in reader.tags if attributes.get("class") == "x"]
    assert reader.sections[0].text.count(BAD) == 9
    assert reader.sections[0].text.count("(nothing)") == 2


def test_of_many_pieces_the_first_ones_and_the_last_one_are_shown():
    pieces = [f"▁{n}" for n in range(20)]
    assert excerpt(pieces[:MAX_PIECES]) == pieces[:MAX_PIECES]
    assert excerpt(pieces) == [*pieces[: MAX_PIECES - 3], None, "▁19"]
    assert excerpt(pieces, 12) == [*pieces[: MAX_PIECES - 3], None, "▁12", None, "▁19"]
    assert excerpt(pieces, 18) == [*pieces[: MAX_PIECES - 3], None, "▁18", "▁19"]
    assert excerpt(pieces, 2) == excerpt(pieces)
    assert len(excerpt(pieces[: MAX_PIECES + 1])) <= MAX_PIECES
    script = files("transloom.observe.explain.live") / "page" / "first_screen_view.js"
    assert f"PIECES_IN_FLOW = {MAX_PIECES};" in script.read_text(encoding="utf-8")
