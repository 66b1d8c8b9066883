"""Build the live section of a page as HTML: input, places for results, and the packed model."""

import re
from importlib.resources import files

from transloom.inference.translator import Translator
from transloom.observe.explain.live.errors import NotLiveError
from transloom.observe.explain.live.packing import packed
from transloom.observe.explain.live.scripts import ANSWERS, ENGINE, VIEW, script, style
from transloom.observe.explain.live.training import training_settings
from transloom.observe.explain.markup import escape, json_in_html
from transloom.observe.explain.page import LIVE, LiveSection


def live_section(translator: Translator, sentence: str, tag: str | None) -> LiveSection | str:
    """Return the section for a sentence, or the reason why the model cannot run in a page."""
    try:
        model = {**packed(translator), "sentence": sentence}
        model["training"] = training_settings(translator)
    except NotLiveError as error:
        return str(error)
    filling = {
        "tag": escape(tag or ""),
        "sentence": escape(sentence),
        "asked": escape(sentence),
        "place": LIVE,
        # In HTML, control and invisible characters of the sentence are escaped. The script
        # therefore inserts the original sentence from this data.
        "model": json_in_html(model),
    }
    folder = files("transloom.observe.explain.live")
    template = (folder / "panel.html").read_text(encoding="utf-8")
    return LiveSection(
        html=re.sub(r"\{\{(\w+)\}\}", lambda match: filling[match[1]], template),
        style=style(),
        script=script((*ENGINE, *ANSWERS, *VIEW)),
    )
