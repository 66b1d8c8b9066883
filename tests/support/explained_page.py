"""Read a page of `transloom explain` like a browser."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any


@dataclass
class Section:
    """Section of the page, as a browser reads it."""

    text: str = ""
    figures: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    bars: list[tuple[float, bool]] = field(default_factory=list)

    def figure(self, title: str) -> dict[str, Any]:
        """Return the only figure whose caption begins with this text."""
        (found,) = [data for caption, data in self.figures if caption.startswith(title)]
        return found


class PageReader(HTMLParser):
    """Parser of a page's sections, tags and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sections: list[Section] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._inside: list[str] = []
        self._caption = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "input"):
            self._inside.append(tag)
        if tag == "section":
            self.sections.append(Section())
        elif tag == "figcaption":
            self._caption = ""
        probability = dict(attributes).get("data-probability")
        if tag == "tr" and probability is not None:
            chosen = dict(attributes).get("class") == "chosen"
            self.sections[-1].bars.append((float(probability), chosen))

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if "section" not in self._inside:
            return
        if "figcaption" in self._inside:
            self._caption += data
        elif self._inside[-1] == "script":
            self.sections[-1].figures.append((self._caption, json.loads(data)))
        else:
            self.sections[-1].text += data
