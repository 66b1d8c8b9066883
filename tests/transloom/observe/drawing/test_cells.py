"""What screen readers and the keyboard hear of a map's cells, in Node with the few nodes it needs."""

from support.node_program import EVALUATE, answer_of_node, named_modules

PAGE = """
class Element {
  style = {}; hidden = false; children = []; attributes = {};
  constructor(tag) { this.tagName = tag; }
  setAttribute(name, value) { this.attributes[name] = value; }
  append(...nodes) { this.children.push(...nodes); }
  replaceChildren(...nodes) { this.children = nodes; }
  getBoundingClientRect() { return { width: 9, height: 9, right: 9, top: 9 }; }
  scrollIntoView() {}
  matches() { return true; }
  closest(wanted) { return wanted === ".grid" ? grid : figure; }
  querySelector(wanted) { return { ".frame": frame, ".visited": visited, ".grid": grid }[wanted]; }
  dispatchEvent({ detail }) { chosen.push(detail); }
}
const [figure, grid, frame, visited, tip] = ["FIGURE", "DIV", "I", "DIV", "DIV"].map((tag) => new Element(tag));
const listeners = {}, chosen = [];
globalThis.innerWidth = 100;
globalThis.CustomEvent = class { constructor(name, { detail }) { this.detail = detail; } };
globalThis.document = {
  getElementById: () => tip, createElement: (tag) => new Element(tag), createTextNode: (text) => text,
  querySelectorAll: () => [frame], addEventListener: (name, listener) => { listeners[name] = listener; },
};
figure.layout = { left: 5, top: 7, cell: { width: 10, height: 20 } };
figure.map = {
  rows: ["je", "suis"], columns: ["I", "am", "."], values: [[0, 0.25, null], [-1.5, 1, 2]], lines: ["first", "second"],
};
globalThis.press = (...keys) => keys.forEach((key) => {
  listeners.keydown({ key, target: grid, preventDefault() {} });
});
globalThis.heard = (...keys) => {
  grid.at = undefined;
  press(...keys);
  const [line] = visited.children;
  return [line.attributes["aria-rowindex"],
    ...line.children.flatMap(({ attributes, children }) => [attributes["aria-colindex"], children[0]]), frame.style.left];
};
globalThis.withoutColumns = () => { figure.map.columns = undefined; return heard("End"); };
globalThis.chosenBy = (...keys) => { grid.at = undefined; chosen.length = 0; press(...keys); return [...chosen]; };
globalThis.clicked = (offsetX, offsetY) => {
  chosen.length = 0;
  listeners.click({ target: Object.assign(new Element("CANVAS"), {}), offsetX, offsetY });
  return [...chosen];
};
"""
CASES = {
    'heard("ArrowRight")': ["1", None, "je", "2", " → am: 0.2500", "15px"],
    'heard("ArrowLeft")': ["1", None, "je", "1", " → I: 0.0000", "5px"],
    'heard("End")': ["1", None, "je", "3", " → .: masked", "25px"],
    'heard("ArrowDown", "ArrowDown", "End", "ArrowRight")': [
        *("2", None, "suis", "3", " → .: 2.0000", "25px")
    ],
    'heard("ArrowDown", "End", "Home", "ArrowUp")': ["1", None, "je", "1", " → I: 0.0000", "5px"],
    'chosenBy("Enter")': [{"line": "first", "column": 0}],
    'chosenBy("ArrowDown", "ArrowRight", "Enter", "x")': [{"line": "second", "column": 1}],
    "clicked(5, 7)": [{"line": "first", "column": 0}],
    "clicked(34.9, 46.9)": [{"line": "second", "column": 2}],
    "clicked(35, 7)": [],
    "clicked(4.9, 7)": [],
    "clicked(5, 47)": [],
    "withoutColumns()": ["1", None, "je", "3", ", dimension 2: masked", "25px"],
}


def test_a_cell_is_heard_where_it_is(tmp_path):
    program = PAGE + named_modules("drawing/cells.js") + EVALUATE
    answers = answer_of_node(program, list(CASES), tmp_path)
    assert dict(zip(CASES, answers, strict=True)) == CASES
