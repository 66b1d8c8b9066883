"""Answer learners' questions about attention and layers."""

from collections.abc import Iterator

from transloom.observe.explain.explanation import Explanation
from transloom.observe.explain.parts import number
from transloom.observe.explain.question import Question, length


def of_attention(explained: Explanation) -> Iterator[Question]:
    config, pieces = explained.config, explained.source.texts
    s, d, width = len(pieces), config.head_width, config.width
    attention = explained.trace.encoder.layers[0].self_attention
    box = "encoder.1.self_attention"
    yield Question(
        "Are Q, K and V inputs or outputs? Is Wq the sentence?",
        "Q, K and V are the results of x·Wq + bq, x·Wk + bk and x·Wv + bv, and the inputs of "
        f"attention. The sentence is in x, {s} × {width} numbers. Wq is a learned matrix of "
        f"{width} × {width} numbers, which is the same for every sentence.",
        box,
    )
    yield Question(
        "Why is K transposed, and which shapes fit?",
        f"The product of an (a × b) and a (b × c) matrix is (a × c). In one head, Q and K are both "
        f"{s} × {d}. The transposed K is {d} × {s}, and Q·Kᵀ is {s} × {s}: it has one score for "
        "each pair of pieces.",
        box,
    )
    scores = attention.scores_bhts[0, 0, 0].float()
    weights, sharp = scores.softmax(0), (scores * d**0.5).softmax(0)
    top = int(weights.argmax())
    yield Question(
        f"Why is a score divided by √{d}, and why a softmax?",
        f"A dot product is a sum of {d} products, so it tends to grow with √{d} = "
        f"{number(d**0.5)}. Dividing by this number keeps scores at a similar size for every width "
        "of the heads. The softmax converts scores to weights above 0 that add up to 1. In head 1, "
        f"“{pieces[0]}” takes {number(weights[top].item())} from “{pieces[top]}”. Without the "
        f"division, it would take {number(sharp[top].item())}.",
        box,
    )
    yield Question(
        "Do heads split the vector, or do they have separate matrices? Are they like convolutions?",
        f"{_whose_columns(explained)}, so each head reads all {width} numbers of a row. Only the "
        f"result is split into parts of {d} numbers. A convolution has fixed weights for "
        "neighbours at fixed distances. A head computes its weights from the pieces: for example, "
        f"“{pieces[0]}” looks most at “{pieces[top]}” in head 1.",
        box,
    )
    yield Question(
        "In which order are heads joined, and does it matter?",
        f"Head 1 gives numbers 0 to {d - 1} of the joined row, head 2 the next {d} numbers, and so "
        f"on up to number {width - 1}. Number i is multiplied by row i of Wo. Another order of the "
        "heads gives the same result if the rows of Wo are in that order, too.",
        box,
    )
    yield Question(
        "How does a model know what “it” refers to?",
        "No part of the model looks this up. The row of a pronoun takes values from the rows of "
        "other pieces, with weights like those shown here. Training has changed these weights so "
        "that they help to translate. A large weight shows which piece a row looked at, but not "
        "which piece it needed.",
        box,
    )


def _whose_columns(explained: Explanation) -> str:
    form = explained.form
    d = form.head_width
    if form.groups == form.heads:
        return f"Each of the {form.heads} heads has its own {d} columns of Wq, Wk and Wv"
    return (
        f"Each of the {form.heads} heads has its own {d} columns of Wq. Each of the {form.groups} "
        f"heads of keys and values has {d} columns of Wk and Wv, and serves "
        f"{form.heads // form.groups} heads of queries"
    )


def of_layers(explained: Explanation) -> Iterator[Question]:
    config, piece = explained.config, explained.source.texts[0]
    layer = explained.trace.encoder.layers[0]
    residual = layer.self_attention_residual
    before, total = residual.input_btm[0, 0, 0].item(), residual.sum_btm[0, 0, 0].item()
    found = layer.self_attention.output_btm[0, 0, 0].item()
    if config.norm == "pre":
        added, then = "The row before the normalisation", "The sum is passed on unchanged."
    else:
        added = "The input of the sub-layer"
        then = "The whole row is then normalised, so the input is not passed on unchanged."
    yield Question(
        "What does a residual connection add, and is anything lost?",
        f"{added} is added to the output of the sub-layer, number by number. For “{piece}”, "
        f"dimension 0: {number(before, 3)} + {number(found, 3)} ≈ {number(total, 3)}. The two "
        f"numbers cannot be recovered from their sum. {then}",
        "encoder.1.self_attention.sum",
    )
    yield Question(
        "Does a residual connection skip the sub-layer? Is it dropout?",
        "Neither. The model always computes the sub-layer, and adds its output to its input. "
        f"Dropout sets a random share of the numbers to zero ({config.dropout:g} in this model) "
        "and enlarges the others, so that the result does not depend on a few numbers. Dropout is "
        "used only in training; this page has none.",
        "encoder.1.self_attention.sum",
    )
    yield _why_not_linear(explained)
    own = sum(box.parameters for box in explained.blueprint.columns[0].layers[0].boxes)
    count = config.encoder_layers
    yield Question(
        "Why so many layers, and do they share weights?",
        f"The paper has six layers in each stack; this model has {count} in the encoder and "
        f"{config.decoder_layers} in the decoder. The best number is found by experiment. Layers "
        f"do not share weights: each encoder layer has {own:,} parameters.",
        f"encoder.{min(count, 2)}.feed_forward",
    )
    first = residual.input_btm[0, 0].float()
    after = explained.trace.encoder.layers[-1].feed_forward_residual.output_btm[0, 0].float()
    cosine = (first @ after).item() / (length(first) * length(after))
    yield Question(
        "Do later layers become more abstract?",
        "The page can measure how much a row changes: the cosine between the row of "
        f"“{piece}” before layer 1 and after layer {count} is {number(cosine)} (1 means the same "
        "direction). No number on this page shows whether a row represents something abstract.",
        "encoder.memory",
    )


def _why_not_linear(explained: Explanation) -> Question:
    form, piece = explained.form, explained.source.texts[0]
    inner = explained.trace.encoder.layers[0].feed_forward.inner_btf[0, 0]
    box = "encoder.1.feed_forward"
    linear = "A linear layer learns a weighted sum of numbers. Two linear layers with"
    if form.is_gated:
        return Question(
            "Why a gate between the linear layers?",
            f"{linear} nothing between them are equivalent to one: x·W·W₂ = x·(W·W₂). Here, SiLU "
            "is applied to x·W: it keeps large positive numbers, and brings large negative ones "
            "close to zero. The result is multiplied by x·V, number by number, and so determines "
            f"which share of x·V is passed on. For “{piece}”, this gives {len(inner)} numbers.",
            box,
        )
    bends = (
        "sets negative numbers to zero"
        if form.activation == "relu"
        else "keeps large positive numbers and brings large negative ones close to zero"
    )
    return Question(
        f"Why linear layers, and why the {form.bend} between them?",
        f"{linear} nothing between them are equivalent to one: x·W₁·W₂ = x·(W₁·W₂). The "
        f"{form.bend} {bends}, so that two layers can compute more than one. For “{piece}”, "
        f"{int((inner > 0).sum())} of {len(inner)} are above zero.",
        box,
    )
