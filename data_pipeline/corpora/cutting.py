"""Cutting of a corpus's files into raw parts of whole lines or samples.

    aligned streams ──▶ AlignedLines        one stream ──▶ TsvLines, JsonLines, Samples, Documents

Nothing is decoded here; formats.py and documents.py do that. The sizes of lines, texts and parts
are limited, so that memory is constant for any file, including binaries and decompression bombs.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import BinaryIO, cast

from data_pipeline.config.corpus import READERS, CorpusConfig
from data_pipeline.config.label import TaggedCorpusConfig
from data_pipeline.config.text import TextCorpusConfig
from data_pipeline.corpora.documents import MAX_DOCUMENT_BYTES, cut_lines, cut_paragraphs
from data_pipeline.corpora.formats import (
    AlignedLines,
    ChunkLines,
    Content,
    CorpusSample,
    Example,
    JsonLines,
    ReadExamples,
    Samples,
    TsvColumns,
    TsvLines,
    characters,
    in_parts,
)
from data_pipeline.corpora.lines import MAX_LINE_BYTES, PART_BYTES, LineReader
from data_pipeline.corpora.tagged import LAST, ConllSentences, TaggedLines
from data_pipeline.errors import CorpusError, TarContentError
from data_pipeline.storage.budget import Budget
from data_pipeline.storage.locations import LocationStream
from data_pipeline.storage.tar import NAME_SHOWN, TarMember, read_members
from foundation.wording import counted, join_items

# Characters of blank lines at the end of a file. 0x1a ends files of CP/M and MS-DOS.
BLANK = b" \r\n\x1a"
JSON_BLANK = BLANK + b"\t"
ALIGNED_STEP = 64  # lines taken at a time from each of two aligned files
MAX_MEMBER_BYTES = MAX_DOCUMENT_BYTES
# Only a 16-byte digest of each sample's key is kept. In a set, a digest takes about 110 bytes.
SAMPLES = Budget(
    "samples in one archive",
    4_000_000,
    "Split the archive into several, and list them in files, for example as {000..099}.tar",
)
SAMPLE_KEY_BYTES = 16
_REMOVE = "Remove the sample, or correct columns in the recipe"
SENTENCE = Budget("bytes in a member that is a sentence", MAX_LINE_BYTES, _REMOVE)
DOCUMENT = Budget("bytes in a member that is a document", MAX_DOCUMENT_BYTES, _REMOVE)
SCORE = Budget("bytes in a member that is a score", 1024, _REMOVE)


def cut_aligned(readers: Sequence[LineReader], examples_per_part: int) -> Iterator[AlignedLines]:
    """Yield the same number of lines from each file.

    At the first mismatch, read on to count the remaining lines for `check_alignment`.
    """
    aligned = True
    while aligned:
        part: list[list[ChunkLines]] = []
        examples = size = 0
        while examples < examples_per_part and size < PART_BYTES:
            # Take few lines at a time, because the size of the aligned lines is unknown until they
            # are read.
            first = readers[0].take(min(ALIGNED_STEP, examples_per_part - examples))
            others = [reader.take(first.count or 1, max_bytes=None) for reader in readers[1:]]
            aligned = first.count > 0 and all(lines.count == first.count for lines in others)
            if not aligned:
                break
            part.append([first, *others])
            examples += first.count
            size += sum(len(lines.data) for lines in part[-1])
        if part:
            yield AlignedLines(tuple(_joined(side) for side in zip(*part, strict=True)))
    for reader in readers:
        while reader.take(examples_per_part).count:
            pass


def _joined(parts: Sequence[ChunkLines]) -> ChunkLines:
    """Join consecutive lines of one file."""
    count = sum(part.count for part in parts)
    data = b"".join(part.data for part in parts)
    return ChunkLines(parts[0].location, parts[0].first, count, data)


def check_alignment(readers: Sequence[LineReader]) -> None:
    """Check the alignment of readers that have reached their end.

    Raises:
        CorpusError: a file has no text, or more lines than another.
    """
    for reader in readers:
        if not reader.has_text:
            raise CorpusError(
                f"{reader.location} has no text: it has {counted(reader.lines, 'line')}, and at "
                "least one line must contain text. Give a file with one sentence per line."
            )
    first = readers[0]
    for other in readers[1:]:
        if first.lines != other.lines:
            longer = max(first, other, key=lambda reader: reader.lines)
            raise CorpusError(
                f"{first.location} has {counted(first.lines, 'line')} and {other.location} has "
                f"{other.lines:,}: line {min(first.lines, other.lines) + 1:,} of "
                f"{longer.location} has no partner. The n-th lines of both files must be "
                "translations of each other; give aligned files."
            )


def cut_file(
    stream: LocationStream, corpus: CorpusConfig, span: range, examples_per_part: int
) -> Iterator[Content]:
    """Cut a file into parts; `CorpusReader` adds texts that the file does not contain.

    Args:
        span: byte range in which the examples begin; used only for formats that can be cut.

    Raises:
        CorpusError: the file's content does not conform to its format.
    """
    columns, file_format = corpus.columns, corpus.files_format
    limit = MAX_DOCUMENT_BYTES if corpus.has_documents else MAX_LINE_BYTES
    if isinstance(corpus, TaggedCorpusConfig) and not corpus.derived:
        yield from _cut_tagged(stream, corpus, span, examples_per_part)
        return
    if file_format in READERS:
        yield from _read_by_registered(stream, corpus, examples_per_part)
        return
    if file_format == "text":
        assert isinstance(corpus, TextCorpusConfig), "no other corpus has this format"
        cut = cut_lines if corpus.documents == "line" else cut_paragraphs
        yield from cut(stream, span, examples_per_part)
        return
    if file_format == "webdataset":
        yield from _cut_samples(stream, corpus, examples_per_part)
        return
    reader = LineReader(stream, limit, span)
    if file_format == "tsv":
        named = any(isinstance(c, str) for c in (*columns.texts, columns.of_score))
        numbers = TsvColumns.resolve(columns, reader.take(1) if named else None)
        # If only column 0 is used, a blank line is an example with an empty value.
        blank = BLANK if max(*numbers.texts, numbers.score or 0) else b""
        for lines in _records(reader, examples_per_part, blank):
            yield TsvLines(lines, numbers)
    else:
        for lines in _records(reader, examples_per_part, JSON_BLANK):
            yield JsonLines(lines, columns, corpus.has_documents)


def _records(reader: LineReader, count: int, blank: bytes) -> Iterator[ChunkLines]:
    """Yield parts of at most `count` lines, without the blank lines at the end of the file.

    If other lines follow, the first blank line is yielded separately, so that its parsing fails.

    Args:
        blank: the characters of blank lines; empty if no line is blank.
    """
    held: ChunkLines | None = None
    while (lines := reader.take(count)).count:
        stop = len(lines.data)
        if blank:
            text = lines.data.rstrip(blank)
            stop = (lines.data.find(b"\n", len(text)) + 1 or stop) if text else 0
        if stop and held:
            yield held
            held = None
        rest = lines.data[stop:]
        records = lines.count - rest.count(b"\n") - (rest[-1:] not in (b"", b"\n"))
        if rest and not held:
            first = rest[: rest.find(b"\n") + 1] or rest
            held = ChunkLines(lines.location, lines.first + records, 1, first)
        if records:
            yield ChunkLines(lines.location, lines.first, records, lines.data[:stop])


def _cut_tagged(
    stream: LocationStream, corpus: TaggedCorpusConfig, span: range, examples_per_part: int
) -> Iterator[Content]:
    words, tags = corpus.columns.texts
    if corpus.files_format == "jsonl":
        reader = LineReader(stream, MAX_DOCUMENT_BYTES, span)
        for lines in _records(reader, examples_per_part, JSON_BLANK):
            yield TaggedLines(lines, words, tags)
    else:
        word = words if isinstance(words, int) else 0
        tag = tags if isinstance(tags, int) else LAST
        for sentences in cut_paragraphs(stream, span, examples_per_part):
            yield ConllSentences(sentences.lines, word, tag)


def _read_by_registered(
    stream: LocationStream, corpus: CorpusConfig, examples_per_part: int
) -> Iterator[ReadExamples]:
    examples, first = _registered_examples(stream, corpus), 1
    for part in in_parts(examples, examples_per_part, PART_BYTES, characters):
        yield ReadExamples(tuple(part), corpus.has_documents, stream.location, first)
        first += len(part)


def _registered_examples(stream: LocationStream, corpus: CorpusConfig) -> Iterator[Example]:
    """Yield the examples of a registered reader, and check them."""
    assert corpus.files_format is not None
    limit = MAX_DOCUMENT_BYTES if corpus.has_documents else MAX_LINE_BYTES
    for number, example in enumerate(READERS[corpus.files_format](stream, corpus), 1):
        place = f"{stream.location}, {corpus.noun} {number:,}"
        if len(example.texts) != len(corpus.columns.texts):
            raise CorpusError(
                f"{place}: expected {counted(len(corpus.columns.texts), 'text')}, found "
                f"{len(example.texts)}. Correct the reader of the format {corpus.files_format}."
            )
        longest = max(map(len, example.texts))
        if longest > limit:
            raise CorpusError(
                f"{place}: expected at most {limit:,} characters, found {longest:,}. Split the "
                f"{corpus.noun}, or remove it."
            )
        yield example


def _cut_samples(
    stream: LocationStream, corpus: CorpusConfig, examples_per_part: int
) -> Iterator[Samples]:
    def size(sample: CorpusSample) -> int:
        return len(sample.key) + sum(map(len, sample.texts)) + len(sample.score or b"")

    for part in in_parts(_read_samples(stream, corpus), examples_per_part, PART_BYTES, size):
        yield Samples(stream.location, tuple(part), corpus.has_documents)


def _read_samples(stream: LocationStream, corpus: CorpusConfig) -> Iterator[CorpusSample]:
    """Yield one example per sample; keep digests of the keys to detect repeated keys."""
    texts = [str(column).lower() for column in corpus.columns.texts]
    of_score = corpus.columns.of_score
    score = None if of_score is None else str(of_score).lower()
    decoded = dict.fromkeys(texts, DOCUMENT if corpus.has_documents else SENTENCE)
    if score:
        decoded.setdefault(score, SCORE)
    members = read_members(
        cast(BinaryIO, stream),
        archive=stream.location,
        decoded=decoded,
        max_member_bytes=MAX_MEMBER_BYTES,
    )
    seen: set[bytes] = set()
    key = ""

    def error(problem: str) -> CorpusError:
        return CorpusError(f"{stream.location}, sample {key[:NAME_SHOWN]!r}: {problem}.")

    try:
        for key, group in groupby(members, key=lambda member: member.key):
            data = _data_by_suffix(stream.location, group)
            digest = hashlib.blake2b(key.encode(), digest_size=SAMPLE_KEY_BYTES).digest()
            if digest in seen or len(data) < len(decoded):
                raise CorpusError(
                    f"{stream.location}, sample {key[:NAME_SHOWN]!r}: expected "
                    f"{join_items(sorted([*texts, *([score] if score else [])]))} once "
                    f"each and consecutively, found {join_items(sorted(data))}"
                    f"{' in a second sample with the same key' if digest in seen else ''}. Write "
                    "the whole sample in one place, or correct columns in the recipe."
                )
            seen.add(digest)
            SAMPLES.check(len(seen), error)
            yield CorpusSample(key, tuple(data[s] for s in texts), data[score] if score else None)
    except TarContentError as damage:
        raise CorpusError(str(damage)) from damage


def _data_by_suffix(location: str, members: Iterator[TarMember]) -> dict[str, bytes]:
    data: dict[str, bytes] = {}
    for member in members:
        if member.suffix in data:
            raise CorpusError(
                f"{location}, sample {member.key[:NAME_SHOWN]!r}: the member {member.suffix} "
                "occurs twice. Remove one of the two."
            )
        data[member.suffix] = member.data
    return data
