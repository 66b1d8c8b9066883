"""From a corpus's files to its cleaned examples in partitions on disk.

files ──one process──▶ chunks ──all processes──▶ parsed, cleaned, keyed ──one──▶ partitions
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.batching.task import DATA_TASKS
from data_pipeline.config import DataSettings
from data_pipeline.corpora.cleaning import HELD_OUT, Cleaner, DropReport, HeldOutTexts, Rule
from data_pipeline.corpora.corpus import EXAMPLES_PER_CHUNK, CorpusReader
from data_pipeline.corpora.formats import Chunk, parse
from data_pipeline.corpus_config import CorpusConfig
from data_pipeline.preparation.shuffle import PackedRows, Partitions, pack_rows
from data_pipeline.process_pool import ProcessPool


@dataclass(frozen=True)
class IngestedCorpus:
    """A training corpus as it lies in its partitions."""

    name: str
    config: CorpusConfig
    sha256s: tuple[str, ...]
    read: int
    dropped: DropReport
    partitions: Partitions


@dataclass(frozen=True)
class _CleanJob:
    settings: DataSettings  # first: unpickling it loads what the chunk may be of
    corpus: int
    heldout: HeldOutTexts
    chunk: Chunk


@dataclass(frozen=True)
class _CleanedChunk:
    read: int
    dropped: DropReport
    rows: PackedRows


def ingest(
    settings: DataSettings,
    index: int,
    heldout: HeldOutTexts,
    reader: CorpusReader,
    folder: Path,
    pool: ProcessPool,
    report: Callable[[], None],
) -> IngestedCorpus:
    """Reads a training corpus into partitions in a new folder.

    Args:
        index: the corpus's place among the recipe's training corpora.
        heldout: what is dropped if the recipe says so.
        folder: the new folder.
        report: called after every chunk.

    Raises:
        CorpusError: anything is wrong with the text.
    """
    data = settings.data
    partitions = Partitions(folder)
    dropped = DropReport(_cleaner(settings, index, heldout).reasons)
    read = 0

    def jobs() -> Iterator[_CleanJob]:
        for chunk in reader.chunks(EXAMPLES_PER_CHUNK):
            yield _CleanJob(settings, index, heldout, chunk)

    for cleaned in pool.map(_clean, jobs()):
        partitions.add(cleaned.rows)
        dropped.merge(cleaned.dropped)
        read += cleaned.read
        report()
    partitions.flush()
    return IngestedCorpus(
        data.corpus_names[index], data.train[index], reader.sha256s, read, dropped, partitions
    )


def _clean(job: _CleanJob) -> _CleanedChunk:
    examples = parse(job.chunk, job.settings.data.problem_of)
    cleaner = _cleaner(job.settings, job.corpus, job.heldout)
    kept, dropped = cleaner.clean(job.chunk.first, examples)
    by_content = job.settings.data.cleaning.drop_duplicates
    return _CleanedChunk(len(examples), dropped, pack_rows(kept, job.corpus, by_content=by_content))


def _cleaner(settings: DataSettings, corpus: int, heldout: HeldOutTexts) -> Cleaner:
    data = settings.data
    rules = list(DATA_TASKS[settings.task].rules(data, data.train[corpus]))
    if data.cleaning.drops_heldout:
        rules.append(Rule(HELD_OUT, heldout.has))
    return Cleaner(rules, data.cleaning.normalise)
