"""Build the parts of a page that all kinds of layers have: attention, and residual connections."""

from collections.abc import Sequence

from torch import Tensor

from foundation.wording import counted
from model.inspection.layer_traces import AttentionTrace, FeedForwardTrace, ResidualTrace
from transloom.observe.explain import figures
from transloom.observe.explain.form import Form
from transloom.observe.explain.parts import Beside, Fold, HeatMap, Part, Table, Text, number


def head_names(form: Form) -> list[str]:
    return [f"head {head + 1}" for head in range(min(form.heads, figures.MAX_HEADS))]


def weight_maps(
    attention: AttentionTrace, form: Form, rows: Sequence[str], columns: Sequence[str]
) -> Beside:
    """Return the attention weights of every head, side by side, without masked positions."""
    masked = attention.scores_bhts[0].isinf()
    shown = attention.weights_bhts[0].masked_fill(masked, float("-inf"))
    heads = zip(head_names(form), shown, strict=False)
    return Beside([figures.weights(name, weights, rows, columns) for name, weights in heads])


def head_folds(
    attention: AttentionTrace,
    form: Form,
    rows: Sequence[str],
    columns: Sequence[str],
) -> list[Part]:
    """Return a fold for each head with its queries, keys, values, scores, weights and mix."""
    folds: list[Part] = []
    for head, name in enumerate(head_names(form)):

        def vectors(
            title: str, values_bhtd: Tensor, labels: Sequence[str], head: int = head
        ) -> HeatMap:
            return figures.head_vectors(title, values_bhtd[0, head], labels, form.heads)

        maps = (
            vectors("queries", attention.queries_bhtd, rows),
            vectors("keys", attention.keys_bhsd, columns),
            vectors("values", attention.values_bhsd, columns),
            figures.scores(
                f"scores, QKᵀ ÷ √{form.head_width}", attention.scores_bhts[0, head], rows, columns
            ),
            figures.weights("weights", attention.weights_bhts[0, head], rows, columns),
            vectors("mix, weights · values", attention.mix_bhtd, rows),
        )
        folds.append(Fold(f"{name}: queries, keys, values, scores, weights, mix", [Beside(maps)]))
    return folds


def projections_text(form: Form) -> Text:
    """Explain how queries, keys and values are computed, including the biases of this network."""
    q, k, v = (f" + b{name}" if form.has_biases else "" for name in "qkv")
    texts = [
        f"From each row x of {form.width} numbers, three learned matrices"
        f"{' and biases' if form.has_biases else ''} compute a query x·Wq{q} (what the row looks "
        f"for), a key x·Wk{k} (by which other rows find it) and a value x·Wv{v} (what it passes "
        "on)."
    ]
    if form.groups == form.heads:
        texts.append(f"Each head has its own {form.head_width} columns of each matrix.")
    else:
        shared = form.heads // form.groups
        texts.append(
            f"Each head has its own {form.head_width} columns of Wq. Groups of {shared} heads "
            f"share those of Wk and Wv, so there are {form.groups} heads of keys and values "
            "(grouped queries)."
        )
    if form.turned:
        texts.append(
            "Queries and keys are then rotated by their position, so that a score depends on the "
            "distance of two pieces (rotary positions). The maps show rotated queries and keys."
        )
    return Text(" ".join(texts))


def join_text(form: Form) -> Text:
    """Explain how the outputs of the heads are joined."""
    blended = (
        "A matrix combines them, and a bias is added: mix·Wo + bo."
        if form.has_biases
        else "A matrix combines them: mix·Wo."
    )
    return Text(
        f"The mixes of the {form.heads} heads are joined side by side, head 1 first: "
        f"{form.heads} × {form.head_width} = {form.width} numbers per row. {blended}"
    )


def sharpest_row(
    attention: AttentionTrace, form: Form, rows: Sequence[str], columns: Sequence[str]
) -> Text:
    """Name the largest weight of all heads and rows that are drawn.

    Rows that can attend to only one piece, such as the first row under a mask, are ignored.
    """
    limit = figures.MAX_ATTENDED
    shown = attention.weights_bhts[0, : len(head_names(form)), :limit, :limit]
    choices = (~attention.scores_bhts[0, 0, :limit].isinf()).sum(dim=1)
    if bool((choices > 1).any()):
        shown = shown.masked_fill((choices <= 1)[:, None], 0)
    flat = int(shown.argmax())
    _, t, s = shown.shape
    head, row, column = flat // (t * s), flat // s % t, flat % s
    return Text(
        f"The largest weight: in head {head + 1}, “{rows[row]}” takes "
        f"{number(float(shown[head, row, column]))} of its mix from “{columns[column]}”."
    )


