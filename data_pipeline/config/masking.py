"""What a recipe says about hiding tokens that a network has to tell."""

from typing import Self

from pydantic import model_validator

from data_pipeline.config.data import PackedBatchingConfig
from foundation.section import Section, identity


class MaskingConfig(Section):
    """Which tokens are to be told, and what stands in their places (Devlin et al. 2019, §3.1)."""

    share: float = identity(
        0.15, "share of the tokens that are to be told, but one of a text at least", gt=0, lt=1
    )
    masked: float = identity(0.8, "share of these that the mask hides", ge=0, le=1)
    random: float = identity(
        0.1, "share of these that a random piece replaces; the rest is left as it is", ge=0, le=1
    )
    whole_words: bool = identity(
        False,
        "whether all pieces of a word are to be told, or none; a word begins at a piece with ▁",
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.masked + self.random > 1:
            raise ValueError(
                f"masked is {self.masked} and random {self.random}: together they may be 1 at most"
            )
        return self


class MaskedBatchingConfig(PackedBatchingConfig):
    """How texts are masked, packed into rows, and rows into micro-batches and steps."""

    masking: MaskingConfig = MaskingConfig()


class PairMaskedBatchingConfig(MaskedBatchingConfig):
    """How pairs are masked and packed; none is cut."""

    alone: float = identity(
        0.0,
        "share of pairs whose sides are texts by themselves, neither of which sees the other, as "
        "in masked_lm (Lample and Conneau 2019 train on both in turn)",
        ge=0,
        le=1,
    )
