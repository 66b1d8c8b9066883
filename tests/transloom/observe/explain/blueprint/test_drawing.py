"""The drawing of a network: each box once, no overlaps, and well-formed SVG."""

import re
from itertools import combinations
from xml.etree import ElementTree

import pytest

from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig
from model.config.transformer import ModelConfig
from transloom.observe.explain.blueprint.drawing import svg_file, svg_parts
from transloom.observe.explain.blueprint.layout import CHARACTER, lay_out
from transloom.observe.explain.blueprint.networks import Sizes, blueprint_of_settings

BASE = blueprint_of_settings(ModelConfig(), Sizes(37_000, 37_000))
SMALL = blueprint_of_settings(
    ModelConfig(encoder_layers=2, decoder_layers=3, width=128, heads=4, norm="pre"),
    Sizes(2_000, 2_000),
)
TEXT = blueprint_of_settings(DecoderOnlyConfig(preset="llama", layers=2), Sizes(32_000, 0))
MASKED = blueprint_of_settings(EncoderOnlyConfig(preset="bert"), Sizes(30_522, 0, 512))
FIGURES = pytest.mark.parametrize("blueprint", [BASE, SMALL, TEXT, MASKED], ids=lambda b: b.title)
FORMS = pytest.mark.parametrize("narrow", [False, True])
SVG = "{http://www.w3.org/2000/svg}"


@FIGURES
@FORMS
@pytest.mark.parametrize("each_layer", [False, True])
def test_boxes_do_not_overlap(blueprint, narrow, each_layer):
    layout = lay_out(blueprint, narrow=narrow, each_layer=each_layer)
    places = [(p.x, p.y, p.right, p.y + p.height) for p in layout.boxes.values()]
    for (left, top, right, bottom), other in combinations(places, 2):
        apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
        assert apart
    for left, top, right, bottom in places:
        assert left >= 0 <= top
        assert right <= layout.width
        assert bottom <= layout.height
    for placed in layout.boxes.values():
        assert max(map(len, placed.lines)) * CHARACTER <= placed.width
    for line in layout.connections:
        assert all(0 <= x <= layout.width and 0 <= y <= layout.height for x, y in line.points)


@FIGURES
def test_layers_are_drawn_individually_or_folded_into_one(blueprint):
    every = lay_out(blueprint, narrow=False, each_layer=True)
    assert list(every.boxes) == [box.key for box in blueprint.boxes()]
    folded = lay_out(blueprint, narrow=False, each_layer=False)
    assert len(folded.frames) == len(blueprint.columns)
    for frame, column in zip(folded.frames, blueprint.columns, strict=True):
        assert frame.label[0] == f"{len(column.layers)} × layer"
    for layout in (every, folded):
        kinds = [line.kind for line in layout.connections]
        assert kinds.count("residual") == sum(p.box.kind == "sum" for p in layout.boxes.values())
        readers = [p for p in layout.boxes.values() if p.box.reads_memory]
        arrows = [line for line in layout.connections if line.kind == "memory"]
        assert [line.points[-1] for line in arrows] == [(p.x, p.middle) for p in readers]
        shared = [p for p in layout.boxes.values() if p.box.same_as]
        assert kinds.count("shared") == len(shared)


@FIGURES
def test_the_file_is_svg_with_a_title_and_focusable_boxes(blueprint):
    text = svg_file(blueprint)
    root = ElementTree.fromstring(text)
    assert root.findtext(f"{SVG}title") == blueprint.title
    assert f"{blueprint.parameters:,} parameters" in root.findtext(f"{SVG}desc")
    boxes = [g for g in root.iter(f"{SVG}g") if g.get("tabindex") == "0"]
    assert len(boxes) == len(lay_out(blueprint, narrow=False, each_layer=False).boxes)
    assert all(box.get("aria-label") and box.get("role") == "img" for box in boxes)
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)|url\(|@import|<script", text)


def test_boxes_link_to_their_sections_of_a_page():
    svg = svg_parts(SMALL, {"encoder.1.self_attention": "#section-5"}, each_layer=True)
    assert svg.count('href="#section-5"') == 2  # in the wide and in the narrow form
    ids = re.findall(r' id="([^"]+)"', svg)
    assert len(ids) == len(set(ids)) == 4
