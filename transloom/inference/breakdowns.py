"""Differences between systems by source length and by word frequency.

Word accuracy is measured as in compare-mt (Neubig et al. 2019). A bucket contains all words whose
frequency in the training data's target sentences is within a range. For these words, recall is the
share of their occurrences in references that the hypothesis of the same sentence has, too.
Precision is the share of their occurrences in hypotheses that the reference has, too. F1 is the
harmonic mean of both. Words are sacreBLEU's `13a` tokens, and differ if their case differs.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from data_pipeline.config.pair import TARGET
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.shards import unpack_shard
from data_pipeline.storage.store import DatasetStore
from foundation.errors import DataError
from foundation.wording import counted

# Approximate number of training pairs in which words are counted. It is enough to recognise rare
# words, and reading them takes seconds.
PAIRS_COUNTED = 200_000


@dataclass(frozen=True)
class Bucket:
    """Range of numbers from `first` to `last`, both included; unlimited above if `last` is None."""

    first: int
    last: int | None

    def __str__(self) -> str:
        if self.last is None:
            return f"{self.first:,} and more"
        return f"{self.first:,}" if self.first == self.last else f"{self.first:,} to {self.last:,}"


def _buckets(*firsts: int) -> tuple[Bucket, ...]:
    ends = [*(first - 1 for first in firsts[1:]), None]
    return tuple(Bucket(first, last) for first, last in zip(firsts, ends, strict=True))


# Buckets of source lengths, in words separated by white space.
LENGTHS = _buckets(1, 11, 21, 31, 41, 51, 61)
# Buckets of word frequencies: numbers of occurrences in the training data.
FREQUENCIES = _buckets(0, 1, 5, 10, 100, 1000)


@dataclass(frozen=True)
class Frequencies:
    """Frequencies of words in a text.

    Attributes:
        words: number of occurrences of each word.
        counted_in: description of the text, for the user.
    """

    words: Mapping[str, int]
    counted_in: str


@dataclass(frozen=True)
class WordAccuracy:
    """Accuracy of each system for the words of a bucket.

    Attributes:
        words: number of words in the references that belong to the bucket.
        f1: F1 of each system, from 0 to 100, or None if neither the references nor the hypotheses
            have a word of the bucket.
    """

    bucket: Bucket
    words: int
    f1: list[float | None]


def by_length(sources: Sequence[str]) -> list[tuple[Bucket, list[int]]]:
    """Return the indices of the sentences in each bucket of source lengths that is not empty."""
    found: dict[Bucket, list[int]] = {bucket: [] for bucket in LENGTHS}
    for number, source in enumerate(sources):
        found[_bucket_of(max(1, len(source.split())), LENGTHS)].append(number)
    return [(bucket, numbers) for bucket, numbers in found.items() if numbers]


def by_frequency(
    references: Sequence[str], systems: Sequence[Sequence[str]], frequencies: Frequencies
) -> list[WordAccuracy]:
    """Return each system's word accuracy, for each bucket of word frequencies."""
    expected = [_words(text) for text in references]
    words = _per_bucket(expected, frequencies)
    f1: dict[Bucket, list[float | None]] = {bucket: [] for bucket in words}
    for hypotheses in systems:
        made = [_words(text) for text in hypotheses]
        matched = _per_bucket([a & b for a, b in zip(expected, made, strict=True)], frequencies)
        of_system = _per_bucket(made, frequencies)
        for bucket, in_references in words.items():
            both = in_references + of_system[bucket]
            f1[bucket].append(200 * matched[bucket] / both if both else None)
    return [
        WordAccuracy(bucket, count, f1[bucket])
        for bucket, count in words.items()
        if count or any(value is not None for value in f1[bucket])
    ]


def training_frequencies(
    store: DatasetStore, manifest: Manifest, report: Callable[[int, int], None]
) -> Frequencies:
    """Count the words of the training data's target sentences.

    In a large dataset, only the words of some evenly spaced shards are counted.

    Args:
        report: called with the number of pairs counted so far, and the total to count.

    Raises:
        DataError: the shards cannot be read.
    """
    shards = [shard for shard in manifest.shards if shard.name not in manifest.left_out]
    pairs = sum(shard.pairs for shard in shards)
    every = max(1, -(-pairs // PAIRS_COUNTED))
    chosen = shards[::every]
    total, done = sum(shard.pairs for shard in chosen), 0
    words: Counter[str] = Counter()
    for shard in chosen:
        report(done, total)
        data = store.read(shard.name, shard.sha256, shard.bytes)
        for block in unpack_shard(data, shard):
            for text in block.sentences(TARGET):
                words.update(_words(text))
        done += shard.pairs
    report(total, total)
    some = "" if total == pairs else f" out of {pairs:,}, from evenly spaced shards"
    return Frequencies(words, f"the target sentences of {counted(total, 'training pair')}{some}")


def frequencies_of(
    store: DatasetStore,
    manifest: Manifest,
    references: Sequence[str],
    report: Callable[[int, int], None],
) -> Frequencies:
    """Count words in the training data, or in the references if its shards cannot be read."""
    try:
        return training_frequencies(store, manifest, report)
    except DataError as error:
        words = Counter(word for text in references for word in _words(text).elements())
        problem = str(error).rstrip(".")
        return Frequencies(
            words, f"the references, because the training data cannot be read: {problem}"
        )


def _words(text: str) -> Counter[str]:
    return Counter(_TOKENIZE(text.rstrip()).split())


_TOKENIZE = Tokenizer13a()


def _per_bucket(sentences: Sequence[Counter[str]], frequencies: Frequencies) -> dict[Bucket, int]:
    counts = dict.fromkeys(FREQUENCIES, 0)
    for words in sentences:
        for word, count in words.items():
            counts[_bucket_of(frequencies.words.get(word, 0), FREQUENCIES)] += count
    return counts


def _bucket_of(number: int, buckets: Sequence[Bucket]) -> Bucket:
    return next(bucket for bucket in reversed(buckets) if bucket.first <= number)
