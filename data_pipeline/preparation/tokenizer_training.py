"""The dataset's tokenizers: given, or trained on a random part of the cleaned text.

The text is shuffled already, so the first pairs of each corpus are a fair sample of it. Training
holds the sample in memory several times, so it runs in a process of its own where there are any.
"""

from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from data_pipeline.config import DataConfig, TokenizerConfig
from data_pipeline.corpora.cleaning import DropReport
from data_pipeline.dataset.manifest import SOURCE, TARGET
from data_pipeline.preparation.ingest import IngestedCorpus
from data_pipeline.preparation.shuffle import DUPLICATE, shuffled_rows
from data_pipeline.process_pool import ProcessPool
from data_pipeline.tokenizers.tokenizer import Tokenizer, load_existing, train_tokenizer


@dataclass(frozen=True)
class _TrainingJob:
    config: TokenizerConfig
    samples: list[tuple[list[Path], int]]  # partitions of a corpus, and how many of its pairs
    by_content: bool
    tags: list[str]


def given_tokenizers(data: DataConfig, config: TokenizerConfig) -> dict[str, Tokenizer] | None:
    """The recipe's existing model for both fields; None if one has to be trained.

    Raises:
        TokenizerError: the model is not the one meant, or lacks a tag of the corpora.
    """
    if config.model is None:
        return None
    tokenizer = load_existing(config)
    for tag in _tags(data):
        tokenizer.tag_id(tag)
    return {SOURCE: tokenizer, TARGET: tokenizer}


def train_tokenizers(
    data: DataConfig, config: TokenizerConfig, corpora: list[IngestedCorpus], pool: ProcessPool
) -> dict[str, Tokenizer]:
    """Trains a tokenizer for each field; a joint one is the same object for both.

    Raises:
        TokenizerError: a model cannot be trained.
    """
    samples = _samples(corpora, config.training_pairs)
    job = _TrainingJob(config, samples, data.cleaning.drop_duplicates, _tags(data))
    (models,) = pool.map(_train, [job])
    by_model = {model: Tokenizer(model, name) for name, model in models.items()}
    return {field: by_model[model] for field, model in models.items()}


def _tags(data: DataConfig) -> list[str]:
    corpora = (*data.train, data.validation, *data.tests.values())
    return sorted({corpus.tag for corpus in corpora if corpus.tag})


def _samples(corpora: list[IngestedCorpus], most: int) -> list[tuple[list[Path], int]]:
    """Each corpus's partitions, and its share of about `most` pairs: by size, and at least one."""
    total = sum(corpus.partitions.pairs for corpus in corpora)
    return [
        (
            corpus.partitions.paths(corpus.partitions.counts.nonzero()[0].tolist()),
            max(1, corpus.partitions.pairs * min(most, total) // total),
        )
        for corpus in corpora
    ]


def _train(job: _TrainingJob) -> dict[str, bytes]:
    """Trains models and returns them serialised, by field."""
    ignored = DropReport([DUPLICATE])
    rows = [
        row
        for paths, count in job.samples
        for row in islice(shuffled_rows(paths, by_content=job.by_content, report=ignored), count)
    ]
    texts = {SOURCE: [row.source for row in rows], TARGET: [row.target for row in rows]}
    del rows
    if job.config.joint:
        sentences = chain.from_iterable(texts.values())
        model = train_tokenizer(sentences, job.config, "tokenizer.model", job.tags).model
        return dict.fromkeys(texts, model)
    return {
        field: train_tokenizer(
            sentences, job.config, f"tokenizer.{field}.model", job.tags if field == SOURCE else ()
        ).model
        for field, sentences in texts.items()
    }
