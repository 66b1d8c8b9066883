"""Windows with subword sampling: each pass has different pieces, whatever the batching."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.data_settings import settings_of

from data_pipeline.batching.mixture import ShardSlice
from data_pipeline.batching.window import WindowReader
from data_pipeline.config.data import DataSettings, TokenizerConfig
from data_pipeline.config.pair import PairDataConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.preparation.prepare import prepare
from data_pipeline.random_keys import SUBWORD_SAMPLING, example_seeds
from data_pipeline.storage.store import open_store
from data_pipeline.tokenizers.tokenizer import Tokenizer, load_tokenizers

MakeSettings = Callable[..., DataSettings]
Pieces = dict[int, tuple[list[int], list[int]]]  # pieces of source and target of each pair
BUDGET = 160


def sampling(alpha: float = 0.3, sides: str = "both") -> TokenizerConfig:
    return TokenizerConfig.model_validate(
        {"vocabulary_size": 120, "sampling": {"alpha": alpha, "sides": sides}}
    )


def read(dataset: Path, settings: DataSettings, epoch: int) -> Pieces:
    """Return the pieces of all pairs of an epoch from a new reader, after checks of the layout."""
    store = open_store(dataset)
    reader = WindowReader(store, Manifest.load(store), settings)
    budget = settings.batching.max_tokens_per_micro_batch
    pieces: Pieces = {}
    for window in range(reader.layout(epoch, 0).windows_per_epoch):
        tokens = reader.layout(epoch, window).units
        for number, micro_batch in enumerate(reader.fetch(epoch, window, 0, len(tokens))):
            assert tokens[number] == len(micro_batch.fields["tgt"].ids)
            split = []
            for field in micro_batch.fields.values():
                assert len(field.lengths) * field.lengths.max() <= budget
                assert field.lengths.sum() == len(field.ids)
                split.append(np.split(field.ids, np.cumsum(field.lengths)[:-1]))
            for pair, source, target in zip(micro_batch.pair_ids.tolist(), *split, strict=True):
                assert pair not in pieces
                pieces[pair] = (source.tolist(), target.tolist())
    return pieces


@pytest.fixture(scope="module")
def tokenizer(dataset: Path, manifest: Manifest) -> Tokenizer:
    return load_tokenizers(open_store(dataset), manifest)["src"]


@pytest.fixture(scope="module")
def stored(dataset: Path, data_settings: MakeSettings) -> Pieces:
    return read(dataset, data_settings(dataset, max_tokens_per_micro_batch=BUDGET), 0)


@pytest.fixture(scope="module")
def sampled(dataset: Path, data_settings: MakeSettings) -> Pieces:
    settings = data_settings(
        dataset, tokenizer=sampling(), max_tokens_per_micro_batch=BUDGET, window_shards=3
    )
    return read(dataset, settings, 0)


def test_sampling_splits_the_same_sentences_into_different_pieces(
    stored: Pieces, sampled: Pieces, tokenizer: Tokenizer
) -> None:
    assert stored.keys() == sampled.keys()
    for pair, sides in sampled.items():
        assert tokenizer.decode(list(sides)) == tokenizer.decode(list(stored[pair]))
        assert all(side[-1] == tokenizer.eos_id for side in sides)
    differing = sum(sampled[pair][0] != stored[pair][0] for pair in stored)
    assert differing > 0.9 * len(stored)
    longer = sum(len(s) + len(t) for s, t in sampled.values())
    assert longer > 1.1 * sum(len(s) + len(t) for s, t in stored.values())


@pytest.mark.parametrize(
    "batching",
    [
        {"max_tokens_per_micro_batch": BUDGET},
        {"max_tokens_per_micro_batch": 900, "micro_batches_per_step": 1},
        {"window_shards": 1},
        {"window_shards": 100},
    ],
)
def test_pieces_of_a_pair_do_not_depend_on_batching(
    dataset: Path, data_settings: MakeSettings, sampled: Pieces, batching: dict[str, int]
) -> None:
    settings = data_settings(dataset, tokenizer=sampling(), **batching)
    assert read(dataset, settings, 0) == sampled


def test_each_seed_and_pass_has_different_pieces(
    dataset: Path, data_settings: MakeSettings, sampled: Pieces
) -> None:
    settings = data_settings(dataset, tokenizer=sampling())
    others = [
        read(dataset, settings, 1),
        read(dataset, data_settings(dataset, tokenizer=sampling(), seed=6), 0),
    ]
    for other in others:
        differing = sum(other[pair] != sampled[pair] for pair in sampled)
        assert differing > 0.9 * len(sampled)


@pytest.mark.parametrize(("sides", "changed"), [("source", 0), ("target", 1)])
def test_sampling_of_one_side_leaves_the_other_side_unchanged(
    dataset: Path,
    data_settings: MakeSettings,
    stored: Pieces,
    sampled: Pieces,
    sides: str,
    changed: int,
) -> None:
    pieces = read(dataset, data_settings(dataset, tokenizer=sampling(sides=sides)), 0)
    assert all(pieces[pair][changed] == sampled[pair][changed] for pair in sampled)
    assert all(pieces[pair][1 - changed] == stored[pair][1 - changed] for pair in stored)


def test_no_sampled_sentence_exceeds_the_budget(
    dataset: Path, manifest: Manifest, data_settings: MakeSettings, stored: Pieces
) -> None:
    """A longer sentence keeps its stored pieces, which always fit into the budget."""
    budget = max(manifest.longest().values())
    settings = data_settings(
        dataset, tokenizer=sampling(alpha=0.9), max_tokens_per_micro_batch=budget
    )
    pieces = read(dataset, settings, 0)
    kept = [pair for pair in stored if pieces[pair] == stored[pair]]
    assert 0 < len(kept) < len(stored)
    assert max(len(side) for sides in pieces.values() for side in sides) <= budget


def test_each_pass_over_a_small_corpus_has_different_pieces_and_its_tag(
    data_config: Callable[..., PairDataConfig],
    tokenizer_config: TokenizerConfig,
    data_settings: MakeSettings,
    corpus_folder: Path,
    tmp_path: Path,
) -> None:
    """A small corpus is read several times in an epoch."""
    train = [
        {"source": str(corpus_folder / f"{name}.src"), "target": str(corpus_folder / f"{name}.tgt")}
        | {"tag": f"<{name}>", "weight": 1}
        for name in ("train", "test")
    ]
    data = data_config(tmp_path / "d", train=train)
    manifest = prepare(settings_of(data, tokenizer_config), lambda progress: None)
    store = open_store(tmp_path / "d")
    tags = [load_tokenizers(store, manifest)["src"].tag_id(f"<{n}>") for n in ("train", "test")]
    settings = data_settings(tmp_path / "d", data=data, tokenizer=sampling())
    reader = WindowReader(store, manifest, settings)
    first_of_test = manifest.corpora[0].kept
    seen: dict[int, list[tuple[int, ...]]] = {}
    for window in range(reader.layout(0, 0).windows_per_epoch):
        count = len(reader.layout(0, window).units)
        for micro_batch in reader.fetch(0, window, 0, count):
            source = micro_batch.fields["src"]
            for pair, ids in zip(
                micro_batch.pair_ids.tolist(),
                np.split(source.ids, np.cumsum(source.lengths)[:-1]),
                strict=True,
            ):
                assert ids[0] == tags[pair >= first_of_test]
                seen.setdefault(pair, []).append(tuple(ids.tolist()))
    of_test = [pieces for pair, pieces in seen.items() if pair >= first_of_test]
    assert {len(pieces) for pieces in of_test} <= {8, 9}
    assert sum(len(set(pieces)) for pieces in of_test) > 0.9 * sum(map(len, of_test))


class OneSlice:
    """Mixture in which every window is the same part of one shard."""

    windows_per_epoch = 1

    def __init__(self, part: ShardSlice) -> None:
        self.part = part

    def slices(self, epoch: int, window: int) -> list[ShardSlice]:
        return [self.part]


@pytest.mark.parametrize("pass_number", [0, 4])
def test_pieces_depend_on_the_pass_and_on_the_pair_s_number_in_the_dataset(
    dataset: Path,
    manifest: Manifest,
    data_settings: MakeSettings,
    read_pairs: Callable[[Path], list[tuple[str, str]]],
    tokenizer: Tokenizer,
    pass_number: int,
) -> None:
    """The window is the middle of a shard, so a pair's number is not its place in the slice."""
    settings = data_settings(dataset, tokenizer=sampling())
    reader = WindowReader(open_store(dataset), manifest, settings)
    reader._mixture = OneSlice(ShardSlice(3, 20, 50, pass_number))  # type: ignore[assignment]
    pairs = read_pairs(dataset)
    seen = []
    for micro_batch in reader.fetch(0, 0, 0, len(reader.layout(0, 0).units)):
        seen += micro_batch.pair_ids.tolist()
        seeds = example_seeds(SUBWORD_SAMPLING, settings.seed, pass_number, 0, micro_batch.pair_ids)
        sources = [pairs[pair][0] for pair in micro_batch.pair_ids]
        expected = tokenizer.sample_field(sources, seeds, 0.3, None)
        assert micro_batch.fields["src"].ids.tolist() == expected.ids.tolist()
    first = manifest.shards[3].first_pair
    assert sorted(seen) == list(range(first + 20, first + 50))
