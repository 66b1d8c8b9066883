"""The dataset's tokenizers: given, or trained on a random part of the cleaned text.

The text is shuffled already, so the first examples of each corpus are a fair sample of it. Training
holds the sample in memory several times, so it runs in a process of its own where there are any.
"""

from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from data_pipeline.batching.task import DATA_TASKS
from data_pipeline.config import DataSettings
from data_pipeline.corpora.cleaning import DropReport
from data_pipeline.preparation.ingest import IngestedCorpus
from data_pipeline.preparation.shuffle import DUPLICATE, shuffled_rows
from data_pipeline.process_pool import ProcessPool
from data_pipeline.tokenizers.tokenizer import Tokenizer, load_existing, train_tokenizer


@dataclass(frozen=True)
class _TrainingJob:
    settings: DataSettings
    samples: list[tuple[list[Path], int]]  # partitions of a corpus, and how many of its examples


def given_tokenizers(settings: DataSettings) -> dict[str, Tokenizer] | None:
    """The recipe's existing model for all fields; None if one has to be trained.

    Raises:
        TokenizerError: the model is not the one meant, or lacks a tag of the corpora.
    """
    if settings.tokenizer.model is None:
        return None
    tokenizer = load_existing(settings.tokenizer)
    names = _field_names(settings)
    for tag in sorted({tag for name in names for tag in _tags(settings, name)}):
        tokenizer.tag_id(tag)
    return dict.fromkeys(names, tokenizer)


def train_tokenizers(
    settings: DataSettings, corpora: list[IngestedCorpus], pool: ProcessPool
) -> dict[str, Tokenizer]:
    """Trains a tokenizer for each field; a joint one is the same object for all.

    Raises:
        TokenizerError: a model cannot be trained.
    """
    job = _TrainingJob(settings, _samples(corpora, settings.tokenizer.training_pairs))
    (models,) = pool.map(_train, [job])
    by_model = {model: Tokenizer(model, name) for name, model in models.items()}
    return {field: by_model[model] for field, model in models.items()}


def _field_names(settings: DataSettings) -> list[str]:
    return [field.name for field in DATA_TASKS[settings.task].fields(settings.data)]


def _tags(settings: DataSettings, field: str) -> list[str]:
    """The tags that stand before texts of a field."""
    data = settings.data
    corpora = (*data.train, data.validation, *data.tests.values())
    return sorted({corpus.tags[field] for corpus in corpora if field in corpus.tags})


def _samples(corpora: list[IngestedCorpus], most: int) -> list[tuple[list[Path], int]]:
    """Each corpus's partitions, and its share of about `most` examples: by size, at least one."""
    total = sum(corpus.partitions.examples for corpus in corpora)
    return [
        (
            corpus.partitions.paths(corpus.partitions.counts.nonzero()[0].tolist()),
            max(1, corpus.partitions.examples * min(most, total) // total),
        )
        for corpus in corpora
    ]


def _train(job: _TrainingJob) -> dict[str, bytes]:
    """Trains models and returns them serialised, by field."""
    settings, config, names = job.settings, job.settings.tokenizer, _field_names(job.settings)
    by_content, ignored = settings.data.cleaning.drop_duplicates, DropReport([DUPLICATE])
    rows = [
        row
        for paths, count in job.samples
        for row in islice(
            shuffled_rows(paths, len(names), by_content=by_content, report=ignored), count
        )
    ]
    texts = {name: [row.texts[number] for row in rows] for number, name in enumerate(names)}
    del rows
    tags = {name: _tags(settings, name) for name in names}
    if config.joint:
        sentences = chain.from_iterable(texts.values())
        all_tags = sorted({tag for name in names for tag in tags[name]})
        model = train_tokenizer(sentences, config, "tokenizer.model", all_tags).model
        return dict.fromkeys(texts, model)
    return {
        name: train_tokenizer(sentences, config, f"tokenizer.{name}.model", tags[name]).model
        for name, sentences in texts.items()
    }
