"""The page's statements are true: sums, named cells, omissions, formulas, links and sizes."""

import re
from html import unescape
from pathlib import Path

import pytest
import torch
from support.explained_page import PageReader
from support.walk import recorded_page

from model.config.transformer import DecodingConfig
from transloom.observe.explain import limits
from transloom.observe.explain.explanation import explain
from transloom.observe.explain.translation_page import translation_page

DOCUMENT = Path(__file__).parents[4] / "docs" / "how-to" / "looking-inside.md"
SENTENCE = "elle sera journaliste demain"
ROUNDING = 0.5e-4


@pytest.fixture(params=["whole", "cut"])
def explained(request, translator_of, monkeypatch):
    """Return an explanation whose attention maps are drawn completely or cut."""
    if request.param == "cut":
        monkeypatch.setattr(limits, "MAX_ATTENDED", 5)
    return explain(translator_of(norm="post" if request.param == "cut" else "pre"), SENTENCE)


def test_rows_of_weights_sum_to_1_or_the_map_says_how_much_is_missing(explained):
    maps = 0
    for section in recorded_page(explained).sections:
        for caption, data in section.figures:
            if not re.match(
                r"head \d|weights|masked self-attention \d|cross-attention \d", caption
            ):
                continue
            if re.match(r"head \d+: ", caption) or data["columns"] is None:
                continue
            said = re.search(r"the others have up to (\d\.\d{3}) of a row", caption)
            missing = float(said[1]) if said else 0.0
            for row in data["values"]:
                total = sum(value or 0.0 for value in row)
                slack = ROUNDING * len(row) + 1e-6
                assert 1 - missing - slack <= total <= 1 + slack, caption
            maps += 1
    assert maps > 10


def test_the_example_row_lists_all_keys_and_sums_to_1(explained):
    pieces = explained.source.texts
    section = recorded_page(explained).html.split("<section")[5]
    lines = re.findall(r"<tr( class=\"marked\")?>(<td>.*?)</tr>", section)
    cells = [re.findall(r"<td><bdi>(.*?)</bdi></td>", line) for _, line in lines]
    *rows, total = [tuple(map(unescape, row)) for row in cells]
    assert total[0] == f"all {len(pieces)} keys"
    assert total[-1] == "1.000"
    assert sum(float(row[-1]) for row in rows) == pytest.approx(1, abs=0.0006 * len(rows))
    left = len(pieces) - limits.MAX_ATTENDED
    if left > 0:
        assert re.fullmatch(rf"{left} other keys?, not listed, together", rows[-1][0])
        rows = rows[:-1]
    assert tuple(row[0] for row in rows) == pieces[: limits.MAX_ATTENDED]
    marked = [float(row[-1]) for row in rows]
    (place,) = [n for n, (mark, _) in enumerate(lines) if mark]
    assert marked[place] == max(marked)


def test_the_largest_weight_in_the_text_is_that_of_a_drawn_cell(explained):
    page = recorded_page(explained)
    for layer in range(2):
        section = page.sections[4 + 2 * layer]
        named = re.search(
            r"in head (\d+), “(.+?)” takes (\d\.\d\d) of its mix from “(.+?)”", section.text
        )
        head, row, weight, column = named.groups()
        maps = [section.figure(f"head {n + 1} ") for n in range(4)]
        values = [value for data in maps for numbers in data["values"] for value in numbers]
        assert float(weight) == pytest.approx(max(values), abs=0.0051)
        data = maps[int(head) - 1]
        cells = {
            (data["rows"][r], data["columns"][c]): value
            for r, numbers in enumerate(data["values"])
            for c, value in enumerate(numbers)
        }
        assert cells[row, column] == pytest.approx(float(weight), abs=0.0051)


def test_the_text_after_a_sum_follows_the_models_norm(translator_of):
    texts = {
        norm: recorded_page(explain(translator_of(norm=norm), "je")).sections[5].text
        for norm in ("post", "pre")
    }
    assert "The sum is then normalised" in texts["post"]
    assert "The sum is passed on unchanged" in texts["pre"]
    assert not any("nothing is lost" in text for text in texts.values())


def test_formulas_show_numbers_under_roots_and_the_names_of_biases(explained):
    page = recorded_page(explained)
    attention = page.sections[4]
    words = " ".join(
        section.text + " ".join(caption for caption, _ in section.figures)
        for section in page.sections[:-1]
    )
    assert not re.search(r"√[a-zA-Z]", words)
    assert {"√32", "√8"} == set(re.findall(r"√\d+", words))
    for product in ("x·Wq + bq", "x·Wk + bk", "x·Wv + bv", "mix·Wo + bo"):
        assert product in attention.text
    assert "x·W₁ + b₁" in page.sections[5].text
    assert "·W₂ + b₂" in page.sections[5].text


