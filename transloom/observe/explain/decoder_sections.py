"""Build the decoder's sections: one per step, then one for all steps as one pass."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from model.inspection.layer_traces import AttentionTrace, DecoderLayerTrace
from transloom.observe.explain import figures
from transloom.observe.explain.candidates import candidate_bars, others_share
from transloom.observe.explain.explanation import Explanation
from transloom.observe.explain.layer_parts import (
    head_folds,
    head_names,
    inner_title,
    stages,
    weight_maps,
)
from transloom.observe.explain.parts import (
    Bar,
    Bars,
    Beside,
    Fold,
    Heading,
    HeatMap,
    Part,
    Section,
    Text,
    Tokens,
    number,
    percent,
)

GROUP = "Decoding steps"
# Maximum difference by rounding: the search computes one step at a time, the trace all steps.
TIE = 1e-6


def decoder_sections(explained: Explanation) -> list[Section]:
    """Return one section for each step that is shown, and one section for all steps."""
    steps = range(min(len(explained.chosen.ids), figures.MAX_PIECES))
    return [*(_step_section(explained, t) for t in steps), _all_steps_section(explained)]


def candidates(explained: Explanation, t: int) -> list[Bar]:
    """Return the most probable pieces after step t, and the chosen one if it is not among them."""
    traced, chosen = explained.trace, explained.chosen.ids[t]
    logits_v, probabilities_v = traced.logits_btv[0, t], traced.probabilities_btv[0, t]
    return candidate_bars(logits_v, probabilities_v, explained.vocabulary, chosen)


def _step_section(explained: Explanation, t: int) -> Section:
    config, pieces = explained.config, explained.target_input.texts
    chosen = explained.chosen.texts[t]
    embedding = explained.trace.decoder.embedding
    enters = [(f"embedding × √{config.width}", embedding.scaled_btm[0, t])]
    if not explained.form.turned:
        enters += [
            (f"position {t}", embedding.positions_tm[t]),
            ("sum", embedding.sum_btm[0, t]),
        ]
    parts: list[Part] = [
        Tokens("The translation so far", pieces[: t + 1], newest=True, follows=chosen),
        figures.vectors(
            f"“{pieces[t]}” enters",
            torch.stack([values for _, values in enters]),
            [label for label, _ in enters],
        ),
    ]
    layers = explained.trace.decoder.layers[: figures.MAX_LAYERS]
    for layer, traced in enumerate(layers, start=1):
        parts += _layer_parts(explained, layer, traced, t)
    hidden = explained.trace.decoder.output_btm[0, t : t + 1]
    bars = candidates(explained, t)
    others, rest = others_share(bars, explained.vocabulary)
    last = " after the last normalisation" if config.norm == "pre" else ""
    gives = "With a bias, this gives" if config.output_bias else "This gives"
    parts += [
        Heading("The next piece", "next"),
        Text(
            f"The output of the last layer{last} is multiplied by one row of the output matrix for "
            f"each of the {len(explained.vocabulary):,} pieces. {gives} a logit for each piece. "
            "The softmax converts the logits to probabilities."
        ),
        figures.vectors("leaves the decoder", hidden, [pieces[t]]),
        Bars(bars),
        Text(f"The other {others:,} pieces share {percent(rest)}. {_choice(explained, t)}"),
    ]
    if t == 0:
        lead = (
            f"The translation begins with the piece {pieces[0]}, which only marks the beginning. "
            "Its row passes through all decoder layers. The result is the probability of each "
            "piece to be the first of the translation."
        )
    else:
        lead = (
            f"The input is “{pieces[t]}”, which the previous step chose. The keys and values of "
            "earlier pieces are still stored, so only one row is computed."
        )
    return Section(
        group=GROUP,
        name=f"{t + 1}: {pieces[t]} → {chosen}",
        title=f"Decoding step {t + 1}: after “{pieces[t]}” comes “{chosen}”",
        lead=lead,
        parts=parts,
        shows=_boxes(len(layers)) if t == 0 else {},
    )


def _boxes(layers: int) -> dict[str, list[str]]:
    """Return the decoder's boxes that the first step shows, by the key of their heading or fold."""
    shown = {
        "": ["decoder.ids", "decoder.embedding", "decoder.positions"],
        "next": ["decoder.last_norm", "decoder.output", "decoder.softmax"],
    }
    for layer in range(1, layers + 1):
        attentions = [f"decoder.{layer}.{name}_attention" for name in ("self", "cross")]
        network = f"decoder.{layer}.feed_forward"
        shown[f"layer-{layer}"] = attentions
        shown[f"inside-{layer}"] = [
            network,
            *(f"{box}{end}" for box in (*attentions, network) for end in (".sum", "_norm")),
        ]
    return shown


