"""Reading of a user's corpus for `transloom init`, with a held-out set if none is given.

The source sentence alone determines whether a pair is held out. Pairs with equal source sentences
therefore stay together, and no source sentence is both trained on and scored.
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from heapq import heappush, heapreplace
from pathlib import Path
from typing import TextIO

from cluster.errors import RecipeError
from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.config.pair import PairCorpusConfig
from data_pipeline.corpora.corpus import CorpusReader
from data_pipeline.corpora.formats import parse
from data_pipeline.storage.locations import cache_folder
from foundation.wording import counted
from transloom.cli.corpus_files import Files
from transloom.cli.pair_file import PairFile
from transloom.cli.text_statistics import TextStatistics

PAIRS_PER_CHUNK = 4096
MAX_HELD_OUT = 1000
HELD_OUT_SHARE = 0.05
# A longer sentence is not held out: it could have more tokens than data.max_heldout_length.
MAX_HELD_OUT_CHARACTERS = 1000
TOO_MANY_PAIRS = 10**12  # assumed number of pairs of a longer sentence, so that it is not chosen


class _HoldOut:
    """Selection of the source sentences with the smallest hashes, in constant memory."""

    def __init__(self) -> None:
        self.total = 0
        self._pairs: dict[int, int] = {}  # number of pairs, by the hash of their source
        self._largest: list[int] = []  # heap of the negated hashes

    def add(self, source: str, target: str) -> None:
        number = _number(source)
        self.total += 1
        is_long = max(len(source), len(target)) > MAX_HELD_OUT_CHARACTERS
        count = TOO_MANY_PAIRS if is_long else 1
        if number in self._pairs:
            self._pairs[number] += count
        elif len(self._pairs) < MAX_HELD_OUT:
            heappush(self._largest, -number)
            self._pairs[number] = count
        elif number < -self._largest[0]:
            del self._pairs[-heapreplace(self._largest, -number)]
            self._pairs[number] = count

    def chosen(self, name: object) -> frozenset[int]:
        """Return the hashes of the sources to hold out.

        Raises:
            RecipeError: there are no two different sources.
        """
        if len(self._pairs) < 2:
            raise RecipeError(
                f"{name} has {counted(self.total, 'pair')} and only one different source sentence, "
                "so none can be held out for validation: no source sentence is both trained on and "
                "validated. Add pairs with other source sentences, or name a validation set with "
                "--validation-source and --validation-target"
            )
        goal = min(MAX_HELD_OUT, int(self.total * HELD_OUT_SHARE))
        chosen, held = set(), 0
        for number, pairs in sorted(self._pairs.items()):
            if held + pairs <= goal:
                chosen.add(number)
                held += pairs
        rarest = min(self._pairs, key=lambda number: (self._pairs[number], number))
        return frozenset(chosen or {rarest})


def files_of_folder(files: Files | PairFile, folder: Path) -> Files:
    source, target = files.languages

    def both(use: str) -> tuple[Path, Path]:
        return folder / f"{use}.{source}", folder / f"{use}.{target}"

    tests = files.tests if isinstance(files, Files) else {}
    return Files(both("train"), both("validation"), tests, files.languages)


def read_pairs(files: Files | PairFile, folder: Path | None) -> TextStatistics:
    """Return the statistics of the training files.

    If `folder` is given, also split the pairs into training and validation files in that new
    folder.
    """
    statistics, corpus = TextStatistics(), files.corpus
    if folder is None:
        for source, target in _pairs(corpus, statistics):
            statistics.add(source, target)
        return statistics
    hold_out = _HoldOut()
    for source, target in _pairs(corpus, statistics):
        hold_out.add(source, target)
    held = hold_out.chosen(corpus.locations[0])
    folder.mkdir()
    with ExitStack() as opened:
        outputs: dict[str, tuple[TextIO, ...]] = {}
        of_folder = files_of_folder(files, folder)
        assert of_folder.validation is not None
        for use, paths in (("train", of_folder.train), ("validation", of_folder.validation)):
            outputs[use] = tuple(
                opened.enter_context(path.open("x", encoding="utf-8", newline="\n"))
                for path in paths
            )
        for pair in _pairs(corpus, statistics):
            use = "validation" if _number(pair[0]) in held else "train"
            for output, text in zip(outputs[use], pair, strict=True):
                output.write(f"{text}\n")
            if use == "train":
                statistics.add(*pair)
            else:
                statistics.held_out += 1
    return statistics


def read_texts(corpus: CorpusConfig) -> TextStatistics:
    statistics = TextStatistics()
    reader = CorpusReader(corpus, mirror=None, cache=cache_folder(None))
    for chunk in reader.chunks(PAIRS_PER_CHUNK):
        for example in parse(chunk):
            statistics.pairs += 1
            statistics.target_characters += len(example.texts[0])
    return statistics


def _pairs(corpus: PairCorpusConfig, statistics: TextStatistics) -> Iterator[tuple[str, str]]:
    reader = CorpusReader(corpus, mirror=None, cache=cache_folder(None))
    for chunk in reader.chunks(PAIRS_PER_CHUNK):
        for example in parse(chunk):
            source, target = example.texts
            yield source, target
    statistics.return_ended = reader.return_ended


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
