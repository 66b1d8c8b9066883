"""Build the live section of a page as HTML: input, places for results, and the packed model."""

from data_pipeline.tasks.masked_text import SHOWN_MASK
from transloom.inference.mask_filler import MaskFiller
from transloom.inference.text_generator import TextGenerator
from transloom.inference.translator import Translator
from transloom.observe.explain.live.errors import NotLiveError
from transloom.observe.explain.live.packing import packed, packed_filler, packed_generator
from transloom.observe.explain.live.training import training_settings, validation_pairs
from transloom.observe.explain.markup import escape, filled, json_in_html, page_file
from transloom.observe.explain.page import LIVE, PageSection

LIVE_STYLE = "live/live.css"  # of the elements that the live section draws


def live_section(translator: Translator, sentence: str, tag: str | None) -> PageSection | str:
    """Return the section for a sentence, or the reason why the model cannot run in a page."""
    try:
        model = {**packed(translator), "sentence": sentence}
        model["training"] = training_settings(translator)
    except NotLiveError as error:
        return str(error)
    filling = {
        "tag": escape(tag or ""),
        "place": LIVE,
        "model": json_in_html(model),
    }
    return PageSection(
        html=filled(page_file("live/panel.html"), filling),
        style=page_file(LIVE_STYLE),
        module="explain/live/page/panel.js",
    )


def live_text(reader: TextGenerator | MaskFiller, text: str) -> PageSection | str:
    """Return the model and its script, or the reason why the model cannot run in a page."""
    try:
        if isinstance(reader, MaskFiller):
            model = packed_filler(reader)
        else:
            model = packed_generator(reader)
    except NotLiveError as error:
        return str(error)
    texts = [given for given, _ in validation_pairs(reader.checkpoint.path)]
    examples = [given for given in texts if "mask" not in model or SHOWN_MASK in given]
    data = json_in_html({**model, "text": text, "examples": examples})
    return PageSection(
        html=f'<script type="application/json" id="live-model">{data}</script>',
        module="explain/live/page/text_panel.js",
    )
