"""What learners ask, answered on this sentence, each with the place that shows it.

Every number is worked out from the trace or the parameters; tests hold them to the model.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from data_pipeline.wording import counted
from trainer.explain.blueprint.forms import ACTIVATION_NAMES
from trainer.explain.explanation import Explanation
from trainer.explain.parts import Heading, Link, Part, Section, Text, number


@dataclass(frozen=True)
class Question:
    """A question, its answer, and the box of the model's figure that it is about."""

    asked: str
    answer: str
    box: str


def questions_section(explained: Explanation) -> Section:
    """All questions."""
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
    """The questions in the order of the forward pass."""
    yield from _of_input(explained)
    yield from _of_attention(explained)
    yield from _of_layers(explained)
    yield from _of_decoding(explained)
    yield from _of_weights(explained)


def _of_input(explained: Explanation) -> Iterator[Question]:
    config, source = explained.config, explained.source
    width, piece = config.width, source.texts[0]
    embedding = explained.trace.encoder.embedding
    scaled, position = embedding.scaled_btm[0, 0].float(), embedding.positions_tm[0].float()
    rows = next(
        box.weights[0].shape[0]
        for box in explained.blueprint.boxes()
        if box.kind == "embedding" and box.weights
    )
    yield Question(
        "Is a piece a one-hot vector?",
        f"As a one-hot vector, “{piece}” would be {rows:,} numbers, a 1 at place {source.ids[0]} "
        f"and zeros elsewhere. Multiplied by the embedding matrix it gives row {source.ids[0]} of "
        f"it, so the row is simply taken out. What goes on is this row of {width} numbers, which "
        "is not one-hot.",
        "encoder.embedding",
    )
    yield Question(
        "Are these vectors those of word2vec?",
        "No. The matrix is a part of this model and is trained with all other weights, to "
        "translate. word2vec's vectors are trained by themselves, to tell which words stand near "
        "each other.",
        "encoder.embedding",
    )
    yield Question(
        f"Why is the embedding multiplied by √{width}?",
        "The paper does not say. It keeps positions from drowning what the piece says: every "
        "position's vector has the length "
        f"√{width // 2} = {number((width / 2) ** 0.5)}; the embedding of “{piece}” has "
        f"{number(_length(scaled))} as multiplied, and would have "
        f"{number(_length(scaled) / width**0.5)}.",
        "encoder.positions",
    )
    products = embedding.positions_tm.float() @ position
    last = len(source.texts) - 1
    further = f", of 0 and {last} {number(products[last].item())}" if last > 1 else ""
    near = f"Of positions 0 and 1 it is {number(products[1].item())}{further}. " if last else ""
    yield Question(
        "What do positions say of nearness?",
        f"The dot product of two positions' vectors depends on their distance alone. {near}Of a "
        f"position with itself it is {number(width / 2)}, the most there is.",
        "encoder.positions",
    )


def _of_attention(explained: Explanation) -> Iterator[Question]:
    config, pieces = explained.config, explained.source.texts
    s, d, width = len(pieces), config.head_width, config.width
    attention = explained.trace.encoder.layers[0].self_attention
    box = "encoder.1.self_attention"
    yield Question(
        "Are Q, K and V inputs or outputs? Is Wq the sentence?",
        f"Q, K and V are what x·Wq + bq, x·Wk + bk and x·Wv + bv give, and what attention then "
        f"works on. The sentence is in x, {s} × {width} numbers. Wq has {width} × {width}, is "
        "learned, and is the same for every sentence.",
        box,
    )
    yield Question(
        "Why is K transposed, and which shapes fit?",
        f"A product of (a × b) and (b × c) is (a × c). In one head Q is {s} × {d} and so is K; "
        f"turned over, K is {d} × {s}, and Q·Kᵀ is {s} × {s}: a score for each pair of pieces.",
        box,
    )
    scores = attention.scores_bhts[0, 0, 0].float()
    weights, sharp = scores.softmax(0), (scores * d**0.5).softmax(0)
    top = int(weights.argmax())
    yield Question(
        f"Why is a score divided by √{d}, and why a softmax?",
        f"A dot product adds up {d} products, so it tends to grow with √{d} = {number(d**0.5)}; "
        "divided by that, it is about as large whatever the heads' width. The softmax makes of any "
        f"scores weights above 0 that add up to 1. In head 1, “{pieces[0]}” takes "
        f"{number(weights[top].item())} from “{pieces[top]}”; undivided, it would take "
        f"{number(sharp[top].item())}.",
        box,
    )
    yield Question(
        "Do heads cut the vector, or have they matrices of their own? Are they like convolutions?",
        f"Each of {config.heads} heads has {d} columns of Wq, Wk and Wv for itself, and so reads "
        f"all {width} numbers of a row. What is cut into parts of {d} is the result. A convolution "
        "has fixed weights for neighbours at fixed distances; a head works its weights out from "
        f"the pieces: “{pieces[0]}” looks most at “{pieces[top]}” in head 1.",
        box,
    )
    yield Question(
        "In which order are heads joined, and does it matter?",
        f"Head 1 gives numbers 0 to {d - 1} of the joined row, and so on to number {width - 1}. "
        "Row i of Wo belongs to number i, so another order would need Wo's rows in that order, and "
        "would then give the same.",
        box,
    )
    yield Question(
        "How does a model know what “it” refers to?",
        "No part of it looks that up. The row of a pronoun takes from rows of other pieces, by "
        "weights like those here, and training made what helps to translate. A large weight says "
        "where a row looked; what it needed, a weight does not say.",
        box,
    )


