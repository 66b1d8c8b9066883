"""Build the sections about a stack with self-attention: two for each layer that is shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from model.inspection.layer_traces import EncoderLayerTrace
from transloom.observe.explain import figures
from transloom.observe.explain.form import Form
from transloom.observe.explain.layer_parts import (
    feed_forward_text,
    head_folds,
    inner_title,
    join_text,
    norm_label,
    one_row_by_hand,
    projections_text,
    residual_text,
    sharpest_row,
    stages,
    weight_maps,
)
from transloom.observe.explain.parts import Heading, Part, Section, Text


@dataclass(frozen=True)
class Stack:
    """Stack of layers, with the words that its sections use.

    Attributes:
        group: the group of its sections.
        key: prefix of the keys of its boxes in the model's figure.
        noun: name of a layer, such as "Encoder layer".
        pieces: the input pieces.
        attends: clause about which pieces attend to which.
        by_hand: index of the piece whose row is computed step by step; it must attend to all.
    """

    group: str
    key: str
    noun: str
    form: Form
    pieces: Sequence[str]
    attends: str
    by_hand: int = 0


def stack_sections(stack: Stack, layers: Sequence[EncoderLayerTrace]) -> list[Section]:
    """Return all sections about the layers that are shown."""
    sections = []
    for number, traced in enumerate(layers[: figures.MAX_LAYERS], start=1):
        sections.append(_attention_section(stack, number, traced))
        sections.append(_feed_forward_section(stack, number, traced))
    return sections


def _attention_section(stack: Stack, layer: int, traced: EncoderLayerTrace) -> Section:
    form, pieces = stack.form, stack.pieces
    attention = traced.self_attention
    parts: list[Part] = []
    key = f"{stack.key}.{layer}.self_attention"
    if form.pre_norm:
        normed = traced.self_attention_residual.normed_btm[0]
        parts += [
            Text(
                "This model normalises the input of each sub-layer (pre-norm). Attention reads "
                "these normalised rows."
            ),
            figures.vectors(f"{norm_label(form)} of the input", normed, pieces),
        ]
    parts += [
        weight_maps(attention, form, pieces, pieces),
        sharpest_row(attention, form, pieces, pieces),
    ]
    if layer == 1:
        row = stack.by_hand
        parts += [
            Heading("One row, by hand"),
            Text(
                f"This table follows the query of “{pieces[row]}” in head 1. The dot product of "
                "the query and a key shows how well they match. Divided by "
                f"√{form.head_width}, the root of a head's width, it is the score. The softmax "
                "converts scores to weights: exp(score) divided by the sum over all keys. The mix "
                "is the sum of the values, each multiplied by its weight."
            ),
            one_row_by_hand(attention, form, row, pieces),
        ]
    parts += [
        Heading("The numbers of each head"),
        projections_text(form),
        *head_folds(attention, form, pieces, pieces),
        Heading("The heads joined"),
        join_text(form),
        figures.vectors("output of the attention", attention.output_btm[0], pieces),
    ]
    return Section(
        group=stack.group,
        name=f"Layer {layer}: attention",
        title=f"{stack.noun} {layer}: self-attention",
        lead=(
            f"{stack.attends}, in {form.heads} heads in parallel. A row shows how much its piece "
            "takes of the value of each column; a row adds up to 1."
        ),
        parts=parts,
        shows={"": [key, *([f"{key}_norm"] if form.pre_norm else [])]},
    )


def _feed_forward_section(stack: Stack, layer: int, traced: EncoderLayerTrace) -> Section:
    form, pieces = stack.form, stack.pieces
    first, second = traced.self_attention_residual, traced.feed_forward_residual
    feed_forward = traced.feed_forward
    key = f"{stack.key}.{layer}"
    attended = stages("output of the attention", traced.self_attention.output_btm, first, form)
    fed = stages("output of the network", feed_forward.output_btm, second, form)
    inner = figures.vectors(inner_title(form), feed_forward.inner_btf[0], pieces)
    return Section(
        group=stack.group,
        name=f"Layer {layer}: the rest",
        title=f"{stack.noun} {layer}: sum, norm, feed-forward",
        lead=(
            "The output of attention is added to its input (the residual connection). "
            f"{_after_the_sum(form)} A small network then processes each row separately, and its "
            "output is added in the same way."
        ),
        parts=[
            Heading("Around the attention", "sum"),
            figures.vectors("input of the layer", first.input_btm[0], pieces),
            *(figures.vectors(label, values, pieces) for label, values in attended),
            residual_text(first, form, 0, pieces[0]),
            Heading("Feed-forward network", "network"),
            feed_forward_text(feed_forward, form, 0, pieces[0]),
            *([figures.vectors(*fed.pop(0), pieces)] if form.pre_norm else []),
            inner,
            *(figures.vectors(label, values, pieces) for label, values in fed),
        ],
        shows={
            "sum": [
                f"{key}.self_attention.sum",
                *([] if form.pre_norm else [f"{key}.self_attention_norm"]),
            ],
            "network": [
                f"{key}.{box}" for box in ("feed_forward", "feed_forward.sum", "feed_forward_norm")
            ],
        },
    )


def _after_the_sum(form: Form) -> str:
    """Describe the use of a sum. Neither form may claim that no information is lost."""
    if form.pre_norm:
        return "The sum is passed on unchanged, so it still contains the input as a summand."
    return (
        "The sum is then normalised, so the input is passed on as a part of the sum, rescaled "
        "together with the output of attention."
    )