def test_formulas_of_the_page_with_biases_equal_the_trace(translator_of):
    """Compute the formulas that the page shows, and compare the results with the trace."""
    translator = translator_of()
    explained = explain(translator, SENTENCE)
    layer, traced = translator.model.encoder.layers[0], explained.trace.encoder.layers[0]
    x = traced.self_attention_residual.input_btm[0]
    with torch.no_grad():
        fused = layer.self_attention.query_key_value
        weights, biases = fused.weight.T.split(32, dim=1), fused.bias.split(32)
        attention = traced.self_attention
        for values, w, b in zip(
            (attention.queries_bhtd, attention.keys_bhsd, attention.values_bhsd),
            weights,
            biases,
            strict=True,
        ):
            torch.testing.assert_close((x @ w + b).view(len(x), 4, 8).transpose(0, 1), values[0])
        mix = attention.mix_bhtd[0].transpose(0, 1).flatten(1)
        wo, bo = layer.self_attention.output.weight.T, layer.self_attention.output.bias
        torch.testing.assert_close(mix @ wo + bo, attention.output_btm[0])


def test_the_page_shows_keys_and_values_of_the_decoders_self_attention(explained):
    page = recorded_page(explained)
    traced = explained.trace.decoder.layers[1].self_attention
    all_steps, step = page.sections[-2], page.sections[-3]
    for name, tensor in (("keys", traced.keys_bhsd), ("values", traced.values_bhsd)):
        shown = [data for caption, data in all_steps.figures if caption.startswith(f"{name} ")]
        assert len(shown) == 2 * 4  # 2 layers, 4 heads
        found = torch.tensor(shown[4]["values"])
        torch.testing.assert_close(found, tensor[0, 0])
    for name in ("key", "value"):
        assert any(c.startswith(f"masked self-attention: {name} ") for c, _ in step.figures)


def test_an_unknown_piece_is_shown_with_its_characters(translator_of):
    explained = explain(translator_of(), "je 漢字 suis")
    (unknown,) = [text for text in explained.source.texts if "<unk>" in text]
    assert unknown == "漢字 (<unk>)"
    assert "漢字 (<unk>)" in recorded_page(explained).sections[1].text


def test_every_box_of_the_figure_links_to_an_existing_place(explained):
    page = recorded_page(explained)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert set(page.places) >= {box.key for box in explained.blueprint.boxes()}
    assert set(page.places.values()) <= ids
    whole = PageReader(translation_page(explained, "a title"))
    boxes = [(tag, a) for tag, a in whole.tags if "data-box" in a]
    assert {a["data-box"] for _, a in boxes} == {box.key for box in explained.blueprint.boxes()}
    assert {tag for tag, _ in boxes} == {"a"}
    assert all(a["href"] == f"#box-{a['data-box']}" for _, a in boxes)


def test_the_size_of_a_page_is_as_documented(translator_of):
    """Uses a network as large as the phrase book's, with a short and a long sentence."""
    said = re.search(
        r"phrase book's model take ([\d.]+) to ([\d.]+) MB", DOCUMENT.read_text("utf-8")
    )
    translator = translator_of(width=128, heads=4, feed_forward_width=256)
    for source, steps in (("je suis étudiant", 5), (f"{SENTENCE} {SENTENCE}", 12)):
        translator.decoding = DecodingConfig(max_length_factor=0, max_extra_length=steps)
        explained = explain(translator, source)
        size = len(translation_page(explained, "a title").encode()) / 1e6
        assert float(said[1]) <= size <= float(said[2])


def test_the_alignments_in_the_documentation_name_existing_words():
    """`scripts/screenshots` writes these alignments from a trained run."""
    text = DOCUMENT.read_text("utf-8")
    (block,) = re.findall(r"```\n\$ cat sentences\.txt\n(.*?)```", text, re.S)
    sentences, first, begun, second = re.split(r"\$ .*\n", block)
    sources = [len(line.split()) for line in sentences.splitlines()]
    prefixes = begun.splitlines()
    assert len(sources) == len(prefixes) == 3
    for printed in (first, second):
        lines = [line.split("\t") for line in printed.splitlines()]
        assert len(lines) == 3
        for source, (translation, pairs) in zip(sources, lines, strict=True):
            found = [tuple(map(int, pair.split("-"))) for pair in pairs.split()]
            words = len(translation.split())
            assert {target for _, target in found} <= set(range(words))
            assert {origin for origin, _ in found} <= set(range(source))
            assert found == sorted(set(found))
    for prefix, line in zip(prefixes, second.splitlines(), strict=True):
        assert line.startswith(prefix)


def test_images_of_the_documentation_exist_and_are_small():
    folder = DOCUMENT.parent
    named = {
        folder / one for one in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", DOCUMENT.read_text("utf-8"))
    }
    assert len(named) >= 5
    sizes = [picture.stat().st_size for picture in named]
    assert max(sizes) < 150_000
    assert sum(sizes) < 1_000_000
