"""Implementation of `transloom translate`: reads sentences and yields lines of translations.

sentences, prefixes ─▶ batches ─▶ translations ─▶ alignments, on request ─▶ text or JSON
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

from data_pipeline.corpora.context import Context, in_context
from data_pipeline.errors import CorpusError
from foundation.terminal import note, warn
from foundation.wording import counted, join_first
from model.errors import PrefixError
from model.inspection.alignment import Alignment
from run_store.errors import RunMismatchError
from trainer.process.host_memory import retain_freed_memory
from transloom.inference.sentence_memory import LongSentenceError, SentenceLimit
from transloom.inference.text_input import STANDARD_INPUT, file_label, read_lines, typed_lines
from transloom.inference.translation import Translation
from transloom.inference.translator import Translator

SENTENCES_AT_ONCE = 1024
SENTENCES_PER_PROCESS = (
    2048  # large, since the processes wait for each other after each round of sentences
)

LINES_NAMED = 5  # maximum number of lines that a message about long lines lists

LongLines = Literal["refuse", "split"]


@dataclass(frozen=True)
class LineOptions:
    """Options for translating lines, and for the output of each line.

    Attributes:
        alignments: add the alignment of words: in text after a tab, in Pharaoh's format; in JSON as
            pairs.
        long_lines: with `refuse`, a file with sentences that are too long is refused before
            anything is translated. With `split`, such sentences are translated in parts, which
            requires `n_best` 1, no prefixes and no alignments.
        max_tokens: maximum tokens of a sentence, or None for the maximum length in training.
    """

    tag: str | None = None
    n_best: int = 1
    alignments: bool = False
    as_json: bool = False
    long_lines: LongLines = "refuse"
    max_tokens: int | None = None


PLAIN_TEXT = LineOptions()


Batch = tuple[list[str], list[str] | None]  # sentences, and their prefixes or None


def translated_lines(
    translator: Translator,
    file: str,
    wanted: LineOptions = PLAIN_TEXT,
    *,
    prefixes: str | None = None,
    processes: int | None = None,
) -> Iterator[str]:
    """Yield the output for each sentence of a file: a line per translation, or one line of JSON.

    A model that was trained with context treats the lines of the file as one document. It reads
    each line together with the preceding ones.

    Args:
        prefixes: a file with the required beginning of each translation, or None.
        processes: number of parallel processes, or None to choose it by work and memory.

    Raises:
        CorpusError: a file cannot be read, a sentence is too long, or a translation cannot begin
            with its prefix.
        RunMismatchError: the model reads context, which one of the options does not support.
    """
    if wanted.alignments:
        require_no_context(translator, "--alignments does not support this context")
    splits = wanted.long_lines == "split"
    if splits:
        require_no_context(translator, "--long-lines split does not keep this context")
    assert not splits or (wanted.n_best == 1 and not (prefixes or wanted.alignments))
    retain_freed_memory()
    limit = translator.longest_sentence(wanted.max_tokens)
    if file == STANDARD_INPUT and sys.stdin is not None and sys.stdin.isatty():
        batches, processes = _typed(prefixes, Context(translator.sentences_before)), processes or 1
    else:
        sentences, beginnings = _read(file, prefixes)
        sentences = list(in_context(sentences, translator.sentences_before))
        counts = translator.count_tokens(sentences, wanted.tag)
        check_lengths(counts, file, limit, wanted.long_lines)
        longest = min(max(counts, default=0), limit.tokens)
        processes = processes or translator.processes_for(len(sentences), longest)
        at_once = SENTENCES_AT_ONCE if processes == 1 else SENTENCES_PER_PROCESS * processes
        batches = _batches(sentences, beginnings, at_once)
    wanted = replace(wanted, max_tokens=limit.tokens)
    done = 0  # translated lines
    with translator.in_processes(processes):
        for sentences, beginnings in batches:
            try:
                lines = lines_of_batch(translator, sentences, beginnings, wanted)
            except LongSentenceError as error:
                too_long = [(done + index, tokens) for index, tokens in error.sentences]
                raise _too_long(too_long, file, limit) from error
            except PrefixError as error:
                assert prefixes is not None
                line = f"{file_label(prefixes)}, line {done + error.index + 1}"
                raise CorpusError(f"{line}: the prefix {error.problem}") from error
            done += len(sentences)
            yield from lines


def lines_of_batch(
    translator: Translator,
    sentences: list[str],
    beginnings: list[str] | None,
    wanted: LineOptions,
) -> list[str]:
    """Return the output for each sentence.

    Args:
        beginnings: the required beginning of each translation, or None.
        wanted: options, in which `max_tokens` is not None if sentences may be split.

    Raises:
        LongSentenceError, PrefixError: their indices refer to `sentences`.
    """
    parts, best = _translated(translator, sentences, beginnings, wanted)
    aligned = None
    if wanted.alignments:
        aligned = translator.align_words_n_best(sentences, best, wanted.tag)
    lines = []
    for row, (sentence, translations) in enumerate(zip(sentences, best, strict=True)):
        pairs = aligned[row] if aligned is not None else None
        if wanted.as_json:
            lines.append(_in_json(sentence, translations, pairs, parts[row]))
        else:
            lines.append(_text(translations, pairs))
    return lines


def require_no_context(translator: Translator, reason: str) -> None:
    """Refuse a model that reads the preceding sentences as context.

    Raises:
        RunMismatchError: the model reads context.
    """
    if before := translator.sentences_before:
        raise RunMismatchError(
            f"The model reads {counted(before, 'preceding sentence')} as context "
            f"(data.context_sentences={before}), but {reason}. Omit this option, or name a run "
            "without context"
        )


def check_lengths(
    counts: Iterable[int], file: str, limit: SentenceLimit, long_lines: LongLines
) -> None:
    """Refuse a file with sentences that are too long, or warn that they are split.

    Args:
        counts: number of tokens of each sentence.

    Raises:
        CorpusError: sentences are too long, and `long_lines` is "refuse".
    """
    too_long = [(line, tokens) for line, tokens in enumerate(counts) if tokens > limit.tokens]
    if not too_long:
        return
    if long_lines == "refuse":
        raise _too_long(too_long, file, limit)
    warn(
        f"{_lines_named(too_long, file)} will be split, because {limit}. Each part is translated "
        "independently of the others"
    )


def _too_long(lines: list[tuple[int, int]], file: str, limit: SentenceLimit) -> CorpusError:
    more = "" if limit.reason == "memory" else ", or allow more with --max-tokens"
    return CorpusError(
        f"{_lines_named(lines, file)} cannot be translated, because {limit}. Nothing was "
        f"translated. Give one sentence per line, or use --long-lines split{more}"
    )


def _lines_named(lines: list[tuple[int, int]], file: str) -> str:
    first = [f"line {line + 1:,} ({tokens:,} tokens)" for line, tokens in lines[:LINES_NAMED]]
    return f"{file_label(file)}, {join_first(first, LINES_NAMED, len(lines), noun=None)}"


def _translated(
    translator: Translator, sentences: list[str], prefixes: list[str] | None, wanted: LineOptions
) -> tuple[list[int], list[list[Translation]]]:
    """Translate sentences; return each sentence's number of parts, and its translations."""
    tag, most = wanted.tag, wanted.max_tokens
    if wanted.long_lines == "refuse":
        best = translator.translate_n_best(sentences, tag, prefixes, wanted.n_best, max_tokens=most)
        return [1] * len(sentences), best
    assert most is not None, "a limit is known before sentences are split"
    parts = [translator.split(sentence, most, tag) for sentence in sentences]
    try:
        found = iter(
            translator.translate_n_best(
                list(chain.from_iterable(parts)), tag, n_best=1, max_tokens=most
            )
        )
    except LongSentenceError as error:  # a single character can have more tokens than allowed
        rows = [row for row, of_one in enumerate(parts) for _ in of_one]
        too_long = [(rows[number], tokens) for number, tokens in error.sentences]
        raise LongSentenceError(too_long, error.limit) from error
    best = [[translator.joined([next(found)[0] for _ in of_one])] for of_one in parts]
    return [len(of_one) for of_one in parts], best


