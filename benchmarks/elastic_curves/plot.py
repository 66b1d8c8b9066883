"""Draw the picture of elastic_curves.py, which runs this script in a matplotlib environment.

At the top, the loss of the undisturbed run is a broad line, under a thin one for the other run;
at the bottom is their difference. Each run has a column; bands show the number of ranks.

    .venv/bin/python benchmarks/elastic_curves/elastic_curves.py --json | \
        .bench-peers/bin/python benchmarks/elastic_curves/plot.py FILE.png
"""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.support.picture import main

BANDS = {1: "#fde9d9", 2: "#f2f2f2", 3: "#e3f0e3"}
UNDISTURBED, OTHER, BOUND = "#9cc3e6", "#1f3b57", "#c0392b"


def mark_ranks(axes: Axes, parts: list[dict[str, int]], *, named: bool) -> None:
    """Draw a band behind each part of a run, with its number of ranks at the top."""
    for part in parts:
        left, right = part["first"] - 0.5, part["last"] + 0.5
        axes.axvspan(left, right, color=BANDS[part["ranks"]], linewidth=0)
        if named:
            axes.text(
                (left + right) / 2,
                1.02,
                f"{part['ranks']} rank{'s' if part['ranks'] > 1 else ''}",
                transform=axes.get_xaxis_transform(),
                horizontalalignment="center",
                verticalalignment="bottom",
                fontsize=9,
            )


def draw_run(above: Axes, below: Axes, name: str, run: dict[str, Any], curves: Any) -> None:
    steps = range(1, len(run["loss"]) + 1)
    mark_ranks(above, run["parts"], named=True)
    mark_ranks(below, run["parts"], named=False)
    above.plot(
        steps, curves["undisturbed"], color=UNDISTURBED, linewidth=6, label="2 ranks, undisturbed"
    )
    above.plot(steps, run["loss"], color=OTHER, linewidth=1.2, label=name)
    above.legend(loc="upper right", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
    above.set_xlim(0.5, len(run["loss"]) + 0.5)
    below.plot(steps, run["difference"], color=OTHER, linewidth=1.2, marker=".", markersize=4)
    below.axhline(curves["bound"], color=BOUND, linewidth=1, linestyle="--")
    below.set_xlabel("optimizer step")


def draw(curves: Any) -> Figure:
    runs: dict[str, dict[str, Any]] = curves["runs"]
    figure = Figure(figsize=(5.2 * len(runs), 5.0), layout="constrained")
    axes = figure.subplots(
        2, len(runs), sharex=True, sharey="row", squeeze=False, height_ratios=[2, 1]
    )
    for column, (name, run) in enumerate(runs.items()):
        draw_run(axes[0, column], axes[1, column], name, run, curves)
    axes[0, 0].set_ylabel("training loss")
    below = axes[1, 0]
    below.set_yscale("symlog", linthresh=1e-7, linscale=0.5)
    below.set_ylim(-2e-8, 4e-5)
    below.set_yticks([0, 1e-7, 1e-6, 1e-5])
    below.set_ylabel("relative difference")
    below.text(1, curves["bound"] * 1.25, "bound", color=BOUND, fontsize=8)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main(__doc__, draw)
