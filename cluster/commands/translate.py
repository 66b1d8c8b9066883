"""`transloom translate`: lines of sentences in, lines of translations out.

sentences, prefixes ─▶ batches ─▶ translations ─▶ alignments, if wanted ─▶ text or JSON
"""

import json
import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from cluster.terminal import note
from data_pipeline.errors import CorpusError
from model.errors import PrefixError
from model.inspection.alignment import Alignment
from trainer.host_memory import keep_freed
from trainer.inference.search_processes import processes_for
from trainer.inference.translator import Translation, Translator

SENTENCES_AT_ONCE = 1024
SENTENCES_OF_EACH = 2048  # for each of several processes, which wait for each other at the end

Batch = tuple[list[str], list[str] | None]  # sentences, and prefixes if there are any


def translated_lines(
    translator: Translator,
    file: str,
    *,
    prefixes: str | None = None,
    tag: str | None = None,
    n_best: int = 1,
    alignments: bool = False,
    processes: int | None = None,
    as_json: bool = False,
) -> Iterator[str]:
    """What is printed for each sentence of a file: its translations, a line each, or one in JSON.

    Args:
        prefixes: a file with what each translation begins with.
        alignments: add the alignment of words: after a tab in Pharaoh's format, in JSON as pairs.
        processes: how many translate at once; None for as many as are worth it.

    Raises:
        CorpusError: a file cannot be read, or a prefix cannot begin a translation.
    """
    keep_freed()
    if file == "-" and sys.stdin.isatty():
        batches, processes = _typed(prefixes), processes or 1
    else:
        sentences, beginnings = _read(file, prefixes)
        processes = processes or processes_for(len(sentences))
        at_once = SENTENCES_AT_ONCE if processes == 1 else SENTENCES_OF_EACH * processes
        batches = _batches(sentences, beginnings, at_once)
    done = 0  # lines
    with translator.in_processes(processes):
        for sentences, beginnings in batches:
            try:
                best = translator.translate_n_best(sentences, tag, beginnings, n_best)
            except PrefixError as error:
                assert prefixes is not None
                line = f"{_named(prefixes)}, line {done + error.index + 1}"
                raise CorpusError(f"{line}: this prefix {error.problem}") from error
            done += len(sentences)
            aligned = _aligned(translator, sentences, best, tag) if alignments else None
            for row, (sentence, translations) in enumerate(zip(sentences, best, strict=True)):
                pairs = aligned[row] if aligned is not None else None
                if as_json:
                    yield _in_json(sentence, translations, pairs)
                else:
                    yield _text(translations, pairs)


def _typed(prefixes: str | None) -> Iterator[Batch]:
    """Sentences one by one, as they are typed."""
    if prefixes is not None:
        raise _not_counted(prefixes)
    note("Type a sentence and press return; Ctrl-D ends.")
    for line in sys.stdin:
        yield [line.rstrip("\n")], None


def _read(file: str, prefixes: str | None) -> Batch:
    """All sentences, and their prefixes if there are any."""
    if file == prefixes == "-":
        raise _not_counted(prefixes)
    sentences = _lines(file)
    if prefixes is None:
        return sentences, None
    beginnings = _lines(prefixes)
    if len(beginnings) != len(sentences):
        raise CorpusError(
            f"The lines of {_named(prefixes)} ({len(beginnings):,}) and of {_named(file)} "
            f"({len(sentences):,}) differ in number, but each sentence needs one prefix. Leave "
            "a line empty where a translation is free"
        )
    return sentences, beginnings


def _not_counted(prefixes: str) -> CorpusError:
    return CorpusError(
        f"With --prefixes {prefixes} the sentences must come from a file, or through a pipe of "
        "their own: their lines are counted before the first is translated. Name a file"
    )


def _batches(sentences: list[str], beginnings: list[str] | None, at_once: int) -> Iterator[Batch]:
    for start in range(0, len(sentences), at_once):
        part = slice(start, start + at_once)
        yield sentences[part], None if beginnings is None else beginnings[part]


def _lines(file: str) -> list[str]:
    """The lines of a file, or of standard input."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise CorpusError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file} is not UTF-8: {error}. Convert it first") from error
    return text.removesuffix("\n").split("\n")


def _named(file: str) -> str:
    return "standard input" if file == "-" else file


def _aligned(
    translator: Translator, sentences: list[str], best: list[list[Translation]], tag: str | None
) -> list[list[Alignment]]:
    """The alignment of words of every translation."""
    repeated = [s for s, translations in zip(sentences, best, strict=True) for _ in translations]
    alignments = iter(translator.align_words(repeated, list(chain.from_iterable(best)), tag))
    return [list(islice(alignments, len(translations))) for translations in best]


def _text(translations: list[Translation], alignments: list[Alignment] | None) -> str:
    if alignments is None:
        return "\n".join(translation.text for translation in translations)
    return "\n".join(
        f"{translation.text}\t{' '.join(f'{source}-{target}' for source, target in pairs)}"
        for translation, pairs in zip(translations, alignments, strict=True)
    )


def _in_json(
    sentence: str, translations: list[Translation], alignments: list[Alignment] | None
) -> str:
    found: list[dict[str, Any]] = [{"text": t.text, "score": t.score} for t in translations]
    for translation, pairs in zip(found, alignments or (), strict=alignments is not None):
        translation["alignment"] = pairs
    return json.dumps({"source": sentence, "translations": found})
