"""Readers that stream a recipe's corpus as chunks of examples, in order and in constant memory.

    locations ──LocationStream──▶ bytes ──cut into lines or samples──▶ Chunk ──parse──▶ [Example, …]

A corpus is read in three steps:

  1. Creating a reader finds all files and downloads remote ones, so that their sizes are known.
  2. `CorpusReader.chunks` yields raw parts of the files, cut by cutting.py. `formats.parse` turns
     them into examples, in several processes if there are many.
  3. At the end of each file, its hash is compared with the one in the recipe.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.config.label import TaggedCorpusConfig
from data_pipeline.config.text import TextCorpusConfig
from data_pipeline.corpora.cutting import check_alignment, cut_aligned, cut_file
from data_pipeline.corpora.documents import CorpusFiles, read_file, span_of
from data_pipeline.corpora.formats import Chunk, Content, ProblemOf, WithTexts, in_parts, parse
from data_pipeline.corpora.lines import PART_BYTES, WHOLE_FILE, LineReader
from data_pipeline.corpora.tagged import CasedWords
from data_pipeline.errors import CorpusError
from data_pipeline.storage.budget import Budget
from data_pipeline.storage.locations import LocationStream, open_location

EXAMPLES_PER_CHUNK = 20_000
# Limits for a held-out set, which stays in memory and is scored many times.
_FEWER = "Use fewer examples, which give about the same scores"
HELD_OUT_EXAMPLES = Budget("examples in a held-out set", 2_000_000, _FEWER)
HELD_OUT_CHARACTERS = Budget("characters in a held-out set", 400_000_000, _FEWER)


@dataclass(frozen=True)
class WholeText:
    """All texts of a corpus."""

    texts: tuple[tuple[str, ...], ...]  # texts of each example, in the order of the task's fields
    sha256s: tuple[str, ...]  # hash of each location's decompressed content


def read_whole(
    corpus: CorpusConfig,
    *,
    mirror: str | None,
    cache: Path,
    problem_of: ProblemOf | None = None,
) -> WholeText:
    """Return the texts of all examples of a small corpus.

    Args:
        mirror, cache: see `CorpusReader`.
        problem_of: see `data_pipeline.corpora.formats.parse`.

    Raises:
        CorpusError: the corpus cannot be read or is too large.
    """

    def too_large(problem: str) -> CorpusError:
        return CorpusError(f"{', '.join(corpus.locations)}: {problem}.")

    reader = CorpusReader(corpus, mirror=mirror, cache=cache)
    texts: list[tuple[str, ...]] = []
    characters = 0
    for chunk in reader.chunks(EXAMPLES_PER_CHUNK):
        texts += [example.texts for example in parse(chunk, problem_of)]
        characters += sum(len(text) for parts in texts[chunk.first :] for text in parts)
        HELD_OUT_EXAMPLES.check(len(texts), too_large)
        HELD_OUT_CHARACTERS.check(characters, too_large)
    return WholeText(tuple(texts), reader.sha256s)


class CorpusReader:
    """Reader that streams a corpus once.

    Attributes:
        bytes_read: number of bytes read so far, of the files as stored (compressed).
        total_bytes: size of the files as stored.
        sha256s: hash of each location's decompressed content; complete after the last chunk.
        return_ended: aligned files whose lines end at carriage returns; complete after the last
            chunk.
    """

    def __init__(self, corpus: CorpusConfig, *, mirror: str | None, cache: Path) -> None:
        """Find all files, and download remote ones that are missing in the folder `cache`.

        Args:
            mirror: a folder with copies of the files under their base names, which are read
                instead; None for no mirror.

        Raises:
            CorpusError: a file cannot be found or fetched.
        """
        self.sha256s: tuple[str, ...] = ()
        self.return_ended: tuple[str, ...] = ()
        self._corpus = corpus
        self._mirror = mirror
        self._cache = cache
        self._locations = list(zip(corpus.locations, corpus.sha256s, strict=True))
        self._streams: list[LocationStream] = []  # streams that are open now
        self._finished_bytes = 0
        self.total_bytes = 0
        for location, sha256 in self._locations:
            with self._open(location, sha256) as stream:
                self.total_bytes += stream.total_bytes

    @property
    def bytes_read(self) -> int:
        return self._finished_bytes + sum(stream.bytes_read for stream in self._streams)

    def chunks(self, examples_per_chunk: int) -> Iterator[Chunk]:
        """Yield chunks of at most `examples_per_chunk` examples, in the order of the corpus.

        Raises:
            CorpusError: files are damaged, misaligned or empty, a hash is wrong, a text is too
                long for a sentence, or WebDataset samples lack a column.
        """
        first = 0
        for content in self._contents(examples_per_chunk):
            yield Chunk(first, content)
            first += content.count
        if not first:
            raise CorpusError(
                f"{', '.join(self._corpus.locations)}: expected at least one "
                f"{self._corpus.noun}, found none. Give files with text."
            )

    def _contents(self, examples_per_chunk: int) -> Iterator[Content]:
        corpus = self._corpus
        if corpus.files_format is None:
            with self._opened(self._locations) as streams:
                readers = [LineReader(stream) for stream in streams]
                yield from cut_aligned(readers, examples_per_chunk)
            check_alignment(readers)
            self.return_ended = tuple(r.location for r in readers if r.ends_at_return)
            return
        if isinstance(corpus, TextCorpusConfig) and corpus.files_are_documents:
            sized = self._sized_files()
            for files in in_parts(sized, examples_per_chunk, PART_BYTES, itemgetter(1)):
                yield CorpusFiles(tuple(file for file, _ in files))
            return
        for number, location in enumerate(self._locations):
            span = self._span(*location)
            with self._opened([location]) as (stream,):
                for part in cut_file(stream, corpus, span, examples_per_chunk):
                    yield self._whole_texts(number, part)

    def _sized_files(self) -> Iterator[tuple[Content, int]]:
        """Yield each file as one document, with the file's number of bytes."""
        for number, location in enumerate(self._locations):
            with self._opened([location]) as (stream,):
                file = read_file(stream, self._span(*location))
            yield self._whole_texts(number, file), len(file.lines.data)

    def _whole_texts(self, file: int, part: Content) -> Content:
        """Return a part of a file, with constant or derived texts added to its examples."""
        if isinstance(self._corpus, TaggedCorpusConfig) and self._corpus.derived:
            return CasedWords(part)
        more = self._corpus.texts_of_files
        return WithTexts(part, more[file]) if more else part

    def _span(self, location: str, sha256: str | None) -> range:
        """Return the range of bytes of a file in which the corpus's examples begin."""
        if self._corpus.share == (0.0, 1.0):
            return WHOLE_FILE
        with self._open(location, sha256) as stream:
            return span_of(self._corpus.share, stream.count_bytes())

    @contextmanager
    def _opened(
        self, locations: Sequence[tuple[str, str | None]]
    ) -> Iterator[list[LocationStream]]:
        """Open streams of the locations; on exit, read them to the end and check the hashes."""
        with ExitStack() as stack:
            for location, sha256 in locations:
                stream = self._open(location, sha256)
                self._streams.append(stack.enter_context(stream))
            yield self._streams
            for stream, (_, sha256) in zip(self._streams, locations, strict=True):
                stream.verify(sha256)
            self.sha256s += tuple(stream.sha256 for stream in self._streams)
            self._finished_bytes += sum(stream.total_bytes for stream in self._streams)
            self._streams = []

    def _open(self, location: str, sha256: str | None) -> LocationStream:
        return open_location(location, mirror=self._mirror, cache=self._cache, sha256=sha256)
