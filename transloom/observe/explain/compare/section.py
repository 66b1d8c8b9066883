"""Build the section of a page that compares two models, as HTML with a style and a module.

The numbers are those of `comparison`. If both models are small enough, the page contains both, and
computes the same numbers for a sentence that the reader types.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict

from transloom.inference.translator import Translator
from transloom.observe.explain.compare.comparison import compare, incompatibilities
from transloom.observe.explain.live.packing import NotLiveError, packed
from transloom.observe.explain.live.panel import LIVE_STYLE
from transloom.observe.explain.markup import escape, filled, json_in_html, page_file
from transloom.observe.explain.page import COMPARE, PageSection

ASKED = {
    True: "Both models read the pieces of the first model's translation, so that each row can be "
    "compared. A bar goes from 0 to 1.",
    False: "The vocabularies differ, so each model follows its own translation. A bar goes from 0 "
    "to 1.",
}
HEADS = {
    True: "",
    False: "Heads of two runs are numbered by chance: head 1 of one model need not correspond to "
    "head 1 of the other, unless one run started from the weights of the other. The mean of all "
    "heads can be compared.",
}
SIZE = "<!-- size -->"  # cannot occur in a text of the page, because all texts are escaped


def compare_section(
    translators: Sequence[Translator],
    names: Sequence[str],
    sentence: str,
    tag: str | None,
    live: PageSection | None,
) -> tuple[PageSection, list[str]]:
    """Return a section that compares two models, and the differences that prevent comparisons.

    Args:
        translators: the page's model, and the model to compare it with.
        names: the names of the two models in the page.
        live: the page's live section for the first model; None if there is none.

    Raises:
        TokenizerError: a model does not know the tag.
        ModelError: a network returns NaN.
    """
    comparison = compare(translators, names, sentence, tag)
    misfits = incompatibilities(comparison, translators)
    notes = "".join(f"<p>Limits of this comparison: {escape(misfit)}.</p>" for misfit in misfits)
    model, asleep = _second_model(translators[1], live)
    filling = {
        "place": COMPARE,
        "sentence": escape(sentence),
        "first": escape(names[0]),
        "second": escape(names[1]),
        "notes": notes,
        "asleep": escape(asleep),
        "asked": escape(ASKED[comparison.same_target]),
        "heads": escape(HEADS[_of_one_run(translators)]),
        "comparison": json_in_html(asdict(comparison)),
        "model": model,
    }
    style = page_file("compare/compare.css")
    section = PageSection(
        html=filled(page_file("compare/compare.html"), filling),
        # A live section already has this style.
        style=style if live else f"{page_file(LIVE_STYLE)}\n{style}",
        module="explain/compare/page/side_by_side.js",
        translations=[(side.name, side.translation) for side in comparison.sides],
    )
    return section, misfits


def names_of(translators: Sequence[Translator]) -> list[str]:
    """Return the models' names, RUN@STEP or RUN@AVERAGE; equal names include the run's path."""
    paths = [translator.checkpoint.path for translator in translators]
    steps = [re.sub(r"^step-0*(?=\d)", "", path.name) for path in paths]
    # Abbreviate the name of a long average to its first and last step, if the names stay different.
    short_steps = [re.sub(r"^(average-of-\d+)-.*-(\d+)$", r"\1-…-\2", step) for step in steps]
    if len(set(short_steps)) == len(set(steps)):
        steps = short_steps
    runs = [path.parent.parent for path in paths]
    short = [f"{run.name}@{step}" for run, step in zip(runs, steps, strict=True)]
    if len(set(short)) == len(short) or len(set(runs)) == 1:
        return short
    return [f"{run}@{step}" for run, step in zip(runs, steps, strict=True)]


def with_size(page: str) -> str:
    """Insert the size of the page into its section about two models."""
    megabytes = len(page.encode()) / 1e6
    return page.replace(
        SIZE, f"<p>This page has {megabytes:.1f} MB, because it contains two models.</p>"
    )


def _second_model(translator: Translator, live: PageSection | None) -> tuple[str, str]:
    """Return the model as an element of the page, or "" and the reason for its absence."""
    if live is None:
        return "", "These figures were computed in advance: the first model cannot run in a page."
    try:
        data = json_in_html(packed(translator))
    except NotLiveError as error:
        return "", (
            "These figures were computed in advance, because the second model cannot run in a "
            f"page: {error}."
        )
    return f'<script type="application/json" id="compared-model">{data}</script>', ""


def _of_one_run(translators: Sequence[Translator]) -> bool:
    first, second = (translator.checkpoint.path.parent.resolve() for translator in translators)
    return first == second