def _layer_parts(
    explained: Explanation, layer: int, traced: DecoderLayerTrace, t: int
) -> list[Part]:
    so_far = explained.target_input.texts[: t + 1]
    newest = so_far[-1]
    attentions = (
        ("masked self-attention", traced.self_attention, so_far),
        ("cross-attention", traced.cross_attention, explained.source.texts),
    )
    how_to_read = Text(
        f"How much each head takes for the row of “{newest}”: on the left from the translation so "
        "far, on the right from the source (through the memory)."
    )
    way = [("enters the layer", traced.self_attention_residual.input_btm[0])]
    for name, sublayer, residual in (
        ("self-attention", traced.self_attention, traced.self_attention_residual),
        ("cross-attention", traced.cross_attention, traced.cross_attention_residual),
        ("feed-forward", traced.feed_forward, traced.feed_forward_residual),
    ):
        way += stages(name, sublayer.output_btm, residual, explained.form)
    rows = torch.stack([values_tm[t] for _, values_tm in way])
    inner = traced.feed_forward.inner_btf[0, t : t + 1]
    return [
        Heading(f"Decoder layer {layer}", f"layer-{layer}"),
        *([how_to_read] if layer == 1 else []),
        Beside([_weights(explained, *attention, t) for attention in attentions]),
        Fold(
            f"Decoder layer {layer}: queries, keys, values, scores, mixes, sums and feed-forward",
            [
                *(Beside(_head_rows(explained, *attention, t)) for attention in attentions),
                figures.vectors(
                    f"Decoder layer {layer}, the row of “{newest}”, from top to bottom",
                    rows,
                    [label for label, _ in way],
                ),
                figures.vectors(f"feed-forward, {inner_title(explained.form)}", inner, [newest]),
            ],
            f"inside-{layer}",
        ),
    ]


def _heads(values_bhts: Tensor, t: int) -> Tensor:
    """Return row t of each head that is shown, with shape (h, …)."""
    return values_bhts[0, : figures.MAX_HEADS, t]


def _weights(
    explained: Explanation, title: str, attention: AttentionTrace, columns: Sequence[str], t: int
) -> HeatMap:
    """Return a map of the newest piece's attention weights, with one row per head."""
    weights = _heads(attention.weights_bhts, t)[:, : len(columns)]
    return figures.weights(title, weights, head_names(explained.form), columns)


def _head_rows(
    explained: Explanation, title: str, attention: AttentionTrace, columns: Sequence[str], t: int
) -> list[HeatMap]:
    """Return query, scores and mix of the newest piece, with one row per head.

    For self-attention, also return the key and the value that this and later pieces use.
    """
    heads = head_names(explained.form)
    count = explained.config.heads

    def vectors(what: str, values_bhtd: Tensor) -> HeatMap:
        return figures.head_vectors(f"{title}: {what}", _heads(values_bhtd, t), heads, count)

    scores = _heads(attention.scores_bhts, t)[:, : len(columns)]
    own = []
    if columns is not explained.source.texts:
        own = [vectors("key", attention.keys_bhsd), vectors("value", attention.values_bhsd)]
    return [
        vectors("query", attention.queries_bhtd),
        *own,
        figures.scores(f"{title}: scores", scores, heads, columns),
        vectors("mix", attention.mix_bhtd),
    ]


def _choice(explained: Explanation, t: int) -> str:
    """Explain in a sentence why the piece of step t was chosen."""
    probabilities = explained.trace.probabilities_btv[0, t].clone()
    chosen, piece = explained.chosen.ids[t], explained.chosen.texts[t]
    probability = percent(probabilities[chosen].item())
    probabilities[list(explained.never_chosen)] = 0.0
    last = t + 1 == len(explained.chosen.ids)
    end = " It ends the sentence." if last else ""
    if probabilities[chosen] >= probabilities.max() - TIE:
        return f"“{piece}” is the most probable piece ({probability}), so it is chosen.{end}"
    return (
        f"“{piece}” ({probability}) is not the most probable piece, but the translation has "
        "reached its maximum length, so it ends here."
    )


def _all_steps_section(explained: Explanation) -> Section:
    form, rows = explained.form, explained.target_input.texts
    parts: list[Part] = []
    layers = explained.trace.decoder.layers[: figures.MAX_LAYERS]
    for layer, traced in enumerate(layers, start=1):
        parts += [
            Heading(f"Decoder layer {layer}: masked self-attention"),
            weight_maps(traced.self_attention, form, rows, rows),
            *head_folds(traced.self_attention, form, rows, rows),
            Heading(f"Decoder layer {layer}: cross-attention"),
            weight_maps(traced.cross_attention, form, rows, explained.source.texts),
        ]
    total = sum(
        explained.trace.probabilities_btv[0, t, chosen].log().item()
        for t, chosen in enumerate(explained.chosen.ids)
    )
    return Section(
        group="Result",
        name="All steps in one pass",
        title="All steps in one pass",
        lead=(
            "The maps have one row for each step. The mask (grey) lets a row look only at itself "
            "and at earlier rows, so each row is equal to the row that its step computed. In "
            "training, all rows are computed in one pass."
        ),
        parts=[
            *parts,
            Heading("The translation"),
            Tokens("chosen", explained.chosen.texts),
            Text(
                f"“{explained.translation}”. Its log-probability is the sum over the steps, "
                f"{number(total)} nats, which is a probability of {percent(math.exp(total))}."
            ),
        ],
    )
