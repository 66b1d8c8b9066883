"""`transloom explain`: the page about a sentence or a text, by what its run has learned."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer.errors import RunMismatchError, TranslationError
from transloom.cli.options import (
    CheckpointOption,
    JsonOption,
    MaxTokensOption,
    RunArgument,
    TagOption,
    answer,
)

if TYPE_CHECKING:
    from transloom.inference.translator import Translator

NOT_LIVE = "a page can compute other texts for translation networks only"


def explain(
    run: RunArgument,
    sentence: Annotated[
        str, typer.Argument(metavar="SENTENCE", help="To translate, fill in, or go on with.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Default: explain.html in the run's folder."
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN[@STEP]", help="Compare with this model; @STEP is one of the same run."
        ),
    ] = None,
    tag: TagOption = None,
    max_tokens: MaxTokensOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how a run translates a sentence, step by step, as one HTML page.

    All numbers on the way are in it. It opens without a network, in any browser. A model of up to
    5 million weights lies in it, too: type another sentence there. With --against, a section has
    two models beside each other. A masked model fills in a text that has [MASK], and a language
    model goes on with one.

    Examples:

      transloom explain runs/phrasebook "je suis étudiant"

      transloom explain runs/phrasebook "elle est là" --checkpoint 150 -o early.html

      transloom explain runs/phrasebook "elle est là" --against @150

      transloom explain runs/multi30k-masked "A man is [MASK] a bike."
    """
    asked = ExplainOptions(run, sentence, checkpoint, tag, against, max_tokens)
    summary = explained_run(asked, output or run / "explain.html")
    notes = "".join(f"{note}\n" for note in explanation_notes(summary))
    answer(summary, as_json, f"{sentence} → {summary['made']}\n{notes}{summary['file']}")


@dataclass(frozen=True)
class ExplainOptions:
    """What somebody wants to have explained.

    Attributes:
        text: the sentence to translate, or the text to fill in or to continue.
        against: RUN, RUN@CHECKPOINT or @CHECKPOINT of another model to compare with.
        max_tokens: most tokens of a sentence; None: as many as the model was trained on.
    """

    run: Path
    text: str
    checkpoint: str | None = None
    tag: str | None = None
    against: str | None = None
    max_tokens: int | None = None


def explained_run(asked: ExplainOptions, file: Path) -> dict[str, Any]:
    """Write the page of a run of any task that has one, and return a summary of it.

    `made` in it is what the run makes of the text.

    Raises:
        RunMismatchError: there is no run, or none with a page; or its task has no such option.
        TranslationError: the sentence is too long.
    """
    from transloom.cli.load_translator import load_translator, task_of
    from transloom.inference.sentence_memory import LongSentenceError
    from transloom.inference.text_input import argument_text

    task = task_of(asked.run)
    if task not in _OF_TEXTS:
        translator = load_translator(asked.run, asked.checkpoint)
        other = load_other(asked.run, asked.against) if asked.against else None
        try:
            summary = write_explanation(
                translator, asked.text, asked.tag, file, other, asked.max_tokens
            )
        except LongSentenceError as error:
            if error.limit.reason == "memory":
                raise
            raise TranslationError(f"{error}, or allow more with --max-tokens") from error
        return {**summary, "made": summary["translation"]}
    of_translation = {
        "--tag": asked.tag,
        "--against": asked.against,
        "--max-tokens": asked.max_tokens,
    }
    for option, value in of_translation.items():
        if value is not None:
            raise RunMismatchError(
                f"{asked.run} is a run of {task}, and {option} is for runs of translation: leave "
                "it out"
            )
    page, summary = _OF_TEXTS[task](asked.run, asked.checkpoint, argument_text(asked.text))
    return _written(page, summary, file)


def load_other(run: Path, against: str) -> "Translator":
    """Load what `--against` names: RUN, RUN@CHECKPOINT, or @CHECKPOINT of the same run."""
    from transloom.cli.load_translator import load_translator, named_run

    other, checkpoint = named_run(against)
    return load_translator(run if other == Path() else other, checkpoint)


