"""Tokenizers of a dataset: existing models, or models trained on a random part of its text.

The text is already shuffled, so the first examples of each corpus are a fair sample. Training has
several copies of the sample in memory, so it runs in a separate process if there is a pool.
Sentences are used without their context, because the context's sentences are examples themselves.
For training, a document is cut into its lines, each with its line end, and long lines are cut
again: training on long texts is slow and gives no better model.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from io import StringIO
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from data_pipeline.batching.task import DATA_TASKS
from data_pipeline.config.data import TOKENIZERS, DataSettings, TokenizerConfig
from data_pipeline.corpora.cleaning import DropReport
from data_pipeline.corpora.context import SEPARATOR, without_context
from data_pipeline.dataset.manifest_header import FieldInfo
from data_pipeline.errors import TokenizerError
from data_pipeline.preparation.ingest import IngestedCorpus
from data_pipeline.preparation.shuffle import DUPLICATE, Partitions, Row, shuffled_rows
from data_pipeline.storage.budget import Budget
from data_pipeline.tokenizers.tokenizer import (
    Tokenizer,
    load_existing,
    open_tokenizer,
    train_tokenizer,
)
from foundation.process_pool import ProcessPool

LINE_CHARACTERS = 4096  # maximum length of a text that a model is trained on
TRAINING_CHARACTERS = Budget(
    "characters of training text", 4 * 1024**3, "Lower tokenizer.training_pairs"
)


class _Sample(NamedTuple):
    """Part of a corpus on which tokenizers are trained."""

    partitions: list[Path]
    examples: int  # maximum number of examples
    bytes: int | None  # reading ends when the examples reach this size; None: no limit


def given_tokenizers(settings: DataSettings) -> dict[str, Tokenizer] | None:
    """Return the recipe's existing tokenizers by field, or None if tokenizers must be trained.

    Raises:
        TokenizerError: the model is not the one in the recipe, or lacks a tag of the corpora.
    """
    if settings.tokenizer.model is None:
        return None
    tokenizer = load_existing(settings.tokenizer)
    names = [field.name for field in DATA_TASKS[settings.task].fields(settings.data)]
    for tag in sorted({tag for name in names for tag in _tags(settings, name)}):
        tokenizer.tag_id(tag)
    if settings.data.sentences_before and tokenizer.unk_id in tokenizer.encode([SEPARATOR])[0]:
        raise TokenizerError(
            f"{tokenizer.name} has no piece for {SEPARATOR}, which data.context_sentences puts "
            "between sentences. Remove tokenizer.model to train a tokenizer, or train the model "
            f"on text that contains {SEPARATOR}."
        )
    return {name: tokenizer.of_field(place) for place, name in enumerate(names)}


def train_tokenizers(
    settings: DataSettings, corpora: list[IngestedCorpus], pool: ProcessPool
) -> dict[str, Tokenizer]:
    """Train a tokenizer for each field; a joint tokenizer is the same object for all fields.

    Raises:
        TokenizerError: a model cannot be trained.
    """
    samples = _samples(corpora, settings.tokenizer)
    (models,) = pool.map(partial(_train, settings), [samples])
    kind = TOKENIZERS[settings.tokenizer.type].kind
    by_model = {model: open_tokenizer(model, name, kind) for name, model in models.items()}
    return {field: by_model[model] for field, model in models.items()}


def _tags(settings: DataSettings, field: str) -> list[str]:
    """Return the tags that precede texts of a field, and the special pieces that the task needs."""
    data = settings.data
    tags = {corpus.tags[field] for corpus in data.corpora.values() if field in corpus.tags}
    return sorted(tags.union(DATA_TASKS[settings.task].own_pieces()))


def _samples(corpora: list[IngestedCorpus], config: TokenizerConfig) -> list[_Sample]:
    """Divide the examples to train on among the corpora by size, with at least one each."""
    total = sum(corpus.partitions.examples for corpus in corpora)
    most, most_bytes = min(config.training_pairs, total), config.training_bytes

    def sample_of(partitions: Partitions) -> _Sample:
        return _Sample(
            partitions.paths(partitions.counts.nonzero()[0].tolist()),
            max(1, partitions.examples * most // total),
            None if most_bytes is None else max(1, partitions.examples * most_bytes // total),
        )

    return [sample_of(corpus.partitions) for corpus in corpora]


def _rows(sample: _Sample, fields: int, by_content: bool) -> Iterator[Row]:
    ignored = DropReport([DUPLICATE])
    rows = shuffled_rows(sample.partitions, fields, by_content=by_content, report=ignored)
    size = 0
    for row in islice(rows, sample.examples):
        yield row
        if sample.bytes is not None:
            size += sum(len(text.encode()) for text in row.texts)
            if size >= sample.bytes:
                return


def _training_texts(field: FieldInfo, texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts of a field in the form in which a model is trained on them."""
    if field.labels:
        return
    if not field.is_document:
        yield from texts
        return
    for text in texts:
        for line in StringIO(text, newline="\n"):
            for start in range(0, len(line), LINE_CHARACTERS):
                yield line[start : start + LINE_CHARACTERS]


def _train(settings: DataSettings, samples: list[_Sample]) -> dict[str, bytes]:
    """Train models and return them serialised, by field."""
    config = settings.tokenizer
    fields = DATA_TASKS[settings.task].fields(settings.data)
    by_content = settings.data.cleaning.drop_duplicates
    rows: list[Row] = []
    characters = 0
    for row in chain.from_iterable(_rows(s, len(fields), by_content) for s in samples):
        rows.append(row)
        characters += sum(map(len, row.texts))
        TRAINING_CHARACTERS.check(
            characters, lambda problem: TokenizerError(f"A tokenizer cannot be trained: {problem}.")
        )
    texts = {
        field.name: list(_training_texts(field, (row.texts[number] for row in rows)))
        for number, field in enumerate(fields)
    }
    if settings.data.sentences_before:
        texts[fields[0].name] = list(map(without_context, texts[fields[0].name]))
    del rows
    tags = {name: _tags(settings, name) for name in texts}
    if config.joint:
        sentences = chain.from_iterable(texts.values())
        all_tags = sorted({tag for name in texts for tag in tags[name]})
        model = train_tokenizer(sentences, config, "tokenizer.model", all_tags).model
        return dict.fromkeys(texts, model)
    return {
        name: train_tokenizer(sentences, config, f"tokenizer.{name}.model", tags[name]).model
        for name, sentences in texts.items()
    }
