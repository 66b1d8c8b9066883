"""Build the encoder's sections: its layers, then its output (the memory)."""

from foundation.wording import counted
from transloom.observe.explain import figures
from transloom.observe.explain.explanation import Explanation
from transloom.observe.explain.parts import Beside, Fold, Part, Section, Text
from transloom.observe.explain.stack_sections import Stack, stack_sections

GROUP = "Encoder"


def encoder_sections(explained: Explanation) -> list[Section]:
    """Return two sections for each layer that is shown, and one for the output of the stack."""
    stack = Stack(
        group=GROUP,
        key="encoder",
        noun="Encoder layer",
        form=explained.form,
        pieces=explained.source.texts,
        attends="Every piece looks at every piece of the sentence",
    )
    return [
        *stack_sections(stack, explained.trace.encoder.layers),
        _memory_section(explained),
    ]


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
            f"This is the source sentence as the decoder sees it: {last}"
            f"{counted(len(pieces), 'row')} of {config.width} numbers. Each row began as the "
            "embedding of one piece, and now also depends on the other pieces."
        ),
        parts=[
            figures.vectors("memory", explained.trace.encoder.output_btm[0], pieces),
            Text(
                "Each decoder layer computes keys and values from the memory with its own matrices "
                "and biases (x·Wk + bk, x·Wv + bv), once for the whole translation."
            ),
            *folds,
        ],
        shows={"": ["encoder.last_norm", "encoder.memory"]},
    )
