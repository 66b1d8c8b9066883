"""Recipe settings of micro-batches whose sentences are contrasted with each other."""

from collections.abc import Iterable
from typing import Self

from pydantic import model_validator

from data_pipeline.config.data import BatchingConfig
from data_pipeline.config.pair import PairDataConfig
from foundation.section import REQUIRED, identity

BOS_TOKENS = 1  # before each sentence; `data.max_source_length` does not include them


class EmbeddingBatchingConfig(BatchingConfig):
    """Batching of contrasted pairs: every micro-batch has the same number of them."""

    pairs_per_micro_batch: int = identity(
        REQUIRED,
        "pairs of every micro-batch; each sentence must find its translation among the other "
        "sides of these pairs. Each pass omits the remainder of each window",
        gt=1,
    )
    context_length: int = identity(
        REQUIRED,
        "maximum tokens of a sentence, BOS and EOS included; the network's positions",
        gt=2,
    )

    @model_validator(mode="after")
    def _sentences_fit(self) -> Self:
        if self.pairs_per_micro_batch > self.max_tokens_per_micro_batch:
            raise ValueError(
                f"pairs_per_micro_batch is {self.pairs_per_micro_batch} and "
                f"max_tokens_per_micro_batch {self.max_tokens_per_micro_batch}: a micro-batch "
                "must hold that many sentences"
            )
        return self


def check_recipe(
    data: PairDataConfig, batching: EmbeddingBatchingConfig, *, joint: bool, alpha: float
) -> None:
    """Check that the `data`, `batching` and `tokenizer` sections of a recipe agree.

    Args:
        joint, alpha: `tokenizer.joint` and `tokenizer.sampling.alpha`.

    Raises:
        ValueError: the sections disagree; the message has the values and the remedy.
    """
    if not joint:
        raise ValueError(
            "tokenizer.joint is false, and one encoder reads both sides: set it to true"
        )
    if alpha:
        raise ValueError(
            f"tokenizer.sampling.alpha is {alpha}, and the pieces of embedded sentences are not "
            "sampled: leave it out"
        )
    corpora: Iterable[tuple[str, str | None]] = (
        *((f"train.{number}", corpus.tag) for number, corpus in enumerate(data.train)),
        ("validation", data.validation.tag),
        *((f"tests.{name}", corpus.tag) for name, corpus in data.tests.items()),
    )
    for name, tag in corpora:
        if tag is not None:
            raise ValueError(
                f"data.{name}.tag is {tag!r}, and a sentence is embedded as it is: leave it out"
            )
    longest = max(data.max_source_length, data.max_target_length) + BOS_TOKENS
    if longest > batching.context_length:
        raise ValueError(
            f"batching.context_length is {batching.context_length}, and a sentence of "
            f"data.max_source_length {data.max_source_length} or data.max_target_length "
            f"{data.max_target_length} tokens has {longest} with BOS: raise the first to that, or "
            "lower the others"
        )
