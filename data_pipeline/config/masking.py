"""Recipe settings of masked tokens, which a network learns to predict."""

from typing import Self

from pydantic import model_validator

from data_pipeline.config.data import PackedBatchingConfig
from foundation.section import Section, identity


class MaskingConfig(Section):
    """Selection of tokens to predict, and their replacement (Devlin et al. 2019, §3.1)."""

    share: float = identity(
        0.15, "share of tokens to predict; each text has at least one", gt=0, lt=1
    )
    masked: float = identity(
        0.8, "share of the tokens to predict that are replaced by the mask", ge=0, le=1
    )
    random: float = identity(
        0.1,
        "share of the tokens to predict that are replaced by a random piece; the input keeps the "
        "tokens that neither replaces",
        ge=0,
        le=1,
    )
    whole_words: bool = identity(
        False,
        "predict either all pieces of a word or none; a word begins at a piece with ▁",
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.masked + self.random > 1:
            raise ValueError(
                f"masked is {self.masked} and random is {self.random}, but their sum must be at "
                "most 1: lower one of them"
            )
        return self


class MaskedBatchingConfig(PackedBatchingConfig):
    """Masking of texts, and their packing into rows, micro-batches and steps."""

    masking: MaskingConfig = MaskingConfig()


class PairMaskedBatchingConfig(MaskedBatchingConfig):
    """Masking and packing of pairs, which are never cut into parts."""

    alone: float = identity(
        0.0,
        "share of pairs whose sides become two separate texts that do not attend to each other, as "
        "in masked_lm (Lample and Conneau 2019 alternate between joint and separate sides)",
        ge=0,
        le=1,
    )
