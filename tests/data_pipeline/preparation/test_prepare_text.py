"""`prepare` on dirty text, compared with a brute-force reimplementation in memory.

The bytes of the dataset depend neither on the number of processes nor on the compression of the
files.
"""

import gzip
import hashlib
import json
import lzma
import random
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from backports import zstd
from support.data_settings import settings_of
from support.files.hashes import hashes_in

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import PairDataConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.shards import unpack_shard
from data_pipeline.preparation import ingest
from data_pipeline.preparation.prepare import prepare
from data_pipeline.storage.store import open_store
from data_pipeline.tokenizers.tokenizer import Tokenizer, load_tokenizers, train_tokenizer

Sentences = Callable[[int, int], list[str]]
Pair = tuple[str, str]
Example = dict[str, object]
RULES = {
    "normalise": "NFC",
    "max_source_characters": 90,
    "max_target_characters": 95,
    "max_length_ratio": 4,
    "drop_identical": True,
    "drop_duplicates": True,
}
TOKENIZER = TokenizerConfig(vocabulary_size=100, training_pairs=300)


def defects(source: str, target: str, rng: random.Random) -> Pair:
    """Return the pair with a random defect, or with an oddity that is no defect."""
    return rng.choice(
        [
            ("", target),
            (source, " \u3000\u2028"),
            ("", ""),
            (source, source),
            ("é", "e\u0301"),  # identical after normalisation
            (source * 9, target),
            (source, target * 9),
            ("ba", target),
            ("\u200b", "ba"),  # text, but without any token
            ("ba", "\u200b\u200d"),
            (unicodedata.normalize("NFD", source), target),  # a duplicate after normalisation
            (f" {source}", target),
        ]
    )


def make_dirty(count: int, sentences: Sentences, seed: int) -> list[Pair]:
    """Return pairs, a third of which have a defect or occur again."""
    rng = random.Random(seed)
    clean = zip(sentences(count, 2 * seed), sentences(count, 2 * seed + 1), strict=True)
    pairs: list[Pair] = []
    for source, target in clean:
        what = rng.random()
        if what < 0.2:
            pairs.append(defects(source, target, rng))
        elif what < 0.35 and pairs:
            pairs.append(rng.choice(pairs))
        else:
            pairs.append((source, target))
    return pairs


@dataclass
class ByHand:
    """All rules of preparation, in their order, applied to one pair at a time."""

    model: Tokenizer
    tagged: bool
    distinct: dict[Pair, int] = field(default_factory=dict)  # first position of each good pair
    text_kept: int = 0  # pairs with good text
    kept: list[Pair] = field(default_factory=list)
    dropped: dict[str, list[Example]] = field(default_factory=dict)

    def add(self, position: int, raw: Pair, score: float) -> None:
        source, target = (unicodedata.normalize("NFC", side) for side in raw)
        reason = self._bad_text(source, target, score)
        if not reason:
            self.text_kept += 1
            first = self.distinct.setdefault((source, target), position)
            reason = "duplicate" if first != position else self._bad_pieces(source, target)
        if reason:
            example = {"pair": position + 1, "source": source[:500], "target": target[:500]}
            self.dropped.setdefault(reason, []).append(example)
        else:
            self.kept.append((source, target))

    def _bad_text(self, source: str, target: str, score: float) -> str:
        if not source.strip() or not target.strip():
            return "empty"
        if len(source) > 90:
            return "source_characters"
        if len(target) > 95:
            return "target_characters"
        if max(len(source), len(target)) > 4 * min(len(source), len(target)):
            return "length_ratio"
        if source == target:
            return "identical"
        return "score" if score < 0.2 else ""

    def _bad_pieces(self, source: str, target: str) -> str:
        pieces = [len(ids) for ids in self.model.encode([source, target])]
        if min(pieces) == 0:
            return "empty"
        if pieces[0] + self.tagged + 1 > 24:
            return "source_too_long"
        return "target_too_long" if pieces[1] + 1 > 23 else ""


@pytest.fixture(scope="module")
def dirty(sentences: Sentences) -> list[Pair]:
    return make_dirty(2500, sentences, seed=11)


@pytest.fixture(scope="module")
def scored(sentences: Sentences) -> list[tuple[Pair, float]]:
    pairs = make_dirty(400, sentences, seed=12)
    return [(pair, number % 10 / 10) for number, pair in enumerate(pairs)]