def _of_layers(explained: Explanation) -> Iterator[Question]:
    config, piece = explained.config, explained.source.texts[0]
    layer = explained.trace.encoder.layers[0]
    residual = layer.self_attention_residual
    before, total = residual.input_btm[0, 0, 0].item(), residual.sum_btm[0, 0, 0].item()
    found = layer.self_attention.output_btm[0, 0, 0].item()
    if config.norm == "pre":
        added, then = "The row from before the normalisation", "The sum goes on as it is."
    else:
        added = "The row that went into the sub-layer"
        then = "Then the whole row is normalised, so the input does not go on unchanged."
    yield Question(
        "What is added at a skip, and is anything lost?",
        f"{added} is added to what came out of the sub-layer, number by number. For "
        f"“{piece}”, dimension 0: {number(before, 3)} + {number(found, 3)} ≈ {number(total, 3)}. "
        f"From the sum alone nobody could tell the two apart again. {then}",
        "encoder.1.self_attention.sum",
    )
    yield Question(
        "Does a residual connection skip the sub-layer? Is it dropout?",
        "Neither. The way through and the way around are both taken, always, and are added. "
        "Dropout sets numbers to zero by chance and enlarges the others, in training alone (here "
        f"a share of {config.dropout:g}), so that no few numbers come to decide everything; on "
        "this page there is none.",
        "encoder.1.self_attention.sum",
    )
    inner = layer.feed_forward.inner_btf[0, 0]
    activation = ACTIVATION_NAMES[config.activation]
    bends = (
        "sets negative numbers to zero"
        if config.activation == "relu"
        else "keeps large positive numbers and brings large negative ones close to zero"
    )
    yield Question(
        f"Why linear layers, and why the {activation} between them?",
        "A linear layer is the simplest blend of numbers that can be learned. Two of them with "
        f"nothing between are one: x·W₁·W₂ = x·(W₁·W₂). The {activation} {bends}, so that they "
        f"are not. For “{piece}”, {int((inner > 0).sum())} of {len(inner)} are above zero.",
        "encoder.1.feed_forward",
    )
    own = sum(box.parameters for box in explained.blueprint.columns[0].layers[0].boxes)
    count = config.encoder_layers
    yield Question(
        "Why so many layers, and do they share weights?",
        f"The paper has six in each stack; this model has {count} and {config.decoder_layers}. How "
        f"many are best is found by trying. None is shared: each encoder layer has {own:,} "
        "parameters of its own.",
        f"encoder.{min(count, 2)}.feed_forward",
    )
    first = residual.input_btm[0, 0].float()
    after = explained.trace.encoder.layers[-1].feed_forward_residual.output_btm[0, 0].float()
    cosine = (first @ after).item() / (_length(first) * _length(after))
    yield Question(
        "Do later layers become more abstract?",
        "What can be measured is how far a row has moved: the cosine between the row of "
        f"“{piece}” before layer 1 and after layer {count} is {number(cosine)} (1 would be the "
        "same direction). That a row stands for something abstract, no number on this page says.",
        "encoder.memory",
    )


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
        "at the end, and the scores of padding are −∞, so that its weights are 0. Sines and "
        "cosines go on at any position, but of sentences longer than those of its training a "
        "model has learned nothing.",
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


def _length(row: Tensor) -> float:
    return row.norm().item()
