"""Writers of a dataset's files other than shards; they return manifest records of the files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data_pipeline.batching.heldout import first_too_long
from data_pipeline.batching.task import HeldOut
from data_pipeline.config.data import DataConfig
from data_pipeline.corpora.cleaning import hashes_of
from data_pipeline.corpora.context import in_context
from data_pipeline.corpora.corpus import WholeText, read_whole
from data_pipeline.dataset.manifest_header import (
    FieldInfo,
    FileInfo,
    HeldOutInfo,
    ShardInfo,
    TokenizerInfo,
)
from data_pipeline.dataset.texts import pack_texts
from data_pipeline.errors import CorpusError
from data_pipeline.preparation.group_writer import WrittenShard
from data_pipeline.preparation.ingest import IngestedCorpus
from data_pipeline.storage.locations import cache_folder
from data_pipeline.storage.regular_files import write_durably
from data_pipeline.tokenizers.tokenizer import Tokenizer

CLEANING_NAME = "cleaning.json"


def write_tokenizers(folder: Path, tokenizers: dict[str, Tokenizer]) -> dict[str, TokenizerInfo]:
    joint = len({id(tokenizer.model) for tokenizer in tokenizers.values()}) == 1
    infos = {}
    for field, tokenizer in tokenizers.items():
        name = "tokenizer.model" if joint else f"tokenizer.{field}.model"
        infos[field] = TokenizerInfo(
            file=name,
            sha256=write_durably(folder / name, tokenizer.model),
            vocabulary_size=tokenizer.vocabulary_size,
            kind=tokenizer.kind,
        )
    return infos


def read_heldout(data: DataConfig) -> dict[str, WholeText]:
    """Return the texts of the validation and test sets.

    Raises:
        CorpusError: a set cannot be read.
    """
    return {
        use: read_whole(
            corpus,
            mirror=data.mirror,
            cache=cache_folder(data.cache),
            problem_of=data.problem_of,
        )
        for use, corpus in data.heldout.items()
    }


def with_context(texts: dict[str, WholeText], data: DataConfig) -> dict[str, WholeText]:
    """Return the held-out texts, with the recipe's context sentences added to their first field."""
    if not data.sentences_before:
        return texts
    return {use: _in_context(text, data.sentences_before) for use, text in texts.items()}


def _in_context(whole: WholeText, before: int) -> WholeText:
    joined = in_context((texts[0] for texts in whole.texts), before)
    texts = zip(joined, (texts[1:] for texts in whole.texts), strict=True)
    return replace(whole, texts=tuple((first, *others) for first, others in texts))


def write_heldout(
    folder: Path, data: DataConfig, fields: Sequence[FieldInfo], texts: dict[str, WholeText]
) -> dict[str, HeldOutInfo]:
    """Copy the validation and test sets into the dataset."""
    infos = {}
    for use, corpus in data.heldout.items():
        text, files = texts[use], {}
        for number, field in enumerate(fields):
            name = f"heldout/{use}.{field.name}.txt"
            lines = pack_texts([of_example[number] for of_example in text.texts], field)
            files[field.name] = FileInfo(file=name, sha256=write_durably(folder / name, lines))
        infos[use] = HeldOutInfo(
            files=files,
            pairs=len(text.texts),
            tag=corpus.tags.get(fields[0].name),
            sha256s=text.sha256s,
        )
    return infos


def count_matches(
    heldout: dict[str, HeldOutInfo],
    data: DataConfig,
    texts: dict[str, WholeText],
    corpora: Sequence[IngestedCorpus],
) -> dict[str, HeldOutInfo]:
    """Add to held-out records how many of their examples are also training examples."""
    seen = frozenset[bytes]().union(*(corpus.in_heldout for corpus in corpora))
    if not seen:
        return heldout
    infos = {}
    for use, info in heldout.items():
        hashes = [hashes_of(example, data.cleaning.normalise) for example in texts[use].texts]
        counts = {
            "in_training": sum(normalised in seen for _, normalised in hashes),
            "in_training_exactly": sum(exact in seen for exact, _ in hashes),
        }
        infos[use] = info.model_copy(update=counts)
    return infos


def check_heldout_lengths(
    task: str,
    data: DataConfig,
    fields: Sequence[FieldInfo],
    texts: dict[str, WholeText],
    tokenizers: dict[str, Tokenizer],
) -> None:
    """Check that all texts of the validation and test sets are short enough to be scored.

    Raises:
        CorpusError: a text has too many tokens.
    """
    for use, corpus in data.heldout.items():
        columns = zip(*texts[use].texts, strict=True)
        by_field = {field.name: list(c) for field, c in zip(fields, columns, strict=True)}
        heldout = HeldOut(by_field, corpus.tags)
        found = first_too_long(task, data, heldout, tokenizers)
        if found is not None:
            names = [field.name for field in fields]
            where = (
                f"{corpus.locations[names.index(found.field)]}, line {found.number:,}"
                if corpus.files_format is None
                else f"{', '.join(corpus.locations)}, {corpus.noun} {found.number:,}, {found.field}"
            )
            key = use if use == "validation" else f"tests.{use}"
            raise CorpusError(f"{where} (data.{key}): {found.problem}")


def write_cleaning_report(folder: Path, corpora: Sequence[IngestedCorpus]) -> FileInfo:
    """Write, by corpus and reason, the number of dropped examples and the earliest of them."""
    content = {
        corpus.name: corpus.dropped.to_json(corpus.config.noun, corpus.config.columns.labels)
        for corpus in corpora
    }
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    return FileInfo(file=CLEANING_NAME, sha256=write_durably(folder / CLEANING_NAME, text.encode()))


def number_shards(folder: Path, written: list[tuple[str, list[WrittenShard]]]) -> list[ShardInfo]:
    """Rename the shards of all corpora to their final names, and number their pairs.

    Args:
        written: for each corpus, its name and its shards in order.
    """
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
