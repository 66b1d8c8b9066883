"""The small files of a dataset, each written through to the disk and described for the manifest."""

import json
from pathlib import Path

from data_pipeline.config import DataConfig
from data_pipeline.corpora.cleaning import DropReport
from data_pipeline.corpora.corpus import ParallelText, read_whole
from data_pipeline.dataset.manifest import (
    SOURCE,
    TARGET,
    FileInfo,
    HeldOutInfo,
    ShardInfo,
    TokenizerInfo,
)
from data_pipeline.preparation.group_writer import WrittenShard
from data_pipeline.storage.durable import write_durably
from data_pipeline.storage.locations import cache_folder
from data_pipeline.tokenizers.tokenizer import Tokenizer

CLEANING_NAME = "cleaning.json"


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


def write_heldout(folder: Path, data: DataConfig) -> dict[str, HeldOutInfo]:
    """Copies the validation and test sets.

    Raises:
        CorpusError: anything is wrong with their text.
    """
    infos = {}
    for use, corpus in (("validation", data.validation), *data.tests.items()):
        text = read_whole(corpus, mirror=data.mirror, cache=cache_folder(data.cache))
        infos[use] = HeldOutInfo(
            files=_write_sides(folder, use, text),
            pairs=len(text.sources),
            tag=corpus.tag,
            sha256s=text.sha256s,
        )
    return infos


def _write_sides(folder: Path, use: str, text: ParallelText) -> dict[str, FileInfo]:
    files = {}
    for field, sentences in ((SOURCE, text.sources), (TARGET, text.targets)):
        name = f"heldout/{use}.{field}.txt"
        lines = "".join(sentence + "\n" for sentence in sentences)
        files[field] = FileInfo(file=name, sha256=write_durably(folder / name, lines.encode()))
    return files


def write_cleaning_report(folder: Path, reports: dict[str, DropReport]) -> FileInfo:
    """Writes what was dropped of each corpus and why, with the earliest examples."""
    content = {name: report.to_json() for name, report in reports.items()}
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    return FileInfo(file=CLEANING_NAME, sha256=write_durably(folder / CLEANING_NAME, text.encode()))


def number_shards(folder: Path, written: list[tuple[str, list[WrittenShard]]]) -> list[ShardInfo]:
    """Names the shards of each corpus and numbers their pairs."""
    shards = []
    first_pair = 0
    for corpus, (name, shards_of_corpus) in enumerate(written):
        for index, shard in enumerate(shards_of_corpus):
            final = f"shards/{name}-{index:05d}.tar"
            shard.path.rename(folder / final)
            shards.append(
                ShardInfo(
                    name=final,
                    bytes=shard.bytes,
                    sha256=shard.sha256,
                    corpus=corpus,
                    pairs=shard.pairs,
                    first_pair=first_pair,
                    tokens=shard.tokens,
                )
            )
            first_pair += shard.pairs
    return shards
