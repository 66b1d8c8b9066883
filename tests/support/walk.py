"""Draw sections of a page in Node, as a browser would."""

import json
import re
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from support.explained_page import PageReader
from support.node_program import answer_of_node, named_modules
from transloom.inference.mask_filler import MaskFiller
from transloom.inference.text_generator import TextGenerator
from transloom.inference.translator import Translator
from transloom.observe.explain.explanation import Explanation, explain
from transloom.observe.explain.live.packing import packed, packed_filler, packed_generator
from transloom.observe.explain.text.text_explanation import (
    ContinuedText,
    FilledText,
    explain_continuing,
    explain_filling,
)
from transloom.observe.explain.text.text_page import facts as facts_of_text
from transloom.observe.explain.text.text_page import recorded as recorded_text
from transloom.observe.explain.translation_page import facts, recorded

WALK = ("section", "first_screen", "questions", "trace")
MODULES = (*(f"walk/{name}" for name in WALK), "live/page/loading", "live/page/texts")

LINKEDOM = Path(__file__).parent / "vendor" / "linkedom" / "worker.js"
# A document, and the HTML of an element with the numbers of its maps.
_DOM = f"globalThis.document = require({json.dumps(str(LINKEDOM))}).parseHTML('').document;"
_DOM += """
const htmlOf = (drawn) => {
  for (const one of drawn.querySelectorAll("*")) {
    if (!one.map) continue;
    const numbers = document.createElement("script");
    numbers.textContent = JSON.stringify(one.map);
    one.append(numbers);
  }
  return drawn.outerHTML;
};
"""
_PROGRAM = """
const fs = require("node:fs");
const { facts, trace, packed, sentence, sampling } =
  JSON.parse(fs.readFileSync(process.argv[2], "utf-8"));
async function traceOf() {
  if (trace) return recordedTrace(facts, trace);
  const model = await loadLiveModel(packed);
  if (model.family) return liveTrace(facts, model, computeText(model, sentence, sampling));
  const found = liveTrace(facts, model, computeSentence(model, sentence, null, NOTHING_SWITCHED));
  const [best] = search(model, found.source.ids);
  return { ...found, beam: model.target.decode(best.ids) };
}
traceOf().then((found) => {
  const { family } = facts;
  const [first, ...others] = sectionsOf[family](found);
  const overview = sectionElement({ ...first, parts: () =>
    [...flowOf[family](found), first.parts(), first.after()] }, 1);
  const drawn = [overview, ...others.map((section, n) => sectionElement(section, n + 2))];
  drawn.forEach((section) => section.draw());
  fs.writeFileSync(process.argv[3], JSON.stringify({
    html: drawn.map(htmlOf).join(""), places: [...placesOf(others)],
    questions: questionsOf(found),
  }));
});
"""


class DrawnPage(PageReader):
    """Sections of a page.

    Attributes:
        names: the names of the sections in the list.
        places: the fragment that leads to each box of the model's figure.
        flow: the boxes of the figure of the flow, as HTML with unescaped texts.
        questions: for each question, its text, its answer, and the box that it is about.
    """

    def __init__(self, drawn: dict[str, Any]) -> None:
        self.html: str = drawn["html"]
        super().__init__(self.html)
        self.names = [a["data-name"] for tag, a in self.tags if tag == "section"]
        self.places: dict[str, str] = dict(drawn["places"])
        boxes = re.findall(r'<li data-flow="([^"]+)">(.*?)</li>', self.html)
        self.flow: dict[str, str] = {name: unescape(inside) for name, inside in boxes}
        self.questions: list[tuple[str, str, str]] = [tuple(one) for one in drawn["questions"]]

    def titles_of_flow(self) -> dict[str, str]:
        """Return the title of the part of the page to which each box of the flow leads."""
        boxes = {
            name: re.search(r'href="#box-([^"]+)"', inside) for name, inside in self.flow.items()
        }
        return {name: self.title_at(self.places[box[1]]) for name, box in boxes.items() if box}

    def title_at(self, place: str) -> str:
        """Return the title of the section or part with this id."""
        found = re.search(rf'id="{place}"[^>]*>(?:<h1>)?(.*?)</h', self.html)
        assert found is not None, place
        return unescape(re.sub("<[^>]*>", "", found[1]))


def recorded_page(explained: Explanation | FilledText | ContinuedText) -> DrawnPage:
    """Draw the page's sections from a recorded trace."""
    if isinstance(explained, Explanation):
        return _drawn({"facts": _facts(explained), "trace": recorded(explained)})
    return _drawn({"facts": facts_of_text(explained), "trace": recorded_text(explained)})


def page_in_file(file: Path) -> DrawnPage:
    """Draw the sections of a page's file, from its recorded trace or from its own model."""
    page = file.read_text(encoding="utf-8")
    ((_, data),) = PageReader(page).sections[0].figures
    if model := re.search(r'id="live-model">(.*?)</script>', page):
        packed_model = json.loads(model[1])
        return _drawn({"facts": data, "packed": packed_model, "sentence": packed_model["text"]})
    return _drawn({"facts": data, "trace": data["recorded"]})


def live_page(
    reader: Translator | TextGenerator | MaskFiller,
    sentence: str,
    sampling: dict[str, Any] | None = None,
) -> DrawnPage:
    """Draw the page's sections from the trace that the page's own model computes.

    Args:
        sampling: settings with which a language model draws pieces; None for greedy search.
    """
    if isinstance(reader, Translator):
        described, model = _facts(explain(reader, sentence)), packed(reader)
    elif isinstance(reader, MaskFiller):
        described = facts_of_text(explain_filling(reader, sentence))
        model = packed_filler(reader)
    else:
        described = facts_of_text(explain_continuing(reader, sentence))
        model = packed_generator(reader)
    asked = {"facts": described, "packed": model, "sentence": sentence, "sampling": sampling}
    return _drawn(asked)


def _facts(explained: Explanation) -> dict[str, Any]:
    return {**facts(explained), "places": []}


def _drawn(asked: dict[str, Any]) -> DrawnPage:
    code = _DOM + named_modules(*(f"explain/{name}.js" for name in MODULES)) + _PROGRAM
    with TemporaryDirectory() as folder:
        return DrawnPage(answer_of_node(code, asked, Path(folder)))