def _typed(prefixes: str | None, context: Context) -> Iterator[Batch]:
    """Yield sentences one by one, as they are typed."""
    if prefixes is not None:
        raise _prefixes_need_file(prefixes)
    note("Type a sentence and press Enter. Press Ctrl-D to end.")
    for line in typed_lines():
        yield [context.added(as_sentence(line))], None


def _read(file: str, prefixes: str | None) -> Batch:
    """Read all sentences, and their prefixes if there is a file of prefixes."""
    if file == prefixes == "-":
        raise _prefixes_need_file(prefixes)
    sentences = [as_sentence(line) for line in read_lines(file)]
    if prefixes is None:
        return sentences, None
    beginnings = [as_sentence(line) for line in read_lines(prefixes)]
    if len(beginnings) != len(sentences):
        raise CorpusError(
            f"{file_label(prefixes)} has {counted(len(beginnings), 'line')} and {file_label(file)} "
            f"has {counted(len(sentences), 'line')}, but each sentence needs one prefix. Leave a "
            "line of the prefixes empty for a sentence without a prefix"
        )
    return sentences, beginnings


def _prefixes_need_file(prefixes: str) -> CorpusError:
    return CorpusError(
        f"--prefixes {prefixes} needs all sentences before translation starts, but the sentences "
        "are typed or share standard input with the prefixes. Name a file with the sentences"
    )


def _batches(sentences: list[str], beginnings: list[str] | None, at_once: int) -> Iterator[Batch]:
    for start in range(0, len(sentences), at_once):
        part = slice(start, start + at_once)
        yield sentences[part], None if beginnings is None else beginnings[part]


def as_sentence(line: str) -> str:
    """Replace each \\r in a line by a space, as the corpus reader does."""
    return line.replace("\r", " ")


def _text(translations: list[Translation], alignments: list[Alignment] | None) -> str:
    if alignments is None:
        return "\n".join(_in_a_line(translation.text) for translation in translations)
    return "\n".join(
        f"{_in_a_line(translation.text)}\t"
        f"{' '.join(f'{source}-{target}' for source, target in pairs)}"
        for translation, pairs in zip(translations, alignments, strict=True)
    )


def _in_a_line(text: str) -> str:
    """Escape line ends, which byte pieces can produce and which would shift the following lines."""
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _in_json(
    sentence: str, translations: list[Translation], alignments: list[Alignment] | None, parts: int
) -> str:
    found: list[dict[str, Any]] = [{"text": t.text, "score": t.score} for t in translations]
    for translation, pairs in zip(found, alignments or (), strict=alignments is not None):
        translation["alignment"] = pairs
    of_parts = {} if parts == 1 else {"parts": parts}
    return json.dumps({"source": sentence, "translations": found, **of_parts})
