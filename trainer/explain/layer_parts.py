"""Parts of the page common to encoder and decoder layers: attention, and the way around it."""

from collections.abc import Sequence

from torch import Tensor

from data_pipeline.wording import counted
from model.config import ModelConfig
from model.inspection.trace import AttentionTrace, FeedForwardTrace, ResidualTrace
from trainer.explain import figures
from trainer.explain.blueprint.forms import ACTIVATION_NAMES
from trainer.explain.parts import Beside, Fold, HeatMap, Part, Table, Text, number


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
            figures.scores(
                f"scores, QKᵀ ÷ √{config.head_width}", attention.scores_bhts[0, head], rows, columns
            ),
            figures.weights("weights", attention.weights_bhts[0, head], rows, columns),
            vectors("mix, weights · values", attention.mix_bhtd, rows),
        )
        folds.append(Fold(f"{name}: queries, keys, values, scores, weights, mix", [Beside(maps)]))
    return folds


def projections_text(config: ModelConfig) -> Text:
    """What makes queries, keys and values, with the biases that belong to it."""
    return Text(
        f"Of each row x, {config.width} numbers, three learned matrices and biases make a query "
        "x·Wq + bq (what it looks for), a key x·Wk + bk (what it can be found by) and a value "
        f"x·Wv + bv (what it gives). Each head has {config.head_width} columns of each matrix for "
        "itself."
    )


def join_text(config: ModelConfig) -> Text:
    """What becomes of the heads' mixes."""
    return Text(
        f"The mixes of the {config.heads} heads stand side by side again, head 1 first: "
        f"{config.heads} × {config.head_width} = {config.width} numbers a row. One matrix blends "
        "them, and a bias is added: mix·Wo + bo."
    )


def sharpest_row(
    attention: AttentionTrace, config: ModelConfig, rows: Sequence[str], columns: Sequence[str]
) -> Text:
    """A text that names the largest weight of all heads and rows that are drawn."""
    limit = figures.MAX_ATTENDED
    shown = attention.weights_bhts[0, : len(head_names(config)), :limit, :limit]
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
    """From query and key to weights: head 1, one row; the last lines add up to all."""
    scores = attention.scores_bhts[0, 0, row].tolist()
    weights = attention.weights_bhts[0, 0, row].tolist()
    root: float = config.head_width**0.5
    lines = [
        (piece, number(score * root), number(score), number(weight, 3))
        for piece, score, weight in zip(columns, scores, weights, strict=True)
    ]
    limit = figures.MAX_ATTENDED
    if left := weights[limit:]:
        others = counted(len(left), "other key")
        lines[limit:] = [(f"{others}, not listed, together", "", "", number(sum(left), 3))]
    lines.append((f"all {counted(len(weights), 'key')}", "", "", number(sum(weights), 3)))
    return Table(
        ["key", "query · key", f"score: ÷ √{config.head_width}", "weight: softmax"],
        lines,
        marked=max(range(len(weights[:limit])), key=weights.__getitem__),
    )


def residual_text(residual: ResidualTrace, config: ModelConfig, row: int, label: str) -> Text:
    """What the norm does to one row."""
    before = residual.input_btm if config.norm == "pre" else residual.sum_btm
    x, y = before[0, row].float(), residual.normed_btm[0, row].float()
    return Text(
        "Layer normalisation brings every row to mean 0 and standard deviation 1, then multiplies "
        "and shifts each dimension by learned numbers, its gain and its bias. The row of "
        f"“{label}” has mean {number(x.mean().item())} and standard deviation "
        f"{number(x.std(correction=0).item())} before, {number(y.mean().item())} and "
        f"{number(y.std(correction=0).item())} after."
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
        f"{config.feed_forward_width} numbers, x·W₁ + b₁, {does}, and narrows it again, ·W₂ + b₂; "
        f"no row looks at another here. For “{label}”, {int((inner > 0).sum())} of {len(inner)} "
        "inner numbers are above zero."
    )


def stages(
    name: str, output_btm: Tensor, residual: ResidualTrace, pre_norm: bool
) -> list[tuple[str, Tensor]]:
    """A sub-layer's way as (label, (t, m)), in the order of computation."""
    normed = ("layer normalisation", residual.normed_btm[0])
    added = [(name, output_btm[0]), ("sum: input + output", residual.sum_btm[0])]
    return [normed, *added] if pre_norm else [*added, normed]
