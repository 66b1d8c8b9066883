"""Write one group of partitions as shards."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.data_settings import settings_of

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import PairDataConfig
from data_pipeline.corpora.cleaning import NumberedExample
from data_pipeline.dataset.manifest_header import ShardInfo
from data_pipeline.dataset.shards import unpack_shard
from data_pipeline.preparation.group_writer import GroupJob, write_group
from data_pipeline.preparation.shuffle import DUPLICATE, Partitions, pack_rows
from data_pipeline.tokenizers.tokenizer import train_tokenizer


@pytest.fixture
def make_job(
    data_config: Callable[..., PairDataConfig],
    sentences: Callable[[int, int], list[str]],
    tmp_path: Path,
) -> Callable[..., GroupJob]:
    """Return a function that makes the job of a group, by default in shards of 4 × 5 pairs."""
    config = TokenizerConfig(vocabulary_size=120)
    model = train_tokenizer(sentences(200, 3), config, "tokenizer.model", ["<bt>"]).model

    news = {"source": "a", "target": "b", "name": "news"}  # these files are not read

    def make(pairs: int, **settings: object) -> GroupJob:
        partitions = Partitions(tmp_path / "partitions")
        sides = sentences(pairs, 1), sentences(pairs, 2)
        kept = [
            NumberedExample(7 * number, pair)
            for number, pair in enumerate(zip(*sides, strict=True))
        ]
        partitions.add(pack_rows(kept, 0, by_content=False))
        partitions.flush()
        (tmp_path / "shards").mkdir()
        data = data_config(
            tmp_path / "d",
            train=[news, {**news, "name": "tagged", "tag": "<bt>"}],
            **{"pairs_per_block": 5, "blocks_per_shard": 4} | settings,
        )
        return GroupJob(
            settings=settings_of(data, config),
            folder=tmp_path / "shards",
            corpus=0,
            group=3,
            partitions=partitions.groups(10**6)[0],
            tokenizers={"src": model, "tgt": model},
            tokenizer_kind=None,
        )

    return make


@pytest.mark.parametrize(
    ("pairs", "shards"),
    [
        (1, [[1]]),
        (20, [[5, 5, 5, 5]]),
        (21, [[5, 5, 1], [5, 5]]),
        (59, [[5, 5, 5, 5], [5, 5, 5, 5], [5, 5, 5, 4]]),
        (61, [[5, 5, 5, 1], [5, 5, 5], [5, 5, 5], [5, 5, 5]]),
    ],
)
def test_shards_have_nearly_equal_sizes_and_full_blocks(
    make_job: Callable[..., GroupJob], pairs: int, shards: list[list[int]]
) -> None:
    written = write_group(make_job(pairs))
    assert written.pairs == pairs
    keys: list[str] = []
    for shard, blocks in zip(written.shards, shards, strict=True):
        info = ShardInfo(
            name=shard.path.name,
            bytes=shard.bytes,
            sha256=shard.sha256,
            corpus=0,
            pairs=shard.pairs,
            first_pair=0,
            tokens=shard.tokens,
        )
        unpacked = unpack_shard(shard.path.read_bytes(), info)
        assert [block.pairs for block in unpacked] == blocks
        keys += [block.key for block in unpacked]
    assert keys == sorted(set(keys))
    assert keys[0] == "news-0003-0000-0000"
    for field, lengths in written.lengths.items():
        counts = lengths.counts
        assert counts.sum() == pairs
        tokens = sum(shard.tokens[field] for shard in written.shards)
        assert np.arange(len(counts)) @ counts == tokens


def test_a_group_without_remaining_pairs_writes_no_shard(make_job: Callable[..., GroupJob]) -> None:
    written = write_group(make_job(30, max_source_length=2, max_target_length=2))
    assert written.shards == []
    assert written.pairs == 0
    assert sum(written.dropped.counts().values()) == 30
    assert DUPLICATE not in written.dropped.counts()
    assert {field: lengths.to_manifest() for field, lengths in written.lengths.items()} == {
        "src": (),
        "tgt": (),
    }


def test_a_tag_adds_a_token_to_each_source(make_job: Callable[..., GroupJob]) -> None:
    job = make_job(100, max_source_length=20)
    plain = write_group(job)
    tagged = write_group(replace(job, corpus=1))
    assert plain.lengths["src"].counts[:20].tolist() == tagged.lengths["src"].counts[1:].tolist()
    assert tagged.lengths["src"].longest == 20
