"""The live section of a page, as HTML: what is typed in, where results go, and the packed model."""

import json
import re
from importlib.resources import files

from data_pipeline.strangers_text import visible_in_json
from trainer.explain.live.errors import NotLiveError
from trainer.explain.live.packing import packed
from trainer.explain.live.scripts import ANSWERS, ENGINE, VIEW, script
from trainer.explain.live.training import training_settings
from trainer.explain.markup import escape
from trainer.explain.page import LIVE, LiveSection
from trainer.inference.translator import Translator


def live_section(translator: Translator, sentence: str, tag: str | None) -> LiveSection | str:
    """The section for a page about this sentence, or why the model cannot run in a page."""
    try:
        model = {**packed(translator), "sentence": sentence}
        model["training"] = training_settings(translator)
    except NotLiveError as error:
        return str(error)
    # As text, a sentence has escapes for what steers or hides; the script puts in the one meant.
    as_json = visible_in_json(json.dumps(model, ensure_ascii=False, separators=(",", ":")))
    filling = {
        "tag": escape(tag or ""),
        "sentence": escape(sentence),
        "asked": escape(sentence),
        "place": LIVE,
        "model": as_json.replace("<", "\\u003c"),
    }
    folder = files("trainer.explain.live")
    template = (folder / "panel.html").read_text(encoding="utf-8")
    return LiveSection(
        html=re.sub(r"\{\{(\w+)\}\}", lambda match: filling[match[1]], template),
        style=(folder / "live.css").read_text(encoding="utf-8"),
        # In a function of its own, so that no name meets one of the page's other scripts.
        script=f"(() => {{\n{script((*ENGINE, *ANSWERS, *VIEW))}\n}})();",
    )
