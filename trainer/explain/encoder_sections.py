"""The encoder's sections: for each layer its attention, and the way around; then the memory."""

from model.inspection.trace import EncoderLayerTrace
from trainer.explain import figures
from trainer.explain.blueprint.forms import ACTIVATION_NAMES
from trainer.explain.explanation import Explanation
from trainer.explain.layer_parts import (
    feed_forward_text,
    head_folds,
    join_text,
    one_row_by_hand,
    projections_text,
    residual_text,
    sharpest_row,
    stages,
    weight_maps,
)
from trainer.explain.parts import Beside, Fold, Heading, Part, Section, Text

GROUP = "Encoder"


def encoder_sections(explained: Explanation) -> list[Section]:
    """Two sections for each layer that is shown, and one for what leaves the stack."""
    sections = []
    layers = explained.trace.encoder.layers[: figures.MAX_LAYERS]
    for layer, traced in enumerate(layers, start=1):
        sections.append(_attention_section(explained, layer, traced))
        sections.append(_feed_forward_section(explained, layer, traced))
    return [*sections, _memory_section(explained)]


def _attention_section(explained: Explanation, layer: int, traced: EncoderLayerTrace) -> Section:
    config, pieces = explained.config, explained.source.texts
    attention = traced.self_attention
    parts: list[Part] = []
    normed_first = [f"encoder.{layer}.self_attention_norm"] if config.norm == "pre" else []
    if config.norm == "pre":
        normed = traced.self_attention_residual.normed_btm[0]
        parts += [
            Text("This model normalises before each sub-layer (pre-norm): attention reads this."),
            figures.vectors("layer normalisation of the input", normed, pieces),
        ]
    parts += [
        weight_maps(attention, config, pieces, pieces),
        sharpest_row(attention, config, pieces, pieces),
    ]
    if layer == 1:
        parts += [
            Heading("One row, by hand"),
            Text(
                f"Head 1, the query of “{pieces[0]}”. Its dot product with each key says how well "
                f"they fit. Divided by √{config.head_width}, the root of a head's width, it is the "
                "score; the softmax makes weights of the scores: exp(score) over the sum of all. "
                "The mix is the values, each times its weight, added up."
            ),
            one_row_by_hand(attention, config, 0, pieces),
        ]
    parts += [
        Heading("The numbers of each head"),
        projections_text(config),
        *head_folds(attention, config, pieces, pieces),
        Heading("The heads joined"),
        join_text(config),
        figures.vectors("output of the attention", attention.output_btm[0], pieces),
    ]
    return Section(
        group=GROUP,
        name=f"Layer {layer}: attention",
        title=f"Encoder layer {layer}: self-attention",
        lead=(
            f"Every piece looks at every piece of its sentence, in {config.heads} heads at once. A "
            "row tells how much its piece takes of each column's value; a row adds up to 1."
        ),
        parts=parts,
        shows={"": [f"encoder.{layer}.self_attention", *normed_first]},
    )


def _feed_forward_section(explained: Explanation, layer: int, traced: EncoderLayerTrace) -> Section:
    config, pieces = explained.config, explained.source.texts
    pre_norm = config.norm == "pre"
    first, second = traced.self_attention_residual, traced.feed_forward_residual
    feed_forward = traced.feed_forward
    normed_after = [] if pre_norm else [f"encoder.{layer}.self_attention_norm"]

    attended = stages("output of the attention", traced.self_attention.output_btm, first, pre_norm)
    fed = stages("output of the network", feed_forward.output_btm, second, pre_norm)
    activation = ACTIVATION_NAMES[config.activation]
    inner = figures.vectors(f"inner numbers, after {activation}", feed_forward.inner_btf[0], pieces)
    return Section(
        group=GROUP,
        name=f"Layer {layer}: the rest",
        title=f"Encoder layer {layer}: sum, norm, feed-forward",
        lead=(
            "What attention found is added to what was there before (the residual connection). "
            f"{_after_the_sum(pre_norm)} A small network then works on each row alone, and its "
            "output is added in the same way."
        ),
        parts=[
            Heading("Around the attention", "sum"),
            figures.vectors("input of the layer", first.input_btm[0], pieces),
            *(figures.vectors(label, values, pieces) for label, values in attended),
            residual_text(first, config, 0, pieces[0]),
            Heading("Feed-forward network", "network"),
            feed_forward_text(feed_forward, config, 0, pieces[0]),
            *([figures.vectors(*fed.pop(0), pieces)] if pre_norm else []),
            inner,
            *(figures.vectors(label, values, pieces) for label, values in fed),
        ],
        shows={
            "sum": [f"encoder.{layer}.self_attention.sum", *normed_after],
            "network": [
                f"encoder.{layer}.{box}"
                for box in ("feed_forward", "feed_forward.sum", "feed_forward_norm")
            ],
        },
    )


def _after_the_sum(pre_norm: bool) -> str:
    """What becomes of a sum; that nothing is lost could be said of neither form."""
    if pre_norm:
        return "The sum goes on as it is, so the input stays in it unchanged, plus something."
    return (
        "The sum is then normalised: the input goes on as a part of it, but rescaled together "
        "with what was added."
    )


def _memory_section(explained: Explanation) -> Section:
    config, pieces = explained.config, explained.source.texts
    names = figures.MAX_HEADS
    folds: list[Part] = []
    for layer, traced in enumerate(explained.trace.decoder.layers[: figures.MAX_LAYERS], start=1):
        cross = traced.cross_attention
        maps = [
            figures.head_vectors(f"head {head + 1}: {what}", values[0, head], pieces, config.heads)
            for head in range(min(config.heads, names))
            for what, values in (("keys", cross.keys_bhsd), ("values", cross.values_bhsd))
        ]
        folds.append(Fold(f"Keys and values for decoder layer {layer}", [Beside(maps)]))
    last = "after a last normalisation, " if config.norm == "pre" else ""
    return Section(
        group=GROUP,
        name="Memory",
        title="The memory",
        lead=(
            f"This is the source sentence as the decoder sees it: {last}{len(pieces)} rows of "
            f"{config.width} numbers. Each row began as one piece and now knows its neighbours."
        ),
        parts=[
            figures.vectors("memory", explained.trace.encoder.output_btm[0], pieces),
            Text(
                "Each decoder layer makes its own keys and values of the memory, by its own "
                "matrices and biases (x·Wk + bk, x·Wv + bv), once for the whole translation."
            ),
            *folds,
        ],
        shows={"": ["encoder.last_norm", "encoder.memory"]},
    )
