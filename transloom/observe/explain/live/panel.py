"""Build the live section of a page as HTML: input, places for results, and the packed model."""

from importlib.resources import files

from transloom.inference.translator import Translator
from transloom.observe.explain.live.errors import NotLiveError
from transloom.observe.explain.live.packing import packed
from transloom.observe.explain.live.training import training_settings
from transloom.observe.explain.markup import escape, filled, json_in_html
from transloom.observe.explain.page import LIVE, PageSection


def live_section(translator: Translator, sentence: str, tag: str | None) -> PageSection | str:
    """Return the section for a sentence, or the reason why the model cannot run in a page."""
    try:
        model = {**packed(translator), "sentence": sentence}
        model["training"] = training_settings(translator)
    except NotLiveError as error:
        return str(error)
    filling = {
        "tag": escape(tag or ""),
        "sentence": escape(sentence),
        "place": LIVE,
        # In HTML, control and invisible characters of the sentence are escaped. The script
        # therefore inserts the original sentence from this data.
        "model": json_in_html(model),
    }
    folder = files("transloom.observe.explain.live")
    template = (folder / "panel.html").read_text(encoding="utf-8")
    return PageSection(
        html=filled(template, filling),
        style=live_style(),
        module="explain/live/page/panel.js",
    )


def live_style() -> str:
    """Return the style of the elements that the live section draws."""
    return (files("transloom.observe.explain.live") / "live.css").read_text(encoding="utf-8")
