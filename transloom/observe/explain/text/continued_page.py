"""Build the page of a language model, from a text to its continuation, piece by piece."""

import math

from foundation.wording import counted
from transloom.observe.explain import figures
from transloom.observe.explain.candidates import candidate_bars, others_share
from transloom.observe.explain.first_screen import continuation_screen
from transloom.observe.explain.parts import (
    Bar,
    Bars,
    Fold,
    Part,
    Section,
    Table,
    Text,
    Tokens,
    number,
    percent,
)
from transloom.observe.explain.stack_sections import Stack, stack_sections
from transloom.observe.explain.text.input_sections import input_sections
from transloom.observe.explain.text.overview_section import overview_section
from transloom.observe.explain.text.text_explanation import ContinuedText


def continued_page_of(explained: ContinuedText) -> list[Section]:
    """Return all sections, in the order of the forward pass."""
    stack = Stack(
        group="Layers",
        key="decoder",
        noun="Layer",
        form=explained.form,
        pieces=explained.pieces.texts,
        attends="Every piece looks at itself and at earlier pieces, never at later ones (grey)",
        by_hand=len(explained.pieces.ids) - 1,
    )
    return [
        _overview(explained),
        *input_sections(explained, "decoder"),
        *stack_sections(stack, explained.stack.layers),
        _next_piece(explained),
        _each_step(explained),
        _every_place(explained),
    ]


def _overview(explained: ContinuedText) -> Section:
    steps = counted(len(explained.chosen.ids), "step")
    return overview_section(
        explained,
        "From a text to its continuation",
        continuation_screen(explained),
        "The model reads a text, and predicts for each piece the probability that it comes next. "
        "One piece is chosen and appended to the text, and the model predicts the next piece. It "
        "repeats this, and does nothing else.",
        [
            Tokens("Text", explained.pieces.texts[: explained.given]),
            Tokens("Goes on", explained.chosen.texts),
            Text(
                f"This page follows greedy search for {steps}, each of which takes the most "
                f"probable piece. The result is “{explained.text}{explained.continuation}”. The "
                "command transloom generate instead draws pieces at random according to their "
                "probabilities, unless decoding.temperature is 0."
            ),
        ],
    )


def _bars(explained: ContinuedText, step: int) -> list[Bar]:
    """Return the candidates of a step; step 0 predicts the first piece after the given text."""
    traced, place = explained.trace, explained.given - 1 + step
    return candidate_bars(
        traced.logits_btv[0, place],
        traced.probabilities_btv[0, place],
        explained.vocabulary,
        explained.chosen.ids[step],
    )


def _next_piece(explained: ContinuedText) -> Section:
    last = explained.given - 1
    piece, chosen = explained.pieces.texts[last], explained.chosen.texts[0]
    bars = _bars(explained, 0)
    others, rest = others_share(bars, explained.vocabulary)
    return Section(
        group="Result",
        name="The next piece",
        title=f"After “{piece}” comes “{chosen}”",
        lead=(
            "The last layer's row for the end of the text is normalised once more, and compared "
            f"with all {len(explained.vocabulary):,} pieces."
        ),
        parts=[
            figures.vectors(
                "leaves the decoder", explained.stack.output_btm[0, last : last + 1], [piece]
            ),
            Text(
                "The product of this row and a piece's row in the output matrix is the piece's "
                "logit. The softmax converts logits to probabilities."
            ),
            Bars(bars),
            Text(f"The other {others:,} pieces share {percent(rest)}."),
        ],
        shows={"": ["decoder.last_norm", "decoder.output", "decoder.softmax"]},
    )


def _each_step(explained: ContinuedText) -> Section:
    parts: list[Part] = []
    for step, chosen in enumerate(explained.chosen.texts):
        so_far = explained.pieces.texts[: explained.given + step]
        title = f"{step + 1}: “{so_far[-1]}” → “{chosen}”"
        shown = Tokens(
            "The text so far", so_far[-figures.MAX_PIECES :], newest=True, follows=chosen
        )
        parts.append(Fold(title, [shown, Bars(_bars(explained, step))]))
    return Section(
        group="Result",
        name="Step by step",
        title="The continuation, step by step",
        lead=(
            "The input of each step is the piece that the previous step chose. The keys and values "
            "of earlier pieces are still stored, so each step computes only one row."
        ),
        parts=parts,
    )


def _every_place(explained: ContinuedText) -> Section:
    """Build the section about the prediction at every position, and the resulting training loss."""
    came = [*explained.pieces.ids[1:], explained.chosen.ids[-1]]
    names = [*explained.pieces.texts[1:], explained.chosen.texts[-1]]
    probabilities_tv = explained.trace.probabilities_btv[0]
    rows, losses = [], []
    for place, (piece, name) in enumerate(zip(came, names, strict=True)):
        found = probabilities_tv[place]
        best = int(found.argmax())
        losses.append(-math.log(max(found[piece].item(), 1e-38)))
        rows.append(
            (
                explained.pieces.texts[place],
                f"{explained.vocabulary[best]} ({percent(found[best].item())})",
                name,
                percent(found[piece].item()),
                number(losses[-1]),
            )
        )
    own = losses[: explained.given - 1]
    said = (
        f"Over the {len(own)} pieces of the given text, the mean is {number(sum(own) / len(own))} "
        "nats. The model itself chose the pieces after them."
        if own
        else "The model itself chose all of these pieces."
    )
    return Section(
        group="Result",
        name="Every place",
        title="The prediction at every position",
        lead=(
            "One pass gives a prediction after every piece, because no piece looks at later "
            "pieces. Training compares all predictions with the text: the loss of a piece is minus "
            "the logarithm of its probability."
        ),
        parts=[
            Table(["after", "likeliest", "came", "its probability", "loss, nats"], rows),
            Text(said),
        ],
    )
