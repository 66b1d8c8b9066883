"""csv.js and matrices.js, run in Node: the text of what is saved."""

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
# Numbers come as JSON, in which −∞ is a text, and go to the functions as in the page: float32.
PROGRAM = """
const fs = require("node:fs");
const [panels, palette] = JSON.parse(fs.readFileSync(process.argv[2], "utf-8"));
for (const panel of panels) {
  panel.values = panel.values.map((line) => line.includes(null) ? line
    : Float32Array.from(line, Number));
}
fs.writeFileSync(process.argv[3], JSON.stringify({
  csv: csvOf(tableOfPanels(panels)),
  svg: svgOfPanels("A <title> & more", panels, palette, (text) => 7 * [...text].length),
}));
"""


@pytest.fixture
def saved(tmp_path):
    """The CSV and the SVG of panels."""

    def save(*panels):
        code = named_modules("drawing/csv.js", "drawing/matrices.js") + PROGRAM
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


def test_vectors_have_dimensions_and_several_maps_their_titles(saved):
    one = panel([[0.5, None]], ["x"], title="first")
    two = panel([[1.5, -2.0]], ["y"], title="second")
    assert read(saved(one)["csv"]) == [["row", "0", "1"], ["x", "0.5", ""]]
    assert read(saved(one, two)["csv"]) == [
        ["map", "row", "0", "1"],
        ["first", "x", "0.5", ""],
        ["second", "y", "1.5", "-2"],
    ]


def test_an_svg_file_stands_alone(saved):
    values = [[2.0, -1.0, 0.0], [None, 0.5, -2.0]]
    text = saved(panel(values, NASTY[:2], NASTY[2:5]), panel(values, ["a", "b"]))["svg"]
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert not re.search(r"var\(|href|class=|style|url\(|rgb\(", text)
    cells = [one for one in root.iter(f"{SVG}rect") if one.get("height") == "21"]
    assert len(cells) == 2 * 6
    # The full colours, half of one, the page's, and that of a masked cell.
    assert [one.get("fill") for one in cells[:6]] == [
        *("#1868be", "#e8af85", "#ffffff"),
        *("#d8dbe0", "#c5d9ef", "#d05e0a"),
    ]
    texts = [one.text for one in root.iter(f"{SVG}text")]
    assert "A <title> & more" in texts
    assert {'a "b", c', "two\nlines", " <&> "} <= set(texts)
    assert {"2.00", "−1.00", "0.00", "−2.00"} <= set(texts)
    width, height = (float(root.get(side)) for side in ("width", "height"))
    for cell in cells:
        assert 0 <= float(cell.get("x")) < width
        assert 0 <= float(cell.get("y")) < height


def test_many_columns_are_narrow_and_have_no_numbers(saved):
    values = [[n / 100 for n in range(100)]] * 3
    names = [f"piece {n}" for n in range(100)]
    root = ElementTree.fromstring(saved(panel(values, ["a", "b", "c"], names, "x", False))["svg"])
    assert float(root.get("width")) < 1500
    texts = {one.text for one in root.iter(f"{SVG}text")}
    assert {"piece 0", "piece 2", "a"} <= texts
    assert not {"piece 1", ".50"} & texts
