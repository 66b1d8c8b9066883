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
        title="Questions and answers",
        lead="Short answers with the numbers of this model and this sentence.",
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
        "Where do the queries and keys of cross-attention come from?",
        "Queries are computed from the decoder's rows, one for each piece so far. Keys and values "
        f"are computed from the memory, which has {counted(s, 'row')} for the source. In step 1, "
        f"head 1 of layer 1, “{start}” takes {number(cross[top].item())} from "
        f"“{explained.source.texts[top]}”.",
        "decoder.1.cross_attention",
    )
    yield Question(
        "What is masked attention for? Does the mask depend on the direction of English?",
        "The result of masked attention is added to the row from which cross-attention computes "
        "its query. What has been written so far therefore determines what the query looks for. "
        "The mask hides pieces that are written later, in every direction of writing: in Arabic "
        f"(“أنا طالب”), the first piece is on the right. In step 1, “{start}” sees itself alone, "
        f"with weight 1. In step {steps}, it sees {counted(steps, 'piece')}.",
        "decoder.1.self_attention",
    )
    yield Question(
        "Is decoding parallel? And training?",
        "Decoding is sequential: each step needs the piece that the previous step chose, so it "
        f"takes {counted(steps, 'step')} here. Training is parallel: the correct translation is "
        "known, so all rows are computed in one pass, and the mask hides later pieces from each "
        "row.",
        "decoder.softmax",
    )
    yield Question(
        "How are padding, batches and long sentences handled?",
        "This page has one sentence, so there is no padding. In a batch, shorter sentences are "
        "padded at the end. The scores of padding are −∞, so that its weights are 0. "
        f"{'Angles' if explained.form.turned else 'Sines and cosines'} are defined for every "
        "position, but a model has learned nothing about sentences longer than those of its "
        "training.",
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
        f"There are {blueprint.parameters:,}: {stacks[0]:,} in the encoder's layers, "
        f"{stacks[1]:,} in the decoder's layers, and {rest:,} in embeddings and other parts "
        "outside the layers.",
        "decoder.embedding",
    )
    yield Question(
        "Where do the weights come from?",
        "Matrices begin as random numbers, gains as ones, and biases as zeros. Each training step "
        "changes them a little, so that the correct pieces become more probable. This page shows "
        f"the weights of {explained.checkpoint}.",
        "decoder.output",
    )
