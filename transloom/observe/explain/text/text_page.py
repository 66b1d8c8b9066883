"""Build the page of a text, whose sections the page's modules draw from one recorded trace."""

from typing import Any

from transloom.observe.explain import limits
from transloom.observe.explain.blueprint.forms import activation_name
from transloom.observe.explain.live.packing import MOST_PIECES
from transloom.observe.explain.page import PageSection, PageStart, render
from transloom.observe.explain.recording import (
    RecordedTensors,
    model_facts,
    pieces_data,
    predictions,
)
from transloom.observe.explain.text.text_explanation import (
    ContinuedText,
    FilledText,
    TextExplanation,
)


def text_page(
    explained: FilledText | ContinuedText, title: str, live: PageSection | str = ""
) -> str:
    """Return the page that shows how a model predicts pieces for a text.

    Args:
        live: the model, which computes the trace, or the reason why the page does not contain it.
    """
    if isinstance(explained, FilledText):
        heading, made = "From a text to its hidden pieces", ("Filled in", explained.filled)
        caption = ""
    else:
        heading, made = "From a text to its continuation", ("Continuation", explained.continuation)
        caption = "Step 1. Each new piece is appended to the text."
    is_computed = isinstance(live, PageSection) and len(explained.pieces.ids) <= MOST_PIECES
    start = PageStart(
        heading=heading,
        given=("Text", explained.text),
        made=made,
        caption=caption,
        blueprint=explained.blueprint,
        layers=explained.config.layers,
        data={**facts(explained), "recorded": None if is_computed else recorded(explained)},
        not_live=None if isinstance(live, PageSection) else live,
    )
    return render(start, title, [live] if isinstance(live, PageSection) else [])


def section_count(explained: TextExplanation) -> int:
    """Return the number of sections that the module draws."""
    # The last section has questions.
    before, after = 3, 3 if isinstance(explained, FilledText) else 4
    return before + 2 * min(explained.config.layers, limits.MAX_LAYERS) + after


def facts(explained: TextExplanation) -> dict[str, Any]:
    """Return the facts about the model that the page shows."""
    config = explained.config
    family = "filling" if isinstance(explained, FilledText) else "continuation"
    size = len(explained.vocabulary)
    return {
        **model_facts(family, config, explained.blueprint, size, explained.checkpoint),
        "layers": config.layers,
        "activation": activation_name(config.activation),
        "places": [],
    }


def recorded(explained: FilledText | ContinuedText) -> dict[str, Any]:
    """Return the trace of a text, with its hidden pieces or its continuation."""
    found = _filling(explained) if isinstance(explained, FilledText) else _continuation(explained)
    return {
        "text": explained.text,
        "pieces": pieces_data(explained.pieces),
        "positions": explained.positions,
        **found,
    }


def _continuation(explained: ContinuedText) -> dict[str, Any]:
    tensors, traced, last = RecordedTensors(), explained.trace, explained.given - 1
    states_nm = traced.stack.output_btm[0, last : last + 1]
    return {
        "given": explained.given,
        "is_cut": explained.is_cut,
        "chosen": pieces_data(explained.chosen),
        "made": explained.continuation,
        "predictions": predictions(
            traced.logits_btv[0],
            traced.probabilities_btv[0],
            explained.vocabulary,
            [*explained.pieces.ids[1:], explained.chosen.ids[-1]],
        ),
        "traced": {
            "stack": tensors.stack(traced.stack),
            "states_nm": tensors.add(states_nm, "states_nm")[1],
        },
        **tensors.packed(),
    }


def _filling(explained: FilledText) -> dict[str, Any]:
    tensors, traced, places = RecordedTensors(), explained.trace, list(explained.trace.places)
    rows = {
        "states_nm": traced.stack.output_btm[0, places],
        "inner_nm": traced.inner_nm,
        "normed_nm": traced.normed_nm,
    }
    return {
        "is_pair": explained.is_pair,
        "places": places,
        "made": explained.filled,
        "predictions": predictions(
            traced.logits_nv,
            traced.probabilities_nv,
            explained.vocabulary,
            [-1] * len(places),
            [*{*range(len(explained.vocabulary))}.difference(explained.ordinary)],
        ),
        "traced": {
            "stack": tensors.stack(traced.stack),
            **{name: tensors.add(values, name)[1] for name, values in rows.items()},
        },
        **tensors.packed(),
    }
