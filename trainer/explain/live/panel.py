"""The live section of a page, as HTML: what is typed in, where results go, and the packed model."""

import re
from importlib.resources import files

from trainer.explain.live.errors import NotLiveError
from trainer.explain.live.packing import packed
from trainer.explain.live.scripts import ANSWERS, ENGINE, VIEW, script, style
from trainer.explain.live.training import training_settings
from trainer.explain.markup import escape, json_in_html
from trainer.explain.page import LIVE, LiveSection
from trainer.inference.translator import Translator


def live_section(translator: Translator, sentence: str, tag: str | None) -> LiveSection | str:
    """The section for a page about this sentence, or why the model cannot run in a page."""
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
        # Text has escapes for what steers or hides; the script puts in the sentence that is meant.
        "model": json_in_html(model),
    }
    folder = files("trainer.explain.live")
    template = (folder / "panel.html").read_text(encoding="utf-8")
    return LiveSection(
        html=re.sub(r"\{\{(\w+)\}\}", lambda match: filling[match[1]], template),
        style=style(),
        script=script((*ENGINE, *ANSWERS, *VIEW)),
    )
