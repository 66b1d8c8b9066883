"""Command `transloom explain`: write an HTML page about one sentence or text."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundation.shown_urls import url_of
from foundation.tasks import TASKS
from run_store.errors import RunMismatchError
from trainer.errors import TranslationError
from transloom.cli.options import (
    CheckpointOption,
    JsonOption,
    MaxTokensOption,
    RunArgument,
    TagOption,
    answer,
)
from transloom.cli.run_urls import name_with_copy, named_run

if TYPE_CHECKING:
    from transloom.inference.translator import Translator
    from transloom.observe.explain.page import PageSection
    from transloom.observe.explain.text.text_explanation import ContinuedText, FilledText


def explain(
    run: RunArgument,
    sentence: Annotated[
        str, typer.Argument(metavar="SENTENCE", help="Text to translate, fill in or continue.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="HTML file to write. Default: explain.html in the run's folder, or in the current "
            "folder if the run is in an object store.",
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN[@STEP]",
            help="Second model, which the page compares with the first one. @STEP alone names "
            "another checkpoint of the same run.",
        ),
    ] = None,
    tag: TagOption = None,
    max_tokens: MaxTokensOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how a model translates a sentence, step by step, in one HTML page.

    The page has all intermediate numbers and opens in any browser without a network. It includes a
    model of up to 5 million weights, so that you can type other texts in the page. With
    --against, a section of the page compares two models side by side. For a masked model, the page
    shows how the model fills in a text that has [MASK]; for a language model, how it continues a
    text.

    Examples:

      transloom explain runs/phrasebook "je suis étudiant"

      transloom explain runs/phrasebook "elle est là" --checkpoint 150 -o early.html

      transloom explain runs/phrasebook "elle est là" --against @150

      transloom explain runs/multi30k-masked "A man is [MASK] a bike."
    """
    file = output or (Path() if url_of(run) else run) / "explain.html"
    summary = explained_run(run, sentence, file, checkpoint, tag, against, max_tokens)
    notes = "".join(f"{note}\n" for note in explanation_notes(summary))
    answer(summary, as_json, f"{sentence} → {summary['made']}\n{notes}{summary['file']}")


def explained_run(
    run: Path,
    text: str,
    file: Path,
    checkpoint: str | None,
    tag: str | None,
    against: str | None,
    max_tokens: int | None,
) -> dict[str, Any]:
    """Write the page that explains a run's output for a text, and return a summary.

    The summary's `made` is that output: a translation, a filled-in text or a continuation.

    Args:
        text: the sentence to translate, or the text to fill in or to continue.
        against: RUN, RUN@CHECKPOINT or @CHECKPOINT of another model to compare with.
        max_tokens: maximum number of tokens of a sentence; None for the maximum in training.

    Raises:
        RunMismatchError: the run does not exist, or its task has no page or does not support an
            option.
        TranslationError: the sentence is too long.
    """
    from transloom.cli.load_translator import load_translator, task_of
    from transloom.inference.sentence_memory import LongSentenceError
    from transloom.inference.text_input import argument_text

    task = task_of(run)
    is_loaded = task in TASKS  # the task of an extension may not be loaded yet
    if is_loaded and TASKS[task].page is None:
        kind = TASKS[task]
        command = f"transloom {kind.command}, or " if kind.command else ""
        raise RunMismatchError(
            f"{run} was trained for {task}, but a page shows how pieces of a text are "
            f"predicted, and this model predicts {kind.predicts}: use {command}transloom model "
            "show for its figure"
        )
    write_page = _PAGES.get(TASKS[task].page or "") if is_loaded else None
    if write_page is None:
        translator = load_translator(run, checkpoint)
        other = load_other(run, against) if against else None
        try:
            page, summary = explanation(
                translator, argument_text(text), tag, other, max_tokens=max_tokens
            )
        except LongSentenceError as error:
            if error.limit.reason == "memory":
                raise
            raise TranslationError(f"{error}, or allow more tokens with --max-tokens") from error
        return save_page(page, {**summary, "made": summary["translation"]}, file)
    translation_options = {"--tag": tag, "--against": against, "--max-tokens": max_tokens}
    for option, value in translation_options.items():
        if value is not None:
            raise RunMismatchError(
                f"{run} was trained for {task}, but {option} is only for translation runs: "
                f"leave out {option}"
            )
    page, summary = write_page(run, checkpoint, argument_text(text))
    return save_page(page, summary, file)


