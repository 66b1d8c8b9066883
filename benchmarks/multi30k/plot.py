"""The picture of curves.py, which runs this in an environment with matplotlib."""

from typing import Any

from matplotlib.figure import Figure

from benchmarks.support.picture import main

COLORS = ["#1f3b57", "#c0392b", "#2e8b57", "#9cc3e6", "#8e6bb0", "#d98c1f"]


def draw(curves: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, score, label in zip(
        figure.subplots(1, 2),
        ("perplexity", "bleu"),
        ("perplexity of the validation set", "BLEU of the validation set, cased"),
        strict=True,
    ):
        for color, curve in zip(COLORS, curves, strict=False):
            axes.plot(
                curve["tokens"], curve[score], color=color, linewidth=1.4, label=curve["name"]
            )
        axes.set_xlabel("target tokens, millions")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    above, beside = figure.axes
    above.set_yscale("log")
    beside.legend(loc="lower right", frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    main(__doc__, draw)
