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
        f"{_whose_columns(explained)}, and so each reads all {width} numbers of a row. What is cut "
        f"into parts of {d} is the result. A convolution "
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


def _whose_columns(explained: Explanation) -> str:
    form = explained.form
    d = form.head_width
    if form.groups == form.heads:
        return f"Each of {form.heads} heads has {d} columns of Wq, Wk and Wv for itself"
    return (
        f"Each of {form.heads} heads has {d} columns of Wq for itself, and {form.groups} heads of "
        f"keys and values {d} of Wk and Wv, each for {form.heads // form.groups} heads of queries"
    )


def of_layers(explained: Explanation) -> Iterator[Question]:
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
    yield _why_not_linear(explained)
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
    cosine = (first @ after).item() / (length(first) * length(after))
    yield Question(
        "Do later layers become more abstract?",
        "What can be measured is how far a row has moved: the cosine between the row of "
        f"“{piece}” before layer 1 and after layer {count} is {number(cosine)} (1 would be the "
        "same direction). That a row stands for something abstract, no number on this page says.",
        "encoder.memory",
    )


def _why_not_linear(explained: Explanation) -> Question:
    form, piece = explained.form, explained.source.texts[0]
    inner = explained.trace.encoder.layers[0].feed_forward.inner_btf[0, 0]
    box = "encoder.1.feed_forward"
    linear = (
        "A linear layer is the simplest blend of numbers that can be learned. Two of them with "
    )
    if form.is_gated:
        return Question(
            "Why a gate between the linear layers?",
            f"{linear} with nothing between are one: x·W·W₂ = x·(W·W₂). Here x·W goes through "
            "SiLU, which keeps large positive numbers and brings large negative ones close to "
            "zero, and is multiplied with x·V, number by number: one blend says how much of the "
            "other goes on. "
            f"For “{piece}”, {len(inner)} numbers come out of the gate.",
            box,
        )
    bends = (
        "sets negative numbers to zero"
        if form.activation == "relu"
        else "keeps large positive numbers and brings large negative ones close to zero"
    )
    return Question(
        f"Why linear layers, and why the {form.bend} between them?",
        f"{linear} with nothing between are one: x·W₁·W₂ = x·(W₁·W₂). The {form.bend} {bends}, so "
        f"that they are not. For “{piece}”, {int((inner > 0).sum())} of {len(inner)} are above "
        "zero.",
        box,
    )