def load_other(run: Path, against: str) -> "Translator":
    """Load the model of `--against`: RUN, RUN@CHECKPOINT, or @CHECKPOINT of the same run."""
    from transloom.cli.load_translator import load_translator

    other, checkpoint = named_run(name_with_copy(against))
    return load_translator(run if other == Path() else other, checkpoint)


def explanation(
    translator: "Translator",
    sentence: str,
    tag: str | None,
    against: "Translator | None" = None,
    live: bool = True,
    max_tokens: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """Return the page that explains the translation of a sentence, and a summary of the page.

    Args:
        against: another model, which the page compares with the first one.
        live: include the model in the page, if possible.
        max_tokens: see `explained_run`.
    """
    from transloom.observe.explain.compare.section import compare_section, names_of, with_size
    from transloom.observe.explain.explanation import explain
    from transloom.observe.explain.live.panel import live_section
    from transloom.observe.explain.page import PageSection
    from transloom.observe.explain.time_lapse.section import time_lapse_section
    from transloom.observe.explain.translation_page import section_count, translation_page

    both = [translator, *([against] if against else [])]
    for one in both:
        one.check_lengths([sentence], tag, max_tokens)
    explained = explain(translator, sentence, tag, max_tokens)
    lapse, moments = time_lapse_section(translator)
    own = live_section(translator, sentence, tag) if live else "it was made without the model"
    runs = own if isinstance(own, PageSection) else None
    names = names_of(both)
    compare, misfits = compare_section(both, names, sentence, tag, runs) if against else (None, [])
    title = f"{sentence} → {explained.translation}"
    page = with_size(translation_page(explained, title, own, compare, lapse))
    return page, {
        "translation": explained.translation,
        "steps": len(explained.chosen.ids),
        "sections": section_count(explained) + bool(lapse),
        "bytes": len(page.encode()),
        "time_lapse": moments,
        "not_live": own if isinstance(own, str) else None,
        "compared": names if against else None,
        "does_not_fit": misfits,
    }


def _filling(run: Path, checkpoint: str | None, text: str) -> tuple[str, dict[str, Any]]:
    from transloom.cli.fill import load_filler
    from transloom.observe.explain.live.panel import live_text
    from transloom.observe.explain.text.text_explanation import explain_filling

    filler = load_filler(run, checkpoint, "fp32", None)
    explained, live = explain_filling(filler, text), live_text(filler, text)
    made, steps = explained.filled, len(explained.trace.places)
    return _text_page(explained, f"{text} → {made}", live, made, steps)


def _continuing(run: Path, checkpoint: str | None, text: str) -> tuple[str, dict[str, Any]]:
    from transloom.cli.generate import load_generator
    from transloom.observe.explain.live.panel import live_text
    from transloom.observe.explain.text.text_explanation import explain_continuing

    generator = load_generator(run, checkpoint, "fp32", {})
    explained, live = explain_continuing(generator, text), live_text(generator, text)
    steps = len(explained.chosen.ids)
    return _text_page(explained, f"{text} …", live, explained.continuation, steps)


# For each value of `TaskKind.page`, the function that returns the page about a text and a summary
# of the page. Pages about translations are not listed, because they have more options.
_PAGES: dict[str, Callable[[Path, str | None, str], tuple[str, dict[str, Any]]]] = {
    "filling": _filling,
    "continuation": _continuing,
}


def _text_page(
    explained: "FilledText | ContinuedText",
    title: str,
    live: "PageSection | str",
    made: str,
    steps: int,
) -> tuple[str, dict[str, Any]]:
    from transloom.observe.explain.text.text_page import section_count, text_page

    page = text_page(explained, title, live)
    return page, {
        "made": made,
        "steps": steps,
        "sections": section_count(explained),
        "bytes": len(page.encode()),
        "not_live": live if isinstance(live, str) else None,
        "compared": None,
    }


def save_page(page: str, summary: dict[str, Any], file: Path) -> dict[str, Any]:
    """Write a page to a file, and return its summary with the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")
    return {"file": str(file), **summary}


def explanation_notes(summary: dict[str, Any]) -> list[str]:
    """Return notes about a page: its limits, its size, and the comparisons that it lacks."""
    notes = []
    if summary["not_live"]:
        notes.append(f"the page shows only this text: {summary['not_live']}")
    if summary["compared"]:
        first, second = summary["compared"]
        megabytes = summary["bytes"] / 1e6
        notes.append(f"the page compares {first} and {second}, and has {megabytes:.1f} MB")
        notes += [f"limit of the comparison: {misfit}" for misfit in summary["does_not_fit"]]
    return notes
