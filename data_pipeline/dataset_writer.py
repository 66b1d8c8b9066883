"""The files of a dataset, each written through to the disk and described for the manifest."""

import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from data_pipeline.batch import FieldArrays, assemble
from data_pipeline.corpus import ParallelText
from data_pipeline.manifest import (
    SOURCE,
    TARGET,
    FileInfo,
    HeldOutInfo,
    ShardInfo,
    TokenizerInfo,
    write_durably,
)
from data_pipeline.plan import Int64Array, WindowPlan
from data_pipeline.shards import Block, pack_shard
from data_pipeline.tokenizer import Tokenizer

Texts = dict[str, list[str]]  # sentences by field
Fields = dict[str, FieldArrays]  # piece ids by field

LENGTHS_NAME = "lengths.npy"


def write_tokenizers(folder: Path, tokenizers: dict[str, Tokenizer]) -> dict[str, TokenizerInfo]:
    joint = tokenizers[SOURCE] is tokenizers[TARGET]
    infos = {}
    for field, tokenizer in tokenizers.items():
        name = "tokenizer.model" if joint else f"tokenizer.{field}.model"
        infos[field] = TokenizerInfo(
            file=name,
            sha256=write_durably(folder / name, tokenizer.model),
            vocabulary_size=tokenizer.vocabulary_size,
        )
    return infos


def write_lengths(folder: Path, fields: Fields, order: Int64Array) -> FileInfo:
    """The sidecar: int32 [pairs, fields], in the order of the pairs in the shards."""
    lengths = np.stack([field.lengths[order] for field in fields.values()], axis=1)
    buffer = io.BytesIO()
    np.save(buffer, lengths.astype("<i4"), allow_pickle=False)
    sha256 = write_durably(folder / LENGTHS_NAME, buffer.getvalue())
    return FileInfo(file=LENGTHS_NAME, sha256=sha256)


def write_heldout(folder: Path, use: str, text: ParallelText) -> dict[str, HeldOutInfo]:
    infos = {}
    for field, sentences in ((SOURCE, text.sources), (TARGET, text.targets)):
        name = f"heldout/{use}.{field}.txt"
        sha256 = write_durably(folder / name, _as_lines(sentences))
        infos[field] = HeldOutInfo(file=name, sha256=sha256, lines=len(sentences))
    return infos


def write_shards(
    folder: Path,
    texts: Texts,
    fields: Fields,
    order: Int64Array,
    pairs_per_block: int,
    blocks_per_shard: int,
) -> Iterator[ShardInfo]:
    """Writes the pairs `order` of the texts, and describes each shard when it is on the disk."""
    # A block is cut out of the shuffled pairs just as a micro-batch is.
    bounds = np.append(np.arange(0, len(order), pairs_per_block), len(order))
    parts = assemble(np.arange(len(texts[SOURCE])), fields, WindowPlan(order, bounds))
    shard_bounds = [*range(0, len(parts), blocks_per_shard), len(parts)]
    for number, (start, stop) in enumerate(pairwise(shard_bounds)):
        blocks = [
            Block(
                key=f"{block:08d}",
                texts={
                    field: _as_lines([sentences[pair] for pair in parts[block].pair_ids.tolist()])
                    for field, sentences in texts.items()
                },
                fields=parts[block].fields,
            )
            for block in range(start, stop)
        ]
        name = f"shards/train-{number:05d}.tar"
        packed = pack_shard(blocks)
        yield ShardInfo(
            name=name,
            bytes=len(packed),
            sha256=write_durably(folder / name, packed),
            pairs=sum(block.pairs for block in blocks),
            first_pair=int(bounds[start]),
            tokens={
                field: sum(len(block.fields[field].ids) for block in blocks) for field in fields
            },
        )


def _as_lines(sentences: list[str]) -> bytes:
    return "".join(sentence + "\n" for sentence in sentences).encode()
