"""Command `transloom classify`: predict labels of texts or of their words."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from foundation.terminal import Terminal, percentage_bars, warn
from foundation.wording import counted
from transloom.cli.options import (
    CheckpointOption,
    InputOption,
    JsonOption,
    PrecisionOption,
    RunArgument,
    TextsArgument,
    answer_each,
    require_one_input,
)

if TYPE_CHECKING:
    from transloom.inference.labeller import LabelledText, Labeller, TaggedText

TEXTS_AT_ONCE = 512  # sorted by length, to reduce padding
MIN_TEXTS_FOR_PROGRESS = 2 * TEXTS_AT_ONCE  # with fewer texts, a progress bar is of no use


def classify(
    run: RunArgument,
    texts: TextsArgument = None,
    given: InputOption = None,
    checkpoint: CheckpointOption = None,
    precision: PrecisionOption = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Label texts, or each of their words, depending on the run's task.

    If the run's network labels texts, the command prints the label of each text on one line. If it
    labels words, the command prints one line per word (word, tab, label) and a blank line after
    each text. This is the CoNLL format of the run's training data. Words are separated by spaces.

    With --json, the command prints one JSON object per text. For labels of texts: {"text", "label",
    "probabilities", "tokens", "read"}. For labels of words: {"text", "words": [{"word", "label",
    "probability"}, …]}.

    Examples:

      transloom classify runs/multi30k-language "Ein Mann fährt Rad." "Un homme fait du vélo."

      transloom classify runs/multi30k-language --input captions.txt --json > labels.jsonl

      transloom classify runs/multi30k-case "ein mann hält eine gitarre"
    """
    require_one_input(texts, given)
    from transloom.cli.load_translator import load_reader
    from transloom.inference.labeller import Labeller
    from transloom.inference.text_input import read_texts

    labeller = load_reader(Labeller, run, checkpoint, precision)
    answer_each(labelled_texts(labeller, read_texts(texts or [], given)), as_json, _labels_text)


def labelled_texts(
    labeller: "Labeller", texts: Sequence[str]
) -> "Iterator[LabelledText | TaggedText]":
    """Yield each text with its label, or with its words and their labels."""
    from transloom.inference.labeller import LabelledText

    cut = 0
    with percentage_bars(Terminal(stderr=True)) as progress:
        shown = len(texts) >= MIN_TEXTS_FOR_PROGRESS and not sys.stdout.isatty()
        bar = progress.add_task("classify", total=len(texts), visible=shown)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[start : start + TEXTS_AT_ONCE]
            found: Sequence[LabelledText | TaggedText]
            found = labeller.tag(some) if labeller.of_words else labeller.label(some)
            for one in found:
                cut += isinstance(one, LabelledText) and one.read < one.tokens
                yield one
            progress.update(bar, advance=len(some))
    if cut:
        longest = labeller.network.encoder.context_length
        warn(
            f"The model read only the first {longest:,} tokens of {counted(cut, 'text')}, because "
            f"batching.context_length of the run is {longest:,}"
        )


def _labels_text(found: "LabelledText | TaggedText") -> str:
    from transloom.inference.labeller import LabelledText

    if isinstance(found, LabelledText):
        return found.label
    return "".join(f"{word.word}\t{word.label}\n" for word in found.words)
