"""Build the page of a translation, whose sections the page's modules draw from one trace."""

from typing import Any

from transloom.observe.explain import limits
from transloom.observe.explain.explanation import Explanation
from transloom.observe.explain.live.packing import MOST_PIECES
from transloom.observe.explain.page import COMPARE, LIVE, PageSection, PageStart, render
from transloom.observe.explain.recording import (
    RecordedTensors,
    model_facts,
    pieces_data,
    predictions,
)
from transloom.observe.explain.time_lapse.section import TIME_LAPSE


def translation_page(
    explained: Explanation,
    title: str,
    live: PageSection | str | None = None,
    compare: PageSection | None = None,
    lapse: PageSection | None = None,
) -> str:
    """Return the whole page as HTML.

    Args:
        live: the section with the model, which computes the trace, or the reason why there is none.
            Without it, or if the sentence is too long for it, the page contains the recorded trace.
        compare: the section that compares two models.
        lapse: the section with the time-lapse.
    """
    runs = live if isinstance(live, PageSection) else None
    links = (
        ("Type your own sentence", LIVE, runs),
        ("Compare two models side by side", COMPARE, compare),
        ("See how translations changed during training", TIME_LAPSE, lapse),
    )
    is_computed = runs and len(explained.source.ids) <= MOST_PIECES
    data = {
        **facts(explained),
        "places": [{"title": text, "place": place} for text, place, section in links if section],
        "recorded": None if is_computed else recorded(explained),
    }
    config = explained.config
    caption = "Each new piece is the decoder's next input."
    if runs:
        caption += " Choose a number of any map to see where it comes from."
    start = PageStart(
        heading="From sentence to translation",
        given=("Sentence", explained.sentence),
        made=("Translation", explained.translation),
        caption=caption,
        blueprint=explained.blueprint,
        layers=max(config.encoder_layers, config.decoder_layers),
        data=data,
        not_live=live if isinstance(live, str) else None if runs else "",
    )
    return render(start, title, [one for one in (runs, compare) if one], lapse)


def section_count(explained: Explanation) -> int:
    """Return the number of sections that the module draws for the page's sentence."""
    layers = min(explained.config.encoder_layers, limits.MAX_LAYERS)
    steps = min(len(explained.chosen.ids), limits.MAX_PIECES)
    # `before`: the sections up to the positions. `after`: memory, all steps, questions.
    before, after = 4, 3
    return before + 2 * layers + steps + after


def facts(explained: Explanation) -> dict[str, Any]:
    """Return the facts about the model that the page shows, the same for all sentences."""
    config, blueprint = explained.config, explained.blueprint
    size = len(explained.vocabulary)
    return {
        **model_facts("translation", config, blueprint, size, explained.checkpoint),
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "share_embeddings": config.share_embeddings,
        "output_bias": config.output_bias,
        "beam_size": explained.beam_size,
    }


def recorded(explained: Explanation) -> dict[str, Any]:
    """Return the trace of the page's sentence, which walk/trace.js reads."""
    tensors, traced = RecordedTensors(), explained.trace
    stacks = {"encoder": tensors.stack(traced.encoder), "decoder": tensors.stack(traced.decoder)}
    return {
        "sentence": explained.sentence,
        "source": pieces_data(explained.source),
        "target": pieces_data(explained.target_input),
        "chosen": pieces_data(explained.chosen),
        "made": explained.translation,
        "beam": explained.beam_translation,
        "predictions": predictions(
            traced.logits_btv[0],
            traced.probabilities_btv[0],
            explained.vocabulary,
            explained.chosen.ids,
            tuple(explained.never_chosen),
        ),
        "traced": stacks,
        **tensors.packed(),
    }
