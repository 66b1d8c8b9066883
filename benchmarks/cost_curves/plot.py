"""The picture of cost_curves.py, which runs this in an environment with matplotlib.

A table each, both axes logarithmic; the legend has each curve's exponent.

    .venv/bin/python benchmarks/cost_curves/cost_curves.py --json | \
        .bench-peers/plots/bin/python benchmarks/cost_curves/plot.py FILE.png
"""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from benchmarks.support.picture import main

COLOURS = {"fp32": ("#1f3b57", "#9cc3e6"), "bf16": ("#8e2f23", "#f0a58f")}  # sdpa, matmul


def style(name: str) -> dict[str, Any]:
    """Colour by precision and backend; checkpointing is dashed."""
    precision, *parts = name.split(", ")
    return {
        "color": COLOURS[precision]["matmul" in parts],
        "linestyle": "--" if "checkpointing" in parts else "-",
        "marker": "o",
        "markersize": 3.5,
        "linewidth": 1.4,
    }


def draw_table(axes: Axes, table: dict[str, Any]) -> None:
    for curve in table["curves"]:
        label = f"{curve['name']}: {curve['exponent']:.2f}"
        axes.plot(curve["x"], curve["medians"], label=label, **style(curve["name"]))
        low, high = ([pick(values) for values in curve["measured"]] for pick in (min, max))
        axes.fill_between(
            curve["x"], low, high, color=style(curve["name"])["color"], alpha=0.2, linewidth=0
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(table["curves"][0]["x"])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_title(table["title"], fontsize=10)
    axes.set_xlabel(table["x_name"])
    axes.set_ylabel(table["unit"])
    axes.legend(title="exponent", frameon=False, fontsize=8, title_fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw(tables: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(11, 8), layout="constrained")
    for axes, table in zip(figure.subplots(2, 2).flat, tables, strict=True):
        draw_table(axes, table)
    return figure


if __name__ == "__main__":
    main(__doc__, draw)
