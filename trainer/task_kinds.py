"""Registry of networks, and checks of recipes for the built-in tasks.

This module does not import torch, so the driver can read recipes without loading torch.

    NETWORKS["transformer"] ──▶ the class of the section `model`, and the function that builds it

`foundation.tasks` describes the tasks, whose classes extensions import from here, too.
"""

from dataclasses import dataclass
from typing import Any

from data_pipeline.config.pair import require_joint_text
from foundation.registry import Registry
from foundation.tasks import TASKS, TaskKind
from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig, LabelTextsConfig, LabelTokensConfig
from model.config.sentence_encoder import SentenceEncoderConfig
from model.config.transformer import ModelConfig, NetworkConfig

__all__ = ["NETWORKS", "TASKS", "NetworkKind", "TaskKind"]


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


_BUILT_IN = {
    "transformer": NetworkKind(
        ModelConfig,
        "trainer.tasks.translation:build_transformer",
        "trainer.tasks.flops:transformer",
    ),
    "decoder_only": NetworkKind(
        DecoderOnlyConfig,
        "trainer.tasks.causal_lm:build_decoder_only",
        "trainer.tasks.flops:decoder_only",
    ),
    "sentence_encoder": NetworkKind(
        SentenceEncoderConfig,
        "trainer.tasks.sentence_embedding:build_sentence_encoder",
        "trainer.tasks.flops:sentence_encoder",
    ),
    "label_texts": NetworkKind(
        LabelTextsConfig,
        "trainer.tasks.labelling:build_label_model",
        "trainer.tasks.flops:label_model",
    ),
    "label_tokens": NetworkKind(
        LabelTokensConfig,
        "trainer.tasks.labelling:build_label_model",
        "trainer.tasks.flops:label_model",
    ),
    "encoder_only": NetworkKind(
        EncoderOnlyConfig,
        "trainer.tasks.masked_lm:build_masked_language_model",
        "trainer.tasks.flops:masked_language_model",
    ),
}
NETWORKS = Registry[NetworkKind]("network", "model.network")
for _name, _kind in _BUILT_IN.items():
    NETWORKS.register(_name, _kind)


def require_joint_vocabulary_to_share(recipe: Any) -> None:
    """Require a joint vocabulary if both languages share embeddings."""
    if getattr(recipe.model, "share_embeddings", None) == "all" and not recipe.tokenizer.joint:
        raise ValueError(
            "model.share_embeddings is 'all' and tokenizer.joint is false, so unrelated pieces "
            "of the two languages would share a vector: set tokenizer.joint to true, or "
            "model.share_embeddings to 'decoder' or 'none'"
        )


def require_label_head(recipe: Any) -> None:
    """Require a network that predicts labels."""
    network = recipe.model.network
    if network in ("transformer", "decoder_only", "encoder_only"):
        raise ValueError(
            f"model.network is {network}, which predicts pieces, but {recipe.task} needs a network "
            "that predicts labels: remove model.network"
        )


def require_spans_for_their_score(recipe: Any) -> None:
    """Require a network that predicts labels, and labels that mark spans if a score is span_f1."""
    require_label_head(recipe)
    for key, metric in recipe.scores_followed.items():
        if metric == "span_f1" and not recipe.data.has_spans:
            raise ValueError(
                f"{key} is span_f1, but data.labels do not have the form O, B-X and I-X, so there "
                "are no spans: use another score"
            )


def require_segments_of_pairs(recipe: Any) -> None:
    """Require a segment for each side of a pair, a joint vocabulary and no tags."""
    segments = getattr(recipe.model, "segments", None)
    if segments is not None and segments < 2:
        raise ValueError(
            f"model.segments is {segments}, but {recipe.task} needs a segment for each of the two "
            "languages of a pair: set model.segments to 2, or model.preset to bert"
        )
    why = f"{recipe.task} has both languages in one text, distinguished by segments"
    require_joint_text(recipe, why)