@pytest.fixture(scope="module")
def corpora(
    dirty: list[Pair],
    scored: list[tuple[Pair, float]],
    corpus_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return the folder of both corpora: one as two files, one as TSV with scores."""
    folder = Path(shutil.copytree(corpus_folder, tmp_path_factory.mktemp("dirty") / "corpora"))
    for side, name in enumerate(("a.src", "a.tgt")):
        (folder / name).write_text("".join(pair[side] + "\n" for pair in dirty))
    lines = [f"{source}\t{target}\t{score}" for (source, target), score in scored]
    (folder / "b.tsv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def make(corpora: Path, data_config: Callable[..., PairDataConfig]) -> Callable[..., Manifest]:
    """Return a function that prepares both corpora in many small parts."""

    def make(dataset: Path, processes: int, mirror: Path = corpora) -> Manifest:
        crawl = {"files": ["b.tsv"], "columns": {"score": 2}, "min_score": 0.2}
        data = data_config(
            dataset,
            mirror=str(mirror),
            train=[
                {"source": "a.src", "target": "a.tgt"},
                {**crawl, "name": "crawl", "tag": "<crawl>"},
            ],
            cleaning=RULES,
            pairs_per_block=10,
            blocks_per_shard=2,
            max_source_length=24,
            max_target_length=23,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ingest, "EXAMPLES_PER_CHUNK", 170)
            return prepare(settings_of(data, TOKENIZER), lambda progress: None, processes=processes)

    return make


@pytest.fixture(scope="module")
def prepared(make: Callable[..., Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = tmp_path_factory.mktemp("prepared") / "d"
    make(dataset, 1)
    return dataset


@pytest.fixture(scope="module")
def by_hand(
    prepared: Path, dirty: list[Pair], scored: list[tuple[Pair, float]]
) -> tuple[ByHand, ByHand]:
    store = open_store(prepared)
    model = load_tokenizers(store, Manifest.load(store))["src"]
    first, second = ByHand(model, tagged=False), ByHand(model, tagged=True)
    for position, pair in enumerate(dirty):
        first.add(position, pair, 1.0)
    for position, (pair, score) in enumerate(scored):
        second.add(position, pair, score)
    return first, second


def content_key(pair: Pair) -> int:
    digest = hashlib.blake2b("\n".join(pair).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@pytest.mark.long
@pytest.mark.parametrize("processes", [2, 3])
def test_the_number_of_processes_changes_no_byte(
    make: Callable[..., Manifest], prepared: Path, tmp_path: Path, processes: int
) -> None:
    make(tmp_path / "d", processes)
    assert hashes_in(tmp_path / "d") == hashes_in(prepared)


def test_compression_of_the_corpora_changes_no_byte(
    make: Callable[..., Manifest], prepared: Path, corpora: Path, tmp_path: Path
) -> None:
    mirror = Path(shutil.copytree(corpora, tmp_path / "mirror"))
    for name, suffix, compress in (
        ("a.src", ".gz", gzip.compress),
        ("a.tgt", ".xz", lzma.compress),
        ("b.tsv", ".zst", zstd.compress),
    ):
        (mirror / (name + suffix)).write_bytes(compress((mirror / name).read_bytes()))
        (mirror / name).unlink()
    make(tmp_path / "d", 1, mirror)
    assert hashes_in(tmp_path / "d") == hashes_in(prepared)


def test_the_pairs_that_the_rules_keep_are_in_the_order_of_their_keys(
    prepared: Path, by_hand: tuple[ByHand, ByHand], read_pairs: Callable[[Path], list[Pair]]
) -> None:
    expected = [pair for corpus in by_hand for pair in sorted(corpus.kept, key=content_key)]
    assert read_pairs(prepared) == expected


def test_every_rule_drops_counts_and_reports_the_expected_pairs(
    prepared: Path, by_hand: tuple[ByHand, ByHand]
) -> None:
    manifest = Manifest.load(open_store(prepared))
    report = json.loads((prepared / "cleaning.json").read_text())
    assert list(report) == ["train-0", "crawl"]
    for info, corpus in zip(manifest.corpora, by_hand, strict=True):
        counts = {reason: len(examples) for reason, examples in corpus.dropped.items()}
        assert info.dropped == counts
        assert info.kept == len(corpus.kept)
        assert info.read == info.kept + sum(counts.values())
        assert report[info.name] == {
            reason: {"count": len(examples), "examples": examples[:10]}
            for reason, examples in corpus.dropped.items()
        }
    first, second = by_hand
    assert len(first.dropped) == len(second.dropped) - 1 == 8  # every rule has applied
    assert max(map(len, first.dropped.values())) > 10


def test_each_shard_has_pairs_of_one_corpus_with_its_tag_and_tokens(
    prepared: Path, by_hand: tuple[ByHand, ByHand]
) -> None:
    store = open_store(prepared)
    manifest = Manifest.load(store)
    model = by_hand[0].model
    first_pair = 0
    for shard in manifest.shards:
        name, tag = (("train-0", None), ("crawl", "<crawl>"))[shard.corpus]
        assert shard.name.startswith(f"shards/{name}-")
        assert shard.first_pair == first_pair
        first_pair += shard.pairs
        for block in unpack_shard(store.read(shard.name, shard.sha256, shard.bytes), shard):
            for field_name, arrays in block.fields.items():
                expected = model.encode_field(
                    block.sentences(field_name), tag if field_name == "src" else None
                )
                assert np.array_equal(arrays.ids, expected.ids)
                assert np.array_equal(arrays.lengths, expected.lengths)
    assert first_pair == manifest.pairs
    assert min(np.bincount([shard.corpus for shard in manifest.shards])) > 3
    assert max(shard.pairs for shard in manifest.shards) <= 20


def test_the_tokenizer_is_trained_only_on_the_first_pairs(
    prepared: Path, by_hand: tuple[ByHand, ByHand]
) -> None:
    """These are the first pairs of each corpus in shuffled order, in proportion to its size."""
    total = sum(corpus.text_kept for corpus in by_hand)
    sample: list[Pair] = []
    for corpus in by_hand:
        count = corpus.text_kept * TOKENIZER.training_pairs // total
        sample += sorted(corpus.distinct, key=content_key)[:count]
    assert TOKENIZER.training_pairs - 2 < len(sample) <= TOKENIZER.training_pairs
    sentences = [pair[side] for side in (0, 1) for pair in sample]
    expected = train_tokenizer(sentences, TOKENIZER, "by hand", ["<crawl>"])
    assert (prepared / "tokenizer.model").read_bytes() == expected.model