def explanation(
    translator: "Translator",
    sentence: str,
    tag: str | None,
    against: "Translator | None" = None,
    live: bool = True,
    max_tokens: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """The page on how a sentence is translated, and a summary of it.

    Args:
        against: another model, which the page compares with the first one.
        live: whether the model lies in the page, if it can.
        max_tokens: as in `ExplainOptions`.
    """
    from transloom.observe.explain.compare.section import compare_section, names_of, with_size
    from transloom.observe.explain.explanation import explain
    from transloom.observe.explain.live.panel import live_section
    from transloom.observe.explain.page import LiveSection, render
    from transloom.observe.explain.sections import page_of
    from transloom.observe.explain.time_lapse.section import moments_in, time_lapse_section

    both = [translator, *([against] if against else [])]
    for one in both:
        one.check_lengths([sentence], tag, max_tokens)
    explained = explain(translator, sentence, tag, max_tokens)
    sections = page_of(explained)
    lapse = time_lapse_section(translator)
    sections += [lapse] if lapse else []
    own = live_section(translator, sentence, tag) if live else "it was asked for so"
    runs = own if isinstance(own, LiveSection) else None
    names = names_of(both)
    compare, misfits = compare_section(both, names, sentence, tag, runs) if against else (None, [])
    page = with_size(render(sections, f"{sentence} → {explained.translation}", runs, compare))
    return page, {
        "translation": explained.translation,
        "steps": len(explained.chosen.ids),
        "sections": len(sections),
        "bytes": len(page.encode()),
        "time_lapse": moments_in(lapse) if lapse else 0,
        "not_live": own if isinstance(own, str) else None,
        "compared": names if against else None,
        "does_not_fit": misfits,
    }


def write_explanation(
    translator: "Translator",
    sentence: str,
    tag: str | None,
    file: Path,
    against: "Translator | None" = None,
    max_tokens: int | None = None,
) -> dict[str, Any]:
    """Write the page of `explanation`, and return a summary of it."""
    from transloom.inference.text_input import argument_text

    page, summary = explanation(
        translator, argument_text(sentence), tag, against, max_tokens=max_tokens
    )
    return _written(page, summary, file)


def _filling(run: Path, checkpoint: str | None, text: str) -> tuple[str, dict[str, Any]]:
    from transloom.cli.fill import load_filler
    from transloom.observe.explain.page import render
    from transloom.observe.explain.text.masked_page import masked_page_of
    from transloom.observe.explain.text.text_explanation import explain_filling

    explained = explain_filling(load_filler(run, checkpoint, "fp32", None), text)
    sections = masked_page_of(explained)
    page = render(sections, f"{text} → {explained.filled}")
    return page, _about(page, len(sections), explained.filled, len(explained.trace.places))


def _continuing(run: Path, checkpoint: str | None, text: str) -> tuple[str, dict[str, Any]]:
    from transloom.cli.generate import load_generator
    from transloom.observe.explain.page import render
    from transloom.observe.explain.text.continued_page import continued_page_of
    from transloom.observe.explain.text.text_explanation import explain_continuing

    explained = explain_continuing(load_generator(run, checkpoint, "fp32", {}), text)
    sections = continued_page_of(explained)
    page = render(sections, f"{text} …")
    return page, _about(page, len(sections), explained.continuation, len(explained.chosen.ids))


# The page about a text by task, and its summary.
_OF_TEXTS: dict[str, Callable[[Path, str | None, str], tuple[str, dict[str, Any]]]] = {
    "masked_lm": _filling,
    "tlm": _filling,
    "causal_lm": _continuing,
}


def _about(page: str, sections: int, made: str, steps: int) -> dict[str, Any]:
    return {
        "made": made,
        "steps": steps,
        "sections": sections,
        "bytes": len(page.encode()),
        "not_live": NOT_LIVE,
        "compared": None,
    }


def _written(page: str, summary: dict[str, Any], file: Path) -> dict[str, Any]:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")
    return {"file": str(file), **summary}


def explanation_notes(summary: dict[str, Any]) -> list[str]:
    """What a reader should know of a page before he opens it."""
    notes = []
    if summary["not_live"]:
        notes.append(f"the page shows this text alone: {summary['not_live']}")
    if summary["compared"]:
        first, second = summary["compared"]
        megabytes = summary["bytes"] / 1e6
        notes.append(f"{first} beside {second}: the page has {megabytes:.1f} MB")
        notes += [f"what does not fit: {misfit}" for misfit in summary["does_not_fit"]]
    return notes
