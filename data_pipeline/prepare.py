"""`transloom prepare`: corpora → tokenizer, shards, lengths, held-out text, manifest.

    read and align → train the tokenizer → encode → drop what is empty or too long
    → shuffle once, globally → write a hidden folder → sync → rename

The same corpora and settings give the same bytes: nothing depends on time, threads, paths or
numpy's random generators. All of the text is held in memory once, with its piece ids.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from data_pipeline.batch import concatenate
from data_pipeline.config import DataConfig, TokenizerConfig
from data_pipeline.corpus import ParallelText, read_corpus
from data_pipeline.dataset_writer import (
    Fields,
    Texts,
    write_heldout,
    write_lengths,
    write_shards,
    write_tokenizers,
)
from data_pipeline.errors import CorpusError, DatasetError
from data_pipeline.manifest import (
    MANIFEST_NAME,
    SOURCE,
    TARGET,
    CorpusInfo,
    Counts,
    FieldInfo,
    Manifest,
    ShardInfo,
    preparation_settings,
)
from data_pipeline.plan import CORPUS_SHUFFLE, Int64Array, permutation
from data_pipeline.publish import check_replaceable, publish, work_folder
from data_pipeline.tokenizer import Tokenizer, load_existing, train_tokenizer

TRAIN = "train"
VALIDATION = "validation"
SENTENCES_PER_REPORT = 20_000


@dataclass(frozen=True)
class PrepareProgress:
    """What is being done, and how much of it: corpora, models, sentences, pairs.

    "unchanged" means that the dataset is there already, made from the same settings and text.
    """

    stage: Literal["read", "train tokenizer", "encode", "write", "unchanged"]
    done: int
    total: int


Report = Callable[[PrepareProgress], None]
Corpora = list[tuple[str, ParallelText]]  # with their use: train, validation, or a test set


def prepare(
    data: DataConfig, tokenizer: TokenizerConfig, report: Report, overwrite: bool = False
) -> Manifest:
    """Makes the dataset at `data.dataset` and returns its manifest.

    A dataset that is there already is kept if it was made from the same settings and text and is
    whole; it is made again if it is damaged, replaced if `overwrite`, and otherwise refused with
    DatasetError. Raises CorpusError and TokenizerError too, and leaves no dataset behind then.
    """
    dataset = Path(data.dataset).absolute()
    check_replaceable(dataset)
    existing = None
    if (dataset / MANIFEST_NAME).exists() and not overwrite:
        existing = Manifest.load(dataset)
        _refuse(dataset, existing.differences(data, tokenizer))

    corpora = _read_corpora(data, report)
    if existing is not None:
        pairs = zip(_describe(corpora), existing.corpora, strict=True)
        changed = [new.use for new, old in pairs if new != old]
        _refuse(dataset, [f"the text of {use} has changed" for use in changed])
        if _is_whole(existing, dataset):
            report(PrepareProgress("unchanged", existing.pairs, existing.pairs))
            return existing

    with work_folder(dataset) as work:
        _write_dataset(work / "new", data, tokenizer, corpora, report)
        publish(work / "new", dataset, work / "old")
    return Manifest.load(dataset)


def _write_dataset(
    folder: Path, data: DataConfig, config: TokenizerConfig, corpora: Corpora, report: Report
) -> None:
    train = [text for use, text in corpora if use == TRAIN]
    texts = {
        SOURCE: list(chain.from_iterable(text.sources for text in train)),
        TARGET: list(chain.from_iterable(text.targets for text in train)),
    }
    tokenizers = _make_tokenizers(texts, config, report)
    fields = _encode(texts, tokenizers, report)
    order, counts = _select(fields, data)

    for new in (folder, folder / "shards", folder / "heldout"):
        new.mkdir()
    shards: list[ShardInfo] = []
    for shard in write_shards(
        folder, texts, fields, order, data.pairs_per_block, data.blocks_per_shard
    ):
        shards.append(shard)
        report(PrepareProgress("write", shard.first_pair + shard.pairs, counts.kept))
    Manifest(
        fields=(
            FieldInfo(name=SOURCE, role="source", language=data.source_language),
            FieldInfo(name=TARGET, role="target", language=data.target_language),
        ),
        tokenizers=write_tokenizers(folder, tokenizers),
        special_ids=tokenizers[SOURCE].special_ids,
        counts=counts,
        lengths=write_lengths(folder, fields, order),
        heldout={use: write_heldout(folder, use, text) for use, text in corpora if use != TRAIN},
        preparation=preparation_settings(data, config),
        corpora=_describe(corpora),
        shards=tuple(shards),
    ).save(folder)


def _refuse(dataset: Path, differences: list[str]) -> None:
    if differences:
        raise DatasetError(
            f"The dataset {dataset} was prepared from something else: {'; '.join(differences)}. "
            "Name another folder with data.dataset, or replace this one with --overwrite; runs "
            "that were trained on it can then not be resumed."
        )


def _is_whole(manifest: Manifest, dataset: Path) -> bool:
    try:
        manifest.verify(dataset)
    except DatasetError:
        return False
    return True


def _read_corpora(data: DataConfig, report: Report) -> Corpora:
    uses = [(TRAIN, corpus) for corpus in data.train]
    uses += [(VALIDATION, data.validation), *data.tests.items()]
    corpora = []
    for done, (use, corpus) in enumerate(uses):
        report(PrepareProgress("read", done, len(uses)))
        corpora.append((use, read_corpus(corpus, data.mirror)))
    report(PrepareProgress("read", len(uses), len(uses)))
    return corpora


def _describe(corpora: Corpora) -> tuple[CorpusInfo, ...]:
    return tuple(
        CorpusInfo(
            use=use,
            source_sha256=text.source_sha256,
            target_sha256=text.target_sha256,
            pairs=len(text.sources),
        )
        for use, text in corpora
    )


def _make_tokenizers(texts: Texts, config: TokenizerConfig, report: Report) -> dict[str, Tokenizer]:
    """One tokenizer for each field; a joint one is the same object for all."""
    report(PrepareProgress("train tokenizer", 0, 1))
    if config.model is not None:
        tokenizers = dict.fromkeys(texts, load_existing(config))
    elif config.joint:
        sentences = chain.from_iterable(texts.values())
        tokenizers = dict.fromkeys(texts, train_tokenizer(sentences, config, "tokenizer.model"))
    else:
        tokenizers = {
            field: train_tokenizer(sentences, config, f"tokenizer.{field}.model")
            for field, sentences in texts.items()
        }
    report(PrepareProgress("train tokenizer", 1, 1))
    return tokenizers


def _encode(texts: Texts, tokenizers: dict[str, Tokenizer], report: Report) -> Fields:
    total = sum(map(len, texts.values()))
    done = 0
    fields = {}
    for field, sentences in texts.items():
        parts = []
        for start in range(0, len(sentences), SENTENCES_PER_REPORT):
            part = sentences[start : start + SENTENCES_PER_REPORT]
            parts.append(tokenizers[field].encode_field(part))
            done += len(part)
            report(PrepareProgress("encode", done, total))
        fields[field] = concatenate(parts)
    return fields


def _select(fields: Fields, data: DataConfig) -> tuple[Int64Array, Counts]:
    """The pairs that are kept, shuffled, and how many were dropped why (first reason counts)."""
    source, target = fields[SOURCE].lengths, fields[TARGET].lengths
    reasons = {
        "empty": (source == 1) | (target == 1),  # nothing but EOS
        "source_too_long": source > data.max_source_length,
        "target_too_long": target > data.max_target_length,
    }
    kept = np.ones(len(source), dtype=bool)
    dropped = {}
    for reason, applies in reasons.items():
        dropped[reason] = int(np.count_nonzero(kept & applies))
        kept &= ~applies
    pairs = np.flatnonzero(kept)
    if not len(pairs):
        raise CorpusError(
            f"None of the {len(source):,} training pairs is left: dropped {dropped} with "
            f"data.max_source_length={data.max_source_length} and "
            f"data.max_target_length={data.max_target_length} pieces. Raise these lengths, or "
            "give other text."
        )
    counts = Counts(read=len(source), kept=len(pairs), dropped=dropped)
    return pairs[permutation(len(pairs), CORPUS_SHUFFLE)], counts