def one_row_by_hand(
    attention: AttentionTrace, form: Form, row: int, columns: Sequence[str]
) -> Table:
    """Compute one row of head 1, from query and keys to weights; the listed weights add up to 1."""
    scores = attention.scores_bhts[0, 0, row].tolist()
    weights = attention.weights_bhts[0, 0, row].tolist()
    root = form.head_width**0.5
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
        ["key", "query · key", f"score: ÷ √{form.head_width}", "weight: softmax"],
        lines,
        marked=max(range(len(weights[:limit])), key=weights.__getitem__),
    )


def residual_text(residual: ResidualTrace, form: Form, row: int, label: str) -> Text:
    """Explain how the norm changes one row."""
    before = residual.input_btm if form.pre_norm else residual.sum_btm
    x, y = before[0, row].float(), residual.normed_btm[0, row].float()
    if form.norm_kind == "rms":
        return Text(
            "RMS norm divides every row by the root of its mean square, then multiplies each "
            "dimension by a learned number, its gain. The root mean square of the row of "
            f"“{label}” is {number(_root_mean_square(x))} before the norm, and "
            f"{number(_root_mean_square(y))} after it."
        )
    then = (
        "multiplies and shifts each dimension by learned numbers, its gain and its bias"
        if form.has_biases
        else "multiplies each dimension by a learned number, its gain"
    )
    return Text(
        f"Layer normalisation brings every row to mean 0 and standard deviation 1, then {then}. "
        f"The row of “{label}” has mean {number(x.mean().item())} and standard deviation "
        f"{number(x.std(correction=0).item())} before the norm, and mean "
        f"{number(y.mean().item())} and standard deviation {number(y.std(correction=0).item())} "
        "after it."
    )


def feed_forward_text(feed_forward: FeedForwardTrace, form: Form, row: int, label: str) -> Text:
    """Explain the network, and report how many inner numbers of one row are above zero."""
    if form.is_gated:
        return Text(
            f"The feed-forward network computes two rows of {form.inner_width} numbers from each "
            "row, x·W and x·V. SiLU, z · sigmoid(z), is applied to the first row, which then gates "
            "the second: the two rows are multiplied number by number (SwiGLU). The product with "
            f"W₂ has {form.width} numbers. Each row is processed separately."
        )
    inner = feed_forward.inner_btf[0, row]
    does = (
        "sets the negative ones to zero (ReLU)"
        if form.activation == "relu"
        else f"brings the negative ones close to zero ({form.bend})"
    )
    first, second = (" + b₁", " + b₂") if form.has_biases else ("", "")
    return Text(
        f"The feed-forward network widens each row from {form.width} to "
        f"{form.inner_width} numbers, x·W₁{first}, {does}, and narrows it again, ·W₂{second}. "
        f"Each row is processed separately. For “{label}”, {int((inner > 0).sum())} of "
        f"{len(inner)} inner numbers are above zero."
    )


def inner_title(form: Form) -> str:
    """Return the title of a map of inner numbers."""
    return f"inner numbers, after {form.bend}"


def stages(
    name: str, output_btm: Tensor, residual: ResidualTrace, form: Form
) -> list[tuple[str, Tensor]]:
    """Return the stages of a sub-layer as pairs (label, (t, m)), in the order of computation."""
    normed = (norm_label(form), residual.normed_btm[0])
    added = [(name, output_btm[0]), ("sum: input + output", residual.sum_btm[0])]
    return [normed, *added] if form.pre_norm else [*added, normed]


def norm_label(form: Form) -> str:
    """Return the label of a map with the output of a norm."""
    return "layer normalisation" if form.norm_kind == "layer" else "RMS norm"


def _root_mean_square(row: Tensor) -> float:
    return row.square().mean().sqrt().item()
