"""Build the page of a masked model, from a text with [MASK] to the predicted pieces."""

from transloom.observe.explain import figures
from transloom.observe.explain.blueprint.forms import ACTIVATION_NAMES
from transloom.observe.explain.candidates import candidate_bars, others_share
from transloom.observe.explain.first_screen import filling_screen
from transloom.observe.explain.parts import Bars, Heading, Part, Section, Text, Tokens, percent
from transloom.observe.explain.stack_sections import Stack, stack_sections
from transloom.observe.explain.text.input_sections import input_sections
from transloom.observe.explain.text.overview_section import overview_section
from transloom.observe.explain.text.text_explanation import FilledText


def masked_page_of(explained: FilledText) -> list[Section]:
    """Return all sections, in the order of the forward pass."""
    stack = Stack(
        group="Encoder",
        key="encoder",
        noun="Layer",
        form=explained.form,
        pieces=explained.pieces.texts,
        attends="Every piece looks at every piece of the text, before and after it",
    )
    return [
        _overview(explained),
        *input_sections(explained, "encoder"),
        *stack_sections(stack, explained.stack.layers),
        _last_states(explained),
        _told(explained),
    ]


def _overview(explained: FilledText) -> Section:
    return overview_section(
        explained,
        "From a text to its hidden pieces",
        filling_screen(explained),
        "An encoder reads the whole text, and turns each piece into a row of numbers that depends "
        "on all other pieces. From the row of a hidden piece, a head predicts which piece it was.",
        [
            Tokens("Pieces", explained.pieces.texts),
            Text(
                f"With the most probable pieces, the text is “{explained.filled}”. If several "
                "pieces are hidden, the model predicts each of them without the predictions for "
                "the others."
            ),
        ],
    )


def _last_states(explained: FilledText) -> Section:
    last = " (after a last normalisation)" if explained.form.pre_norm else ""
    return Section(
        group="Encoder",
        name="Hidden states",
        title="The output of the encoder",
        lead=(
            f"The output of the encoder{last} is a row of {explained.form.width} numbers for each "
            "piece. Each row began as the embedding of one piece, and now also depends on the "
            "other pieces."
        ),
        parts=[
            figures.vectors("hidden states", explained.stack.output_btm[0], explained.pieces.texts),
            Text("The head reads only the rows of hidden pieces."),
        ],
        shows={"": ["encoder.last_norm"]},
    )


def _told(explained: FilledText) -> Section:
    traced, form = explained.trace, explained.form
    names = [f"[MASK] {number}" for number in range(1, len(traced.places) + 1)]
    states_nm = explained.stack.output_btm[0, list(traced.places)]
    parts: list[Part] = [
        figures.vectors("leaves the encoder", states_nm, names),
        Text(
            f"The head multiplies the row by a matrix, adds a bias, and applies "
            f"{ACTIVATION_NAMES[form.activation]} and a layer normalisation."
        ),
        figures.vectors(
            f"the head's layer, after {ACTIVATION_NAMES[form.activation]}", traced.inner_nm, names
        ),
        figures.vectors("layer normalisation", traced.normed_nm, names),
        Text(
            f"The result is multiplied by the row of each of the {len(explained.vocabulary):,} "
            "pieces in the embedding matrix, which is also the output matrix. With a bias, this "
            "gives a logit for each piece. The softmax converts the logits to probabilities."
        ),
    ]
    for number in range(min(len(traced.places), figures.MAX_PIECES)):
        parts += _candidates(explained, number, names[number])
    return Section(
        group="Result",
        name="What is hidden",
        title="Which pieces were hidden?",
        lead=(
            "The head compares the row of each hidden piece with all pieces of the vocabulary. In "
            "training, the loss is minus the logarithm of the correct piece's probability."
        ),
        parts=parts,
        shows={"": ["head.dense", "head.norm", "head.output", "head.softmax"]},
    )


def _candidates(explained: FilledText, number: int, name: str) -> list[Part]:
    traced, place = explained.trace, explained.trace.places[number]
    probabilities_v = traced.probabilities_nv[number]
    best = max(explained.ordinary, key=probabilities_v.tolist().__getitem__)
    bars = candidate_bars(traced.logits_nv[number], probabilities_v, explained.vocabulary, best)
    others, rest = others_share(bars, explained.vocabulary)
    before, after = (explained.pieces.texts[place + step] for step in (-1, 1))
    return [
        Heading(f"{name}, between “{before}” and “{after}”"),
        Bars(bars),
        Text(
            f"The most probable piece is “{explained.vocabulary[best]}”, with "
            f"{percent(probabilities_v[best].item())}. The other {others:,} pieces share "
            f"{percent(rest)}."
        ),
    ]
