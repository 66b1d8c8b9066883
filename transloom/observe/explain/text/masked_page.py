"""Build the page of a masked model, from a text with [MASK] to the predicted pieces."""

from transloom.observe.explain import figures
from transloom.observe.explain.blueprint.forms import ACTIVATION_NAMES
from transloom.observe.explain.candidates import candidate_bars, others_share
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
        attends="Every piece looks at every piece of the text, before it and behind it",
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
        f"What is hidden in “{explained.text}”",
        "An encoder reads the whole text and turns each piece into a row of numbers, to which all "
        "others have given something. From the row of a hidden piece a head tells which one it "
        "was.",
        [
            Tokens("Pieces", explained.pieces.texts),
            Text(
                f"Filled in with the likeliest pieces: “{explained.filled}”. Where several are "
                "hidden, each is told without knowing what the others become."
            ),
        ],
    )


def _last_states(explained: FilledText) -> Section:
    last = "after a last normalisation, " if explained.form.pre_norm else ""
    return Section(
        group="Encoder",
        name="Hidden states",
        title="What leaves the encoder",
        lead=(
            f"The text as the encoder understands it: {last}a row of {explained.form.width} "
            "numbers for each piece. Each row began as one piece and now knows its neighbours."
        ),
        parts=[
            figures.vectors("hidden states", explained.stack.output_btm[0], explained.pieces.texts),
            Text("Only the rows of hidden pieces go on into the head."),
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
            f"One more matrix, a bias and {ACTIVATION_NAMES[form.activation]} prepare the row; a "
            "layer normalisation follows."
        ),
        figures.vectors(
            f"the head's layer, after {ACTIVATION_NAMES[form.activation]}", traced.inner_nm, names
        ),
        figures.vectors("layer normalisation", traced.normed_nm, names),
        Text(
            f"It is multiplied with the row of each of the {len(explained.vocabulary):,} pieces in "
            "the embedding matrix, which is the output matrix too, and a bias is added. That gives "
            "a logit for each piece; the softmax makes probabilities of them."
        ),
    ]
    for number in range(min(len(traced.places), figures.MAX_PIECES)):
        parts += _candidates(explained, number, names[number])
    return Section(
        group="Result",
        name="What is hidden",
        title="Which pieces were hidden?",
        lead=(
            "The head compares the row of each hidden piece with all pieces that there are. In "
            "training, the loss is minus the logarithm of the right piece's probability."
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
            f"“{explained.vocabulary[best]}” is taken, with "
            f"{percent(probabilities_v[best].item())}. The other {others:,} pieces share "
            f"{percent(rest)}."
        ),
    ]
