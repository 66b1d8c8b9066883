"""csv.js and svg.js, run in Node: the text of saved files."""

import csv
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from support.node_program import answer_of_node, named_modules

SVG = "{http://www.w3.org/2000/svg}"
PALETTE = {
    "page": [255, 255, 255],
    "text": [28, 30, 33],
    "line": [216, 219, 224],
    "positive": [24, 104, 190],
    "negative": [208, 94, 10],
}
NASTY = ["▁l'horloge", 'a "b", c', "two\nlines", " <&> ", "", "أنا", "=1+1"]
# Numbers come as JSON, with −∞ as a string, and are passed as float32 like in the page.
PROGRAM = """
const fs = require("node:fs");
const [panels, palette] = JSON.parse(fs.readFileSync(process.argv[2], "utf-8"));
for (const panel of panels) {
  panel.values = panel.values.map((line) => line.includes(null) ? line
    : Float32Array.from(line, Number));
}
const colour = (name) => palette[name.slice(2)].join(" ");
globalThis.getComputedStyle = () => ({ getPropertyValue: colour });
globalThis.document = { documentElement: { dataset: {} } };
const svgOfMap = ({ full, ...map }) => {
  const figure = { map, dataset: { colours: "signed" }, closest: () => null, greatest: full };
  const context = new SvgContext();
  const measuring = { measureText: (text) => ({ width: 7 * [...text].length }) };
  figure.layout = layoutOf(measuring, figure, 800);
  paintOn(context, figure);
  return svgFile(figure.layout, palette, context.shapes.join(""));
};
fs.writeFileSync(process.argv[3], JSON.stringify({
  csv: csvOf(tableOfPanels(panels)),
  svg: svgOfMap(panels[0]),
}));
"""


@pytest.fixture
def saved(tmp_path):
    """Return a function that returns the CSV and SVG texts of panels."""

    def save(*panels):
        code = named_modules("drawing/csv.js", "drawing/heat_map.js", "drawing/svg.js") + PROGRAM
        return answer_of_node(code, [panels, PALETTE], tmp_path)

    return save


def panel(values, rows, columns=None, title="head 1", signed=True, full=2.0):
    return {
        "title": title,
        "rows": rows,
        "columns": columns,
        "signed": signed,
        "full": full,
        "values": [["-Infinity" if x == -np.inf else x for x in line] for line in values],
    }


def read(text):
    return list(csv.reader(io.StringIO(text, newline="")))


def test_a_csv_file_has_all_numbers_and_labels(saved):
    values = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32) * 1e-3
    values[0, 0], values[1, 1] = -np.inf, 0.1
    made = saved(panel(values.tolist(), NASTY, NASTY))
    head, *lines = read(made["csv"])
    assert head == ["row", *NASTY]
    assert [line[0] for line in lines] == NASTY
    found = np.array([[float(x) for x in line[1:]] for line in lines]).astype(np.float32)
    np.testing.assert_array_equal(found, values)
    assert lines[0][1] == "-inf"
    assert lines[1][2] == "0.1"


def test_a_csv_file_has_column_numbers_and_the_titles_of_several_maps(saved):
    one = panel([[0.5, None]], ["x"], title="first")
    two = panel([[1.5, -2.0]], ["y"], title="second")
    assert read(saved(one)["csv"]) == [["row", "0", "1"], ["x", "0.5", ""]]
    assert read(saved(one, two)["csv"]) == [
        ["map", "row", "0", "1"],
        ["first", "x", "0.5", ""],
        ["second", "y", "1.5", "-2"],
    ]


def test_a_map_is_saved_as_svg_without_external_styles(saved):
    values = [[2.0, -1.0, 0.0], [None, 0.5, -2.0]]
    text = saved(panel(values, NASTY[3:5], NASTY[:3]))["svg"]
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert not re.search(r"var\(|href|class=|style|url\(|rgb\(", text)
    cells = [one for one in root.iter(f"{SVG}rect") if one.get("height") == "29"]
    # Full positive, half negative and zero; then masked, quarter positive and full negative.
    assert [one.get("fill") for one in cells] == [
        *("#1868be", "#e8af85", "#ffffff"),
        *("#d8dbe0", "#c5d9ef", "#d05e0a"),
    ]
    texts = [one.text or "" for one in root.iter(f"{SVG}text")]
    assert texts == [*NASTY[3:5], *NASTY[:3], "2.0", "−1.0", "·", ".5", "−2.0"]
    turned = [one.get("transform") or "" for one in root.iter(f"{SVG}text")]
    assert [bool(re.fullmatch(r"translate\(.*\)rotate\(-45\)", one)) for one in turned[:6]] == [
        *(False, False, True, True, True, False)
    ]
