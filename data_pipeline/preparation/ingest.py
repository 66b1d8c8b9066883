"""From a corpus's files to its cleaned pairs in partitions on disk.

files ──one process──▶ chunks ──all processes──▶ parsed, cleaned, keyed ──one──▶ partitions
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.config import DataConfig
from data_pipeline.corpora.cleaning import Cleaner, DropReport
from data_pipeline.corpora.corpus import PAIRS_PER_CHUNK, CorpusReader
from data_pipeline.corpora.formats import Chunk, parse
from data_pipeline.preparation.shuffle import PackedRows, Partitions, pack_rows
from data_pipeline.process_pool import ProcessPool


@dataclass(frozen=True)
class IngestedCorpus:
    """A training corpus as it lies in its partitions."""

    name: str
    tag: str | None
    sha256s: tuple[str, ...]
    read: int
    dropped: DropReport
    partitions: Partitions


@dataclass(frozen=True)
class _CleanJob:
    chunk: Chunk
    corpus: int
    cleaner: Cleaner
    by_content: bool


@dataclass(frozen=True)
class _CleanedChunk:
    read: int
    dropped: DropReport
    rows: PackedRows


def ingest(
    data: DataConfig,
    index: int,
    reader: CorpusReader,
    folder: Path,
    pool: ProcessPool,
    report: Callable[[], None],
) -> IngestedCorpus:
    """Reads a training corpus into partitions in a new folder.

    Args:
        index: the corpus's place among the recipe's training corpora.
        folder: the new folder.
        report: called after every chunk.

    Raises:
        CorpusError: anything is wrong with the text.
    """
    corpus = data.train[index]
    cleaner = Cleaner(data, corpus)
    partitions = Partitions(folder)
    dropped = DropReport(cleaner.reasons)
    read = 0

    def jobs() -> Iterator[_CleanJob]:
        for chunk in reader.chunks(PAIRS_PER_CHUNK):
            yield _CleanJob(chunk, index, cleaner, data.cleaning.drop_duplicates)

    for cleaned in pool.map(_clean, jobs()):
        partitions.add(cleaned.rows)
        dropped.merge(cleaned.dropped)
        read += cleaned.read
        report()
    partitions.flush()
    return IngestedCorpus(
        data.corpus_names[index], corpus.tag, reader.sha256s, read, dropped, partitions
    )


def _clean(job: _CleanJob) -> _CleanedChunk:
    pairs = parse(job.chunk)
    kept, dropped = job.cleaner.clean(job.chunk.first, pairs)
    return _CleanedChunk(
        len(pairs), dropped, pack_rows(kept, job.corpus, by_content=job.by_content)
    )
