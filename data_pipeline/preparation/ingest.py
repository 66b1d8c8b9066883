"""Ingestion of a corpus: its files are parsed, cleaned and written to partitions on disk.

    files ──one process──▶ chunks ──all processes──▶ parsed, cleaned, keyed ──one──▶ partitions

Partitions are the files that `data_pipeline.preparation.shuffle` sorts.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.batching.task import DATA_TASKS
from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.config.data import DataSettings
from data_pipeline.corpora.cleaning import (
    HELD_OUT,
    Cleaner,
    DropReport,
    HeldOutTexts,
    NumberedExample,
    Rule,
)
from data_pipeline.corpora.context import in_context
from data_pipeline.corpora.corpus import EXAMPLES_PER_CHUNK, CorpusReader
from data_pipeline.corpora.formats import Chunk, Example, parse
from data_pipeline.preparation.shuffle import PackedRows, Partitions, pack_rows
from foundation.process_pool import ProcessPool


@dataclass(frozen=True)
class IngestedCorpus:
    """Training corpus after it was written into partitions."""

    name: str
    config: CorpusConfig
    sha256s: tuple[str, ...]
    read: int
    dropped: DropReport
    partitions: Partitions
    in_heldout: frozenset[bytes]  # see `HeldOutTexts.matches`


@dataclass(frozen=True)
class _CleanJob:
    settings: DataSettings  # must come first: unpickling it loads the chunk's classes
    corpus: int
    heldout: HeldOutTexts
    before: Chunk | None  # the previous chunk, if its last sentences are context for this chunk
    chunk: Chunk


def ingest(
    settings: DataSettings,
    index: int,
    heldout: HeldOutTexts,
    reader: CorpusReader,
    folder: Path,
    pool: ProcessPool,
    report: Callable[[], None],
) -> IngestedCorpus:
    """Read a training corpus into partitions in a new folder.

    Args:
        index: position of the corpus among the recipe's training corpora.
        heldout: hashes of the held-out examples. Training examples that match are recorded, and
            dropped if the recipe requires it.
        folder: the new folder.
        report: called after every chunk.

    Raises:
        CorpusError: the text cannot be read.
    """
    data = settings.data
    partitions = Partitions(folder)
    dropped = DropReport(_cleaner(settings, index, heldout).reasons)
    read, in_heldout = 0, set[bytes]()

    def jobs() -> Iterator[_CleanJob]:
        before = None
        for chunk in reader.chunks(EXAMPLES_PER_CHUNK):
            yield _CleanJob(settings, index, heldout, before, chunk)
            before = chunk if data.sentences_before else None

    for examples, dropped_of_chunk, rows, matches in pool.map(_clean, jobs()):
        partitions.add(rows)
        in_heldout |= matches
        dropped.merge(dropped_of_chunk)
        read += examples
        report()
    partitions.flush()
    return IngestedCorpus(
        data.corpus_names[index],
        data.train[index],
        reader.sha256s,
        read,
        dropped,
        partitions,
        frozenset(in_heldout),
    )


def _clean(job: _CleanJob) -> tuple[int, DropReport, PackedRows, frozenset[bytes]]:
    """Clean a chunk; return its number of examples, the dropped ones, the kept rows, and matches.

    The matches are the hashes of the kept examples that are also in a held-out set.
    """
    examples = parse(job.chunk, job.settings.data.problem_of)
    cleaner = _cleaner(job.settings, job.corpus, job.heldout)
    kept, dropped = cleaner.clean(job.chunk.first, examples)
    matches = frozenset().union(*(job.heldout.matches(example.texts) for example in kept))
    if job.settings.data.sentences_before:
        kept = _in_context(job, examples, kept)
    by_content = job.settings.data.cleaning.drop_duplicates
    rows = pack_rows(kept, job.corpus, by_content=by_content)
    return len(examples), dropped, rows, matches


def _in_context(
    job: _CleanJob, examples: Sequence[Example], kept: list[NumberedExample]
) -> list[NumberedExample]:
    """Return the kept examples with their context, which may include dropped sentences."""
    data = job.settings.data
    earlier = parse(job.before)[-data.sentences_before :] if job.before else []
    form = data.cleaning.normalise
    sentences = [
        unicodedata.normalize(form, example.texts[0]) if form else example.texts[0]
        for example in (*earlier, *examples)
    ]
    joined = list(in_context(sentences, data.sentences_before))[len(earlier) :]
    return [
        each._replace(texts=(joined[each.position - job.chunk.first], *each.texts[1:]))
        for each in kept
    ]


def _cleaner(settings: DataSettings, corpus: int, heldout: HeldOutTexts) -> Cleaner:
    data = settings.data
    rules = list(DATA_TASKS[settings.task].rules(data, data.train[corpus]))
    if data.cleaning.drops_heldout:
        rules.append(Rule(HELD_OUT, heldout.has))
    return Cleaner(rules, data.cleaning.normalise)
