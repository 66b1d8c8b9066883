"""Build the first section of a page about a text."""

from collections.abc import Sequence

from transloom.observe.explain import figures
from transloom.observe.explain.overview import LAYERS_DRAWN, about_figure, how_to_read, model_table
from transloom.observe.explain.parts import Drawing, FirstScreen, Heading, Part, Section
from transloom.observe.explain.text.text_explanation import TextExplanation


def overview_section(
    explained: TextExplanation,
    title: str,
    first_screen: FirstScreen,
    lead: str,
    about_the_text: Sequence[Part],
) -> Section:
    """Return the section with the figures, the result for the text, and the model's sizes."""
    layers = explained.config.layers
    table = model_table(
        str(layers),
        explained.form,
        explained.blueprint,
        len(explained.vocabulary),
        explained.checkpoint,
    )
    return Section(
        group="The model",
        name="Overview",
        title=title,
        lead=lead,
        first_screen=first_screen,
        parts=[
            *about_figure(explained.blueprint, "text"),
            Drawing(explained.blueprint, each_layer=layers <= LAYERS_DRAWN),
            Heading("The text"),
            *about_the_text,
            Heading("The model"),
            table,
            *how_to_read(what_is_left_out(explained)),
        ],
    )


def what_is_left_out(explained: TextExplanation) -> list[str]:
    """Describe content that the page leaves out because the model or the text is large."""
    form, pieces = explained.form, len(explained.pieces.ids)
    found = [
        figures.left_out(explained.config.layers, figures.MAX_LAYERS, "layers"),
        figures.left_out(form.heads, figures.MAX_HEADS, "heads"),
        figures.left_out(form.width, figures.MAX_NUMBERS, "numbers of a vector"),
        figures.left_out(form.inner_width, figures.MAX_NUMBERS, "inner numbers"),
        figures.left_out(pieces, figures.MAX_PIECES, "pieces of a map of vectors"),
        figures.left_out(pieces, figures.MAX_ATTENDED, "pieces of a map of weights"),
    ]
    return [cut for cut in found if cut]
