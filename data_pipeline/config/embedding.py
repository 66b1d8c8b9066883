"""Recipe settings of micro-batches whose sentences are contrasted with each other."""

from typing import Any, Self

from pydantic import model_validator

from data_pipeline.config.data import BatchingConfig
from data_pipeline.config.pair import PairDataConfig, require_joint_text
from foundation.section import REQUIRED, identity

BOS_TOKENS = 1  # BOS before each sentence; `data.max_source_length` does not include it


class EmbeddingBatchingConfig(BatchingConfig):
    """Batching of contrasted pairs, with the same number of pairs in every micro-batch."""

    pairs_per_micro_batch: int = identity(
        REQUIRED,
        "number of pairs in every micro-batch. The model learns to match each sentence with its "
        "translation among all translations of the micro-batch. Each pass omits the pairs of a "
        "window that are left over",
        gt=1,
    )
    context_length: int = identity(
        REQUIRED,
        "maximum tokens of a sentence, BOS and EOS included; also the network's number of "
        "positions",
        gt=2,
    )

    @model_validator(mode="after")
    def _sentences_fit(self) -> Self:
        if self.pairs_per_micro_batch > self.max_tokens_per_micro_batch:
            raise ValueError(
                f"pairs_per_micro_batch is {self.pairs_per_micro_batch} and "
                f"max_tokens_per_micro_batch is {self.max_tokens_per_micro_batch}, but each pair "
                "needs at least one token: lower pairs_per_micro_batch, or raise "
                "max_tokens_per_micro_batch"
            )
        return self


def check_recipe(recipe: Any) -> None:
    """Check that the `data`, `batching` and `tokenizer` sections of a recipe agree.

    Raises:
        ValueError: the sections disagree; the message has the values and the remedy.
    """
    data: PairDataConfig = recipe.data
    batching: EmbeddingBatchingConfig = recipe.batching
    alpha = recipe.tokenizer.sampling.alpha
    require_joint_text(recipe, "one encoder reads both languages without tags")
    if alpha:
        raise ValueError(
            f"tokenizer.sampling.alpha is {alpha}, but sentence embeddings do not support subword "
            "sampling: remove this setting"
        )
    longest = max(data.max_source_length, data.max_target_length) + BOS_TOKENS
    if longest > batching.context_length:
        raise ValueError(
            f"batching.context_length is {batching.context_length}, but a sentence of "
            f"data.max_source_length {data.max_source_length} or data.max_target_length "
            f"{data.max_target_length} tokens has {longest} with BOS: raise "
            f"batching.context_length to {longest}, or lower the maximum lengths"
        )
