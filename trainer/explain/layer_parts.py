"""Parts of the page common to encoder and decoder layers: attention, and the way around it."""

from collections.abc import Sequence

from torch import Tensor

from model.config import ModelConfig
from model.inspection.trace import AttentionTrace, FeedForwardTrace, ResidualTrace
from trainer.explain import figures
from trainer.explain.parts import Beside, Fold, HeatMap, Part, Table, Text, number

ACTIVATION_NAMES = {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU"}


def head_names(config: ModelConfig) -> list[str]:
    return [f"head {head + 1}" for head in range(min(config.heads, figures.MAX_HEADS))]


def weight_maps(
    attention: AttentionTrace, config: ModelConfig, rows: Sequence[str], columns: Sequence[str]
) -> Beside:
    """Every head's weights, side by side; masked places are left out."""
    masked = attention.scores_bhts[0].isinf()
    shown = attention.weights_bhts[0].masked_fill(masked, float("-inf"))
    heads = zip(head_names(config), shown, strict=False)
    return Beside([figures.weights(name, weights, rows, columns) for name, weights in heads])


def head_folds(
    attention: AttentionTrace,
    config: ModelConfig,
    rows: Sequence[str],
    columns: Sequence[str],
) -> list[Part]:
    """Queries, keys, values, scores and mix of each head."""
    folds: list[Part] = []
    for head, name in enumerate(head_names(config)):

        def vectors(
            title: str, values_bhtd: Tensor, labels: Sequence[str], head: int = head
        ) -> HeatMap:
            return figures.head_vectors(title, values_bhtd[0, head], labels, config.heads)

        maps = (
            vectors("queries", attention.queries_bhtd, rows),
            vectors("keys", attention.keys_bhsd, columns),
            vectors("values", attention.values_bhsd, columns),
            figures.scores("scores, QKᵀ / √d", attention.scores_bhts[0, head], rows, columns),
            figures.weights("weights", attention.weights_bhts[0, head], rows, columns),
            vectors("mix, weights · values", attention.mix_bhtd, rows),
        )
        folds.append(Fold(f"{name}: queries, keys, values, scores, weights, mix", [Beside(maps)]))
    return folds


def sharpest_row(
    attention: AttentionTrace, config: ModelConfig, rows: Sequence[str], columns: Sequence[str]
) -> Text:
    """A text that names the largest weight of all heads and rows."""
    shown = attention.weights_bhts[0, : len(head_names(config))]
    flat = int(shown.argmax())
    _, t, s = shown.shape
    head, row, column = flat // (t * s), flat // s % t, flat % s
    return Text(
        f"The largest weight: in head {head + 1}, “{rows[row]}” takes "
        f"{number(float(shown[head, row, column]))} of what it gets from “{columns[column]}”."
    )


def one_row_by_hand(
    attention: AttentionTrace, config: ModelConfig, row: int, columns: Sequence[str]
) -> Table:
    """From query and keys to weights: head 1, one row."""
    scores = attention.scores_bhts[0, 0, row].tolist()
    weights = attention.weights_bhts[0, 0, row].tolist()
    root: float = config.head_width**0.5
    lines = [
        (piece, number(score * root), number(score), number(weight, 3))
        for piece, score, weight in zip(columns, scores, weights, strict=True)
    ]
    return Table(
        ["key", "query · key", f"score: ÷ √{config.head_width}", "weight: softmax"],
        lines[: figures.MAX_PIECES],
        marked=max(range(len(weights)), key=weights.__getitem__),
    )


def residual_text(residual: ResidualTrace, config: ModelConfig, row: int, label: str) -> Text:
    """What the norm does to one row."""
    before = residual.input_btm if config.norm == "pre" else residual.sum_btm
    x, y = before[0, row].float(), residual.normed_btm[0, row].float()
    return Text(
        f"Layer normalisation brings every row to mean 0 and standard deviation 1, then multiplies "
        f"and shifts each dimension by learned numbers. The row of “{label}” has mean "
        f"{number(x.mean().item())} and standard deviation {number(x.std(correction=0).item())} "
        f"before, {number(y.mean().item())} and {number(y.std(correction=0).item())} after."
    )


def feed_forward_text(
    feed_forward: FeedForwardTrace, config: ModelConfig, row: int, label: str
) -> Text:
    """How many inner numbers of one row the activation let through."""
    inner = feed_forward.inner_btf[0, row]
    does = (
        "sets the negative ones to zero (ReLU)"
        if config.activation == "relu"
        else f"brings the negative ones close to zero ({ACTIVATION_NAMES[config.activation]})"
    )
    return Text(
        f"The feed-forward network widens each row from {config.width} to "
        f"{config.feed_forward_width} numbers, {does}, and narrows it again; no row looks at "
        f"another here. For “{label}”, {int((inner > 0).sum())} of {len(inner)} inner numbers are "
        "above zero."
    )


def stages(
    name: str, output_btm: Tensor, residual: ResidualTrace, pre_norm: bool
) -> list[tuple[str, Tensor]]:
    """A sub-layer's way as (label, (t, m)), in the order of computation."""
    normed = ("layer normalisation", residual.normed_btm[0])
    added = [(name, output_btm[0]), ("sum: input + output", residual.sum_btm[0])]
    return [normed, *added] if pre_norm else [*added, normed]
