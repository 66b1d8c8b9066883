"""Registries of tasks and networks: the classes of their recipe sections, and their code.

This module does not import torch, so the driver can read recipes without loading torch.

    TASKS["translation"] ──▶ the classes of its sections, its scores, its torch side
    NETWORKS["transformer"] ──▶ the class of the section `model`, and the function that builds it

`foundation.built_in_tasks` names the numpy side and the torch side of each built-in task.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from data_pipeline.config.data import (
    BatchingConfig,
    DataConfig,
    PackedBatchingConfig,
    TokenizerConfig,
)
from data_pipeline.config.embedding import EmbeddingBatchingConfig, check_recipe
from data_pipeline.config.label import LabelledDataConfig, TaggedDataConfig
from data_pipeline.config.masking import MaskedBatchingConfig, PairMaskedBatchingConfig
from data_pipeline.config.pair import PairDataConfig, TranslationDataConfig
from data_pipeline.config.text import TextDataConfig, TextTokenizerConfig
from foundation.built_in_tasks import BUILT_IN_TASKS
from foundation.registry import Registry
from foundation.section import Section
from model.config.decoder_only import DecoderOnlyConfig, SamplingConfig
from model.config.encoder_only import (
    EncoderOnlyConfig,
    FillConfig,
    LabelTextsConfig,
    LabelTokensConfig,
)
from model.config.sentence_encoder import SentenceEncoderConfig
from model.config.transformer import DecodingConfig, ModelConfig, NetworkConfig
from trainer.scores import MORE_IS_BETTER


def _accept(recipe: Any) -> None:
    """Accept every recipe."""


@dataclass(frozen=True)
class TaskKind:
    """Properties of a task that a recipe depends on.

    Attributes:
        data: the class of the section `data`.
        tokenizer: the class of the section `tokenizer`.
        batching: the class of the section `batching`.
        decoding: the class of the section `decoding`.
        network: the name of its default network.
        scores: the scores of its validation by name, True if a greater value is better. By default,
            the first determines the best checkpoint.
        training: its torch side, as MODULE:CLASS; see `trainer.tasks.task`.
        makes_texts: whether a validation generates a text for each example, which can be scored.
        probes: whether its torch side implements `probe` for its default network.
        repeats: whether the rows of a micro-batch can be repeated within a pass, as
            `trainer.r_drop` requires.
        loss_unit: the unit that the loss is a mean over, for axes of charts.
        check: raises ValueError if sections of a recipe contradict each other.
    """

    data: type[DataConfig]
    tokenizer: type[TokenizerConfig]
    batching: type[BatchingConfig]
    decoding: type[Section]
    network: str
    scores: Mapping[str, bool]
    training: str
    makes_texts: bool = False
    probes: bool = False
    repeats: bool = False
    loss_unit: str = "unit"
    check: Callable[[Any], None] = _accept


@dataclass(frozen=True)
class NetworkKind:
    """Properties of a network that a recipe depends on.

    Attributes:
        config: the class of the section `model`.
        build: the function that builds the network from a recipe and the tokenizers by field, as
            MODULE:FUNCTION; see `trainer.tasks.network`.
        flops: the function that counts the network's floating-point operations, as MODULE:FUNCTION;
            see `trainer.tasks.flops`. None if no function counts them.
    """

    config: type[NetworkConfig]
    build: str
    flops: str | None = None


TASKS = Registry[TaskKind]("task", "task")
NETWORKS = Registry[NetworkKind]("network", "model.network")


def _shared_embeddings_need_a_joint_vocabulary(recipe: Any) -> None:
    if getattr(recipe.model, "share_embeddings", None) == "all" and not recipe.tokenizer.joint:
        raise ValueError(
            "model.share_embeddings is 'all' and tokenizer.joint is false, so unrelated pieces "
            "of the two languages would share a vector: set tokenizer.joint to true, or "
            "model.share_embeddings to 'decoder' or 'none'"
        )


NETWORKS.register(
    "transformer",
    NetworkKind(
        ModelConfig,
        "trainer.tasks.translation:build_transformer",
        "trainer.tasks.flops:transformer",
    ),
)
TASKS.register(
    "translation",
    TaskKind(
        data=TranslationDataConfig,
        tokenizer=TokenizerConfig,
        batching=BatchingConfig,
        decoding=DecodingConfig,
        network="transformer",
        scores=MORE_IS_BETTER,
        training=BUILT_IN_TASKS["translation"].training,
        loss_unit="target token",
        makes_texts=True,
        probes=True,
        repeats=True,
        check=_shared_embeddings_need_a_joint_vocabulary,
    ),
)

CAUSAL_LM_SCORES = {"loss": False, "perplexity": False, "byte_perplexity": False}

NETWORKS.register(
    "decoder_only",
    NetworkKind(
        DecoderOnlyConfig,
        "trainer.tasks.causal_lm:build_decoder_only",
        "trainer.tasks.flops:decoder_only",
    ),
)
TASKS.register(
    "causal_lm",
    TaskKind(
        data=TextDataConfig,
        tokenizer=TextTokenizerConfig,
        batching=PackedBatchingConfig,
        decoding=SamplingConfig,
        network="decoder_only",
        scores=CAUSAL_LM_SCORES,
        training=BUILT_IN_TASKS["causal_lm"].training,
        loss_unit="token",
    ),
)

SENTENCE_EMBEDDING_SCORES = {"loss": False, "retrieval_accuracy": True}


def _pairs_can_be_embedded(recipe: Any) -> None:
    tokenizer = recipe.tokenizer
    check_recipe(
        recipe.data, recipe.batching, joint=tokenizer.joint, alpha=tokenizer.sampling.alpha
    )


NETWORKS.register(
    "sentence_encoder",
    NetworkKind(
        SentenceEncoderConfig,
        "trainer.tasks.sentence_embedding:build_sentence_encoder",
        "trainer.tasks.flops:sentence_encoder",
    ),
)
TASKS.register(
    "sentence_embedding",
    TaskKind(
        data=PairDataConfig,
        tokenizer=TokenizerConfig,
        batching=EmbeddingBatchingConfig,
        decoding=Section,
        network="sentence_encoder",
        scores=SENTENCE_EMBEDDING_SCORES,
        training=BUILT_IN_TASKS["sentence_embedding"].training,
        loss_unit="sentence pair",
        check=_pairs_can_be_embedded,
    ),
)

LABEL_SCORES = {"loss": False, "accuracy": True, "macro_f1": True}
TAG_SCORES = {**LABEL_SCORES, "span_f1": True}


def _network_has_label_head(recipe: Any) -> None:
    network = recipe.model.network
    if network in ("transformer", "decoder_only", "encoder_only"):
        raise ValueError(
            f"model.network is {network}, which predicts pieces, but {recipe.task} needs a network "
            "that predicts labels: remove model.network"
        )


def _tags_have_labels_and_scores(recipe: Any) -> None:
    _network_has_label_head(recipe)
    stopping = recipe.trainer.early_stopping
    for key, metric in (
        ("checkpoints.best_by", recipe.checkpoints.best_by),
        ("trainer.early_stopping.metric", stopping.metric if stopping else None),
    ):
        if metric == "span_f1" and not recipe.data.has_spans:
            raise ValueError(
                f"{key} is span_f1, but data.labels do not have the form O, B-X and I-X, so there "
                "are no spans: use another score"
            )


NETWORKS.register(
    "label_texts",
    NetworkKind(
        LabelTextsConfig,
        "trainer.tasks.labelling:build_label_model",
        "trainer.tasks.flops:label_model",
    ),
)
TASKS.register(
    "text_classification",
    TaskKind(
        data=LabelledDataConfig,
        tokenizer=TextTokenizerConfig,
        batching=PackedBatchingConfig,
        decoding=Section,
        network="label_texts",
        scores=LABEL_SCORES,
        training=BUILT_IN_TASKS["text_classification"].training,
        loss_unit="text",
        check=_network_has_label_head,
    ),
)
NETWORKS.register(
    "label_tokens",
    NetworkKind(
        LabelTokensConfig,
        "trainer.tasks.labelling:build_label_model",
        "trainer.tasks.flops:label_model",
    ),
)
TASKS.register(
    "token_classification",
    TaskKind(
        data=TaggedDataConfig,
        tokenizer=TextTokenizerConfig,
        batching=PackedBatchingConfig,
        decoding=Section,
        network="label_tokens",
        scores=TAG_SCORES,
        training=BUILT_IN_TASKS["token_classification"].training,
        loss_unit="word",
        check=_tags_have_labels_and_scores,
    ),
)

MASKED_LM_SCORES = {"loss": False, "perplexity": False, "accuracy": True}

NETWORKS.register(
    "encoder_only",
    NetworkKind(
        EncoderOnlyConfig,
        "trainer.tasks.masked_lm:build_masked_language_model",
        "trainer.tasks.flops:masked_language_model",
    ),
)
TASKS.register(
    "masked_lm",
    TaskKind(
        data=TextDataConfig,
        tokenizer=TextTokenizerConfig,
        batching=MaskedBatchingConfig,
        decoding=FillConfig,
        network="encoder_only",
        scores=MASKED_LM_SCORES,
        training=BUILT_IN_TASKS["masked_lm"].training,
        loss_unit="masked token",
    ),
)

TLM_SCORES = {**MASKED_LM_SCORES, "alone_loss": False}


def _pairs_have_segments(recipe: Any) -> None:
    segments = getattr(recipe.model, "segments", None)
    if segments is not None and segments < 2:
        raise ValueError(
            f"model.segments is {segments}, but tlm needs a segment for each of the two languages "
            "of a pair: set model.segments to 2, or model.preset to bert"
        )
    if not recipe.tokenizer.joint:
        raise ValueError(
            "tokenizer.joint is false, but tlm has both languages in one text: set "
            "tokenizer.joint to true"
        )
    corpora = [*recipe.data.train, recipe.data.validation, *recipe.data.tests.values()]
    if tags := {tag for corpus in corpora for tag in corpus.tags.values()}:
        raise ValueError(
            f"corpora have the tag {' and '.join(sorted(tags))}, but tlm distinguishes languages "
            "by segments: remove the tags"
        )


TASKS.register(
    "tlm",
    TaskKind(
        data=PairDataConfig,
        tokenizer=TokenizerConfig,
        batching=PairMaskedBatchingConfig,
        decoding=FillConfig,
        network="encoder_only",
        scores=TLM_SCORES,
        training=BUILT_IN_TASKS["tlm"].training,
        loss_unit="masked token",
        check=_pairs_have_segments,
    ),
)
