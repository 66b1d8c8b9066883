"""Build the start of a page: the text, the model's output, and a compact figure of the flow.

    tokens ─▶ encoder ─▶ memory ─▶ decoder ─▶ output

The figure has the pieces of the page's text and the most probable next piece. Each box links to the
section that shows its numbers. In a page with a live section, `live/page/first_screen_view.js`
shows the same for a sentence that the reader types.
"""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

from foundation.wording import counted
from transloom.observe.explain.explanation import Explanation
from transloom.observe.explain.markup import escape, is_right_to_left
from transloom.observe.explain.parts import FirstScreen, FlowBox, percent
from transloom.observe.explain.text.text_explanation import ContinuedText, FilledText

MAX_PIECES = 8  # of a box; `PIECES_IN_FLOW` in first_screen_view.js must be equal
NOTHING = "(nothing)"  # replaces an empty text
CHOOSE = "Choose a box to see its numbers."


def translation_screen(explained: Explanation) -> FirstScreen:
    """Return the first screen about the first decoding step of a translation."""
    config, pieces = explained.config, explained.source.texts
    probabilities_v = explained.trace.probabilities_btv[0, 0].clone()
    probabilities_v[list(explained.never_chosen)] = 0.0
    best = int(probabilities_v.argmax())
    return FirstScreen(
        given=("Sentence", explained.sentence),
        made=("Translation", explained.translation),
        boxes=[
            _tokens(pieces, "encoder.ids"),
            FlowBox(
                "Encoder",
                f"{counted(config.encoder_layers, 'layer')}; every piece attends to all",
                "encoder.1.self_attention",
            ),
            FlowBox("Memory", memory_text(len(pieces), config.width), "encoder.memory"),
            FlowBox(
                "Decoder",
                f"{counted(config.decoder_layers, 'layer')}; reads the memory and",
                "decoder.ids",
                explained.target_input.texts[:1],
            ),
            FlowBox(
                "Output",
                "most probable next piece:",
                "decoder.softmax",
                [explained.vocabulary[best]],
                probabilities_v[best].item(),
            ),
        ],
        caption=f"Decoding step 1. Each new piece is the decoder's next input. {CHOOSE}",
    )


def continuation_screen(explained: ContinuedText) -> FirstScreen:
    """Return the first screen about the first piece after a text."""
    best = explained.chosen.ids[0]
    probability = explained.trace.probabilities_btv[0, explained.given - 1, best].item()
    layers = counted(explained.config.layers, "layer")
    return FirstScreen(
        given=("Text", explained.text),
        made=("Continuation", explained.continuation),
        boxes=[
            _tokens(explained.pieces.texts[: explained.given], "decoder.ids"),
            FlowBox(
                "Decoder",
                f"{layers}; every piece attends to itself and earlier ones",
                "decoder.1.self_attention",
            ),
            FlowBox(
                "Output",
                "most probable next piece:",
                "decoder.softmax",
                [explained.vocabulary[best]],
                probability,
            ),
        ],
        caption=f"Step 1. Each new piece is appended to the text. {CHOOSE}",
    )


def filling_screen(explained: FilledText) -> FirstScreen:
    """Return the first screen about the first hidden piece of a text."""
    place, *others = explained.trace.places
    mask = explained.pieces.texts[place]
    probabilities_v = explained.trace.probabilities_nv[0]
    best = max(explained.ordinary, key=probabilities_v.tolist().__getitem__)
    layers = counted(explained.config.layers, "layer")
    return FirstScreen(
        given=("Text", explained.text),
        made=("Filled in", explained.filled),
        boxes=[
            _tokens(explained.pieces.texts, "encoder.ids", place),
            FlowBox(
                "Encoder",
                f"{layers}; every piece attends to all",
                "encoder.1.self_attention",
            ),
            FlowBox(
                "Output",
                f"most probable piece for {'the first ' if others else ''}{mask}:",
                "head.softmax",
                [explained.vocabulary[best]],
                probabilities_v[best].item(),
            ),
        ],
        caption=CHOOSE,
    )


def memory_text(pieces: int, width: int) -> str:
    """Describe the memory of a source with so many pieces."""
    return f"{counted(pieces, 'row')} of {width} numbers, one for each piece"


def excerpt(pieces: Sequence[str], keep: int = -1) -> list[str | None]:
    """Return the first pieces, the one at `keep` and the last one; None for those between them."""
    if len(pieces) <= MAX_PIECES:
        return list(pieces)
    last = len(pieces) - 1
    shown = sorted({*range(MAX_PIECES - 3), keep % len(pieces), last})
    found: list[str | None] = []
    for place, previous in zip(shown, [-1, *shown], strict=False):
        found += [None] if place > previous + 1 else []
        found.append(pieces[place])
    return found


def _tokens(pieces: Sequence[str], box: str, keep: int = -1) -> FlowBox:
    return FlowBox("Tokens", counted(len(pieces), "piece"), box, excerpt(pieces, keep))


def first_screen_markup(
    screen: FirstScreen,
    places: Mapping[str, str],
    has_live_box: bool,
    translations: Sequence[tuple[str, str]],
) -> str:
    """Return the first screen as HTML.

    Args:
        places: links to the parts of the page that show a box of the model's figure.
        has_live_box: add a box in which the script lets the reader type a sentence.
        translations: the name and the translation of each model, if the page compares two models.
    """
    folder = files("transloom.observe.explain")
    template = (folder / "first_screen.html").read_text(encoding="utf-8")
    label, text = screen.made
    (name, _), *others = translations or [("", "")]
    filling = {
        "given_label": escape(screen.given[0]),
        "given": escape(screen.given[1] or NOTHING),
        "live": _LIVE_BOX if has_live_box else "",
        "made_label": escape(f"{label} by {name}" if name else label),
        "made": escape(text or NOTHING),
        "others": "".join(
            f'<p data-first="other"><a class="label" href="#compare">'
            f'{escape(f"{label} by {other}")}</a> <span class="text" dir="auto">'
            f"{escape(translation or NOTHING)}</span></p>"
            for other, translation in others
        ),
        "boxes": "".join(_box(box, places.get(box.box)) for box in screen.boxes),
        "caption": escape(screen.caption),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filling[match[1]], template)


# The script shows it once the model can run.
_LIVE_BOX = (
    '<p data-first="typing" hidden><label for="first-sentence" class="label">Sentence</label>'
    '<textarea id="first-sentence" data-first="sentence" rows="2" maxlength="1000" dir="auto" '
    'spellcheck="false"></textarea></p><p class="label" data-first="state" role="status"></p>'
)


def _box(box: FlowBox, place: str | None) -> str:
    pieces = " ".join(
        "<i>…</i>"
        if piece is None
        else f'<bdi class="token{"" if box.probability is None else " follows"}">'
        f"{escape(piece)}</bdi>"
        for piece in box.pieces
    )
    if box.probability is not None:
        pieces += f" <b>{escape(percent(box.probability))}</b>"
    direction = ' dir="rtl"' if is_right_to_left(piece or "" for piece in box.pieces) else ""
    inside = (
        f'<strong>{escape(box.name)}</strong> <span class="about"><span>{escape(box.text)}</span> '
        f'<span class="pieces"{direction}>{pieces}</span></span>'
    )
    link = f'<a href="{escape(place or "")}" data-box="{escape(box.box)}">'
    inside = f"{link}{inside}</a>" if place else f"<div>{inside}</div>"
    return f'<li data-flow="{escape(box.name.lower())}">{inside}</li>'
