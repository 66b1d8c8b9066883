"""Floating-point operations of micro-batches, from their sizes and the kind of network.

    recipe ──network_flops──▶ operations per unit of each of the sizes (model.flops)
    micro-batch ──pair_sizes, …──▶ the sizes, once without padding and once as computed

A network's entry in `trainer.task_kinds.NETWORKS` names the function that counts its operations:
one of this file, or one of an extension.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import numpy as np

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.config.label import LabelsDataConfig
from data_pipeline.config.pair import SOURCE, TARGET
from data_pipeline.config.text import TEXT
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.registry import imported
from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig
from model.config.sentence_encoder import SentenceEncoderConfig
from model.config.transformer import AttentionBackend, ModelConfig
from model.flops import (
    BatchSizes,
    NetworkFlops,
    Training,
    decoder_only_flops,
    encoder_decoder_flops,
    label_flops,
    masked_flops,
    sentence_flops,
)
from trainer.recipe import TrainingRecipe
from trainer.task_kinds import NETWORKS
from trainer.tasks.frozen import frozen_names
from trainer.tasks.network import parameter_names

Tokenizers = Mapping[str, Tokenizer]  # tokenizers by field
# Function that counts the operations of a recipe's network.
Count = Callable[[TrainingRecipe, Tokenizers, Training], NetworkFlops]


class PaddedSizes(NamedTuple):
    """Sizes of a micro-batch without padding (`real`), and with the padding that is computed."""

    real: BatchSizes
    computed: BatchSizes


def network_flops(recipe: TrainingRecipe, tokenizers: Tokenizers) -> NetworkFlops | None:
    """Return the operations of a recipe's network, or None if they are not counted.

    Raises:
        EngineError: a pattern of `trainer.frozen` matches nothing, or all parameters are frozen.
        ExtensionError: the counting function cannot be imported.
    """
    place = NETWORKS[recipe.model.network].flops
    if place is None:
        return None
    trained = None
    if recipe.trainer.frozen:
        names = parameter_names(recipe, tokenizers)
        trained = set(names) - set(frozen_names(names, recipe.trainer.frozen))
    training = Training(trained, recipe.engine.activation_checkpointing)
    return cast(Count, imported(place))(recipe, tokenizers, training)


def transformer(recipe: TrainingRecipe, tokenizers: Tokenizers, training: Training) -> NetworkFlops:
    """Count the operations of the encoder–decoder."""
    assert isinstance(recipe.model, ModelConfig)
    return encoder_decoder_flops(recipe.model, tokenizers[TARGET].vocabulary_size, training)


def decoder_only(
    recipe: TrainingRecipe, tokenizers: Tokenizers, training: Training
) -> NetworkFlops:
    """Count the operations of the language model."""
    assert isinstance(recipe.model, DecoderOnlyConfig)
    return decoder_only_flops(recipe.model, tokenizers[TEXT].vocabulary_size, training)


def masked_language_model(
    recipe: TrainingRecipe, tokenizers: Tokenizers, training: Training
) -> NetworkFlops:
    """Count the operations of the masked language model."""
    assert isinstance(recipe.model, EncoderOnlyConfig)
    (size,) = {tokenizer.vocabulary_size for tokenizer in tokenizers.values()}
    return masked_flops(recipe.model, size, training)


def label_model(recipe: TrainingRecipe, tokenizers: Tokenizers, training: Training) -> NetworkFlops:
    """Count the operations of a network that predicts labels."""
    assert isinstance(recipe.model, EncoderOnlyConfig)
    assert isinstance(recipe.data, LabelsDataConfig)
    return label_flops(recipe.model, len(recipe.data.labels), training)


def sentence_encoder(
    recipe: TrainingRecipe, tokenizers: Tokenizers, training: Training
) -> NetworkFlops:
    """Count the operations of the sentence encoder."""
    assert isinstance(recipe.model, SentenceEncoderConfig)
    return sentence_flops(recipe.model, training)


def pair_sizes(micro_batch: MicroBatch, attention: AttentionBackend | None) -> PaddedSizes:
    """Return the sizes of pairs that an encoder–decoder reads, one sentence in each row."""
    source, target = (
        micro_batch.fields[name].lengths.astype(np.int64) for name in (SOURCE, TARGET)
    )
    outputs = int(target.sum())
    real = _sizes_of_pairs(outputs, source, target)
    if attention is AttentionBackend.VARLEN:
        return PaddedSizes(real, real)
    padded = (np.full_like(lengths, lengths.max()) for lengths in (source, target))
    return PaddedSizes(real, _sizes_of_pairs(outputs, *padded))


def _sizes_of_pairs(outputs: int, source: np.ndarray, target: np.ndarray) -> BatchSizes:
    return BatchSizes(
        tokens=int(source.sum()),
        pairs=int(source @ source),
        target_tokens=int(target.sum()),
        target_pairs=int(target @ target),
        cross_pairs=int(source @ target),
        outputs=outputs,
    )


def row_sizes(
    lengths: np.ndarray, rows: np.ndarray, outputs: int, attention: AttentionBackend | None
) -> PaddedSizes:
    """Return the sizes of packed rows, in which each part attends only to itself.

    Args:
        lengths: [parts], the number of tokens of each part.
        rows: [parts], the row of each part.
        outputs: the number of predicted tokens or labels.
        attention: the backend, which determines whether padding is computed.
    """
    parts = lengths.astype(np.int64)
    real = BatchSizes(tokens=int(parts.sum()), pairs=int(parts @ parts), outputs=outputs)
    if attention is AttentionBackend.VARLEN:
        return PaddedSizes(real, real)
    row_lengths = np.bincount(rows, weights=parts)
    tokens, longest = len(row_lengths) * int(row_lengths.max()), int(row_lengths.max())
    return PaddedSizes(real, BatchSizes(tokens=tokens, pairs=tokens * longest, outputs=outputs))


def embedding_sizes(micro_batch: MicroBatch, attention: AttentionBackend | None) -> PaddedSizes:
    """Return the sizes of pairs: one sentence per row, and a cosine per source and target."""
    lengths = np.concatenate([micro_batch.fields[name].lengths for name in (SOURCE, TARGET)])
    cosines = len(micro_batch.pair_ids) ** 2
    real, computed = row_sizes(lengths, np.arange(len(lengths)), 0, attention)
    return PaddedSizes(real._replace(cosines=cosines), computed._replace(cosines=cosines))
