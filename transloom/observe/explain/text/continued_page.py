"""Build the page of a language model, from a text to its continuation, piece by piece."""

import math

from foundation.wording import counted
from transloom.observe.explain import figures
from transloom.observe.explain.candidates import candidate_bars, others_share
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
        attends="Every piece looks at itself and at those before it, never ahead (grey)",
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
        f"How “{explained.text}” goes on",
        "The model reads a text and gives, for each piece, how likely it is the next one. One is "
        "chosen, goes in again, and so on: that is all it does.",
        [
            Tokens("Text", explained.pieces.texts[: explained.given]),
            Tokens("Goes on", explained.chosen.texts),
            Text(
                f"This page follows greedy search for {steps}: each takes the most probable piece. "
                f"With them the text reads “{explained.text}{explained.continuation}”. The command "
                "transloom generate draws pieces by their probability instead, unless "
                "decoding.temperature is 0."
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
            "The row that leaves the last layer at the end of the text is normalised once more and "
            f"compared with all {len(explained.vocabulary):,} pieces."
        ),
        parts=[
            figures.vectors(
                "leaves the decoder", explained.stack.output_btm[0, last : last + 1], [piece]
            ),
            Text(
                "Its product with the row of a piece in the output matrix is that piece's logit; "
                "the softmax makes probabilities of the logits."
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
            "What was chosen goes in at the bottom. What earlier pieces left behind, their keys "
            "and values, is still there, so each step computes one row alone."
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
        f"Over the {len(own)} pieces of the text itself the mean is {number(sum(own) / len(own))} "
        "nats; the pieces behind them are those that the model itself chose."
        if own
        else "All of these pieces are those that the model itself chose."
    )
    return Section(
        group="Result",
        name="Every place",
        title="What was expected at every place",
        lead=(
            "One pass gives a prediction after every piece, since none looks ahead. In training "
            "all of them are compared with the text: minus the logarithm of a piece's probability "
            "is its loss."
        ),
        parts=[
            Table(["after", "likeliest", "came", "its probability", "loss, nats"], rows),
            Text(said),
        ],
    )
