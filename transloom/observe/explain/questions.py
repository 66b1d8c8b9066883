"""Answer learners' questions with numbers of this sentence, and link to the place that shows them.

All numbers are computed from the trace or the parameters; tests compare them with the model.
"""

from collections.abc import Iterator

from foundation.wording import counted
from transloom.observe.explain.explanation import Explanation
from transloom.observe.explain.input_questions import of_input
from transloom.observe.explain.layer_questions import of_attention, of_layers
from transloom.observe.explain.parts import Heading, Link, Part, Section, Text, number
from transloom.observe.explain.question import Question


def questions_section(explained: Explanation) -> Section:
    """Return the section with all questions."""
    parts: list[Part] = []
    for question in questions(explained):
        place = Link("Where this page shows it", question.box)
        parts += [Heading(question.asked), Text(question.answer), place]
    return Section(
        group="Questions",
        name="Questions",
        title="What people ask",
        lead="Short answers, with the numbers of this model and this sentence.",
        parts=parts,
    )


def questions(explained: Explanation) -> Iterator[Question]:
    """Yield the questions in the order of the forward pass."""
    yield from of_input(explained)
    yield from of_attention(explained)
    yield from of_layers(explained)
    yield from _of_decoding(explained)
    yield from _of_weights(explained)


def _of_decoding(explained: Explanation) -> Iterator[Question]:
    steps, s = len(explained.chosen.ids), len(explained.source.texts)
    start = explained.target_input.texts[0]
    cross = explained.trace.decoder.layers[0].cross_attention.weights_bhts[0, 0, 0]
    top = int(cross.argmax())
    yield Question(
        "Whose queries and whose keys meet in cross-attention?",
        "Queries are made of the decoder's rows, one for each piece so far; keys and values of the "
        f"memory, {counted(s, 'row')} of the source. In step 1, head 1 of layer 1, “{start}” takes "
        f"{number(cross[top].item())} from “{explained.source.texts[top]}”.",
        "decoder.1.cross_attention",
    )
    yield Question(
        "What is masked attention's result for? Has the mask to do with the direction of English?",
        "Its result is added to the row, of which cross-attention then makes its query: what has "
        "been written decides what is looked for. The mask hides pieces that are written later, "
        "whichever way a script runs: in Arabic (“أنا طالب”) the first piece stands at the right. "
        f"In step 1 “{start}” sees itself alone, with weight 1; in step {steps} there are "
        f"{counted(steps, 'piece')} to see.",
        "decoder.1.self_attention",
    )
    yield Question(
        "Is decoding parallel? And training?",
        f"Decoding is not: a step needs the piece that the step before chose, so here are {steps} "
        "steps, one after the other. In training the right translation is known, so all rows are "
        "computed at once, and the mask keeps each from what comes later.",
        "decoder.softmax",
    )
    yield Question(
        "What of padding, batches and the longest sentence?",
        "Here is one sentence, so there is no padding. In a batch shorter sentences are filled up "
        "at the end, and the scores of padding are −∞, so that its weights are 0. "
        f"{'Angles' if explained.form.turned else 'Sines and cosines'} go on at any position, but "
        "of sentences longer than those of its training a model has learned nothing.",
        "encoder.ids",
    )


def _of_weights(explained: Explanation) -> Iterator[Question]:
    blueprint = explained.blueprint
    stacks = [
        sum(box.parameters for layer in column.layers for box in layer.boxes)
        for column in blueprint.columns
    ]
    rest = blueprint.parameters - sum(stacks)
    yield Question(
        "How many weights are there, and where?",
        f"{blueprint.parameters:,}: {stacks[0]:,} in the encoder's layers, {stacks[1]:,} in the "
        f"decoder's, {rest:,} in embeddings and what else stands outside the layers.",
        "decoder.embedding",
    )
    yield Question(
        "Where do the weights come from?",
        "Matrices begin as random numbers, gains as ones, biases and shifts as zeros. Each step of "
        "training moves them a little, so that the right pieces become more probable. This page "
        f"has those of {explained.checkpoint}.",
        "decoder.output",
    )
