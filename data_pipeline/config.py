"""What a recipe says about its text: `data`, `tokenizer` and `batching`.

Every field carries its change class: "identity" (another value is another run), "continuable"
(may change within a run) or "execution" (changes no sample). Identity fields decide the bytes of
the prepared dataset too, unless they are marked PLAN_ONLY.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_pipeline.corpus_config import PLAN_ONLY, CleaningConfig, CorpusConfig, Sha256
from data_pipeline.wording import listed, said

# Names of held-out sets become file names in the dataset folder.
HeldOutName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class DataConfig(BaseModel):
    """The parallel text and the shape of the prepared dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    source_language: Annotated[
        str, Field(min_length=1, description="code of the source language, e.g. en"), "identity"
    ]
    target_language: Annotated[
        str, Field(min_length=1, description="code of the target language, e.g. de"), "identity"
    ]
    mirror: Annotated[
        str | None,
        Field(
            description="folder with the same corpus files by base name, with or without .gz; "
            "read instead of the paths and URLs (hashes still hold)"
        ),
        "execution",
    ] = None
    dataset: Annotated[
        str,
        Field(
            min_length=1,
            description="folder of the prepared dataset, or the URL of a copy of it (http, https, "
            "s3, gs) to train from; its manifest's hash, not this name, is its identity",
        ),
        "execution",
    ]
    cache: Annotated[
        str | None,
        Field(
            description="folder on each node for copies of remote corpora and shards; null: "
            "$TRANSLOOM_CACHE or ~/.cache/transloom"
        ),
        "execution",
    ] = None
    cache_gigabytes: Annotated[
        float,
        Field(gt=0, description="most that the copies of remote shards take on a node's disk"),
        "execution",
    ] = 50.0
    train: Annotated[
        tuple[CorpusConfig, ...],
        Field(min_length=1, description="training corpora; each is shuffled once, globally"),
        "identity",
    ]
    temperature: Annotated[
        float,
        Field(
            ge=1,
            description="without weights a corpus of n pairs gets a share proportional to "
            "n^(1/temperature) (Arivazhagan et al. 2019): 1 is its size, more evens out",
        ),
        "identity",
        PLAN_ONLY,
    ] = 1.0
    cleaning: CleaningConfig = CleaningConfig()
    validation: CorpusConfig = Field(description="held-out pairs that are scored while training")
    tests: Annotated[
        dict[HeldOutName, CorpusConfig],
        Field(description="held-out sets for `transloom evaluate`, by name"),
        "identity",
    ] = {}
    max_source_length: Annotated[
        int,
        Field(
            ge=2,
            description="pieces of a source sentence, EOS included; longer pairs are dropped "
            "and counted",
        ),
        "identity",
    ] = 256
    max_target_length: Annotated[
        int,
        Field(
            ge=2,
            description="pieces of a target sentence, EOS included; longer pairs are dropped "
            "and counted",
        ),
        "identity",
    ] = 256
    pairs_per_block: Annotated[
        int,
        Field(gt=0, description="pairs in one tar sample of a shard; more are faster to read"),
        "identity",
    ] = 2048
    blocks_per_shard: Annotated[
        int,
        Field(gt=0, description="tar samples in one shard; the last may have fewer"),
        "identity",
    ] = 2

    @model_validator(mode="after")
    def _test_names_are_free(self) -> Self:
        for name in ("train", "validation"):
            if name in self.tests:
                raise ValueError(
                    f"tests has a set named {name!r}, which is the name of data.{name}: "
                    "give the test set another name"
                )
        return self

    @model_validator(mode="after")
    def _weights_are_given_to_all_or_none(self) -> Self:
        weights = [corpus.weight for corpus in self.train]
        if None in weights and any(weights):
            raise ValueError(
                f"the weights of the training corpora are {listed(weights)}: give every corpus "
                "one, or none to mix by size and data.temperature"
            )
        if any(weights) and self.temperature != 1:
            raise ValueError(
                f"data.temperature is {self.temperature} and the corpora have the weights "
                f"{listed(weights)}: weights say all, so leave out one of the two"
            )
        return self

    @model_validator(mode="after")
    def _names_of_corpora_differ(self) -> Self:
        if len(set(self.corpus_names)) < len(self.train):
            names = ", ".join(self.corpus_names)
            raise ValueError(f"the training corpora are named {names}: name each differently")
        return self

    @model_validator(mode="after")
    def _heldout_sets_are_not_mixed(self) -> Self:
        for use, corpus in (("validation", self.validation), *self.tests.items()):
            given = corpus.model_dump(include={"weight", "min_score", "name"}, exclude_none=True)
            if given:
                raise ValueError(
                    f"the held-out set {use} has {said(given)}: these are for training corpora, a "
                    "held-out set is used whole"
                )
        return self

    @property
    def corpus_names(self) -> tuple[str, ...]:
        """Each training corpus's name, given or from its position."""
        alone = len(self.train) == 1
        return tuple(
            corpus.name or ("train" if alone else f"train-{number}")
            for number, corpus in enumerate(self.train)
        )


class SubwordSamplingConfig(BaseModel):
    """Another segmentation of every sentence in every pass, as regularisation.

    With a BPE model this is BPE-dropout (Provilkov et al. 2020), with a unigram model subword
    regularisation (Kudo 2018). The segmentation depends on seed, pass and pair alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    alpha: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="0 is off; BPE: the probability of leaving out a merge, such as 0.1; "
            "unigram: the smoothing of the segmentations' probabilities, such as 0.2",
        ),
        "identity",
        PLAN_ONLY,
    ] = 0.0
    sides: Annotated[
        Literal["both", "source", "target"],
        Field(description="whose sentences are sampled"),
        "identity",
        PLAN_ONLY,
    ] = "both"


class TokenizerConfig(BaseModel):
    """SentencePiece (Kudo and Richardson 2018): trained on the training corpora, or given."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: Annotated[
        Literal["bpe", "unigram"],
        Field(
            description="byte-pair encoding (Sennrich et al. 2016) or unigram language model "
            "(Kudo 2018); not read with an existing model"
        ),
        "identity",
    ] = "bpe"
    vocabulary_size: Annotated[
        int,
        Field(gt=4, description="pieces of each model, the four special ones included"),
        "identity",
    ]
    joint: Annotated[
        bool,
        Field(description="one model for both languages (needed to share all embeddings)"),
        "identity",
    ] = True
    character_coverage: Annotated[
        float,
        Field(
            ge=0.98,
            le=1.0,
            description="share of the training text's characters that the model covers; "
            "1.0 for alphabets, 0.9995 for Chinese or Japanese; not read with an existing model",
        ),
        "identity",
    ] = 1.0
    training_pairs: Annotated[
        int,
        Field(
            gt=0,
            description="most pairs that a model is trained on, a random part of the corpora; not "
            "read with an existing model",
        ),
        "identity",
    ] = 500_000
    sampling: SubwordSamplingConfig = SubwordSamplingConfig()
    model: Annotated[
        str | None,
        Field(description="path of an existing joint SentencePiece model, used as it is"),
        "identity",
    ] = None
    model_sha256: Annotated[
        Sha256 | None, Field(description="sha256 of the existing model's file"), "identity"
    ] = None

    @model_validator(mode="after")
    def _existing_model_is_pinned_and_joint(self) -> Self:
        if (self.model is None) != (self.model_sha256 is None):
            raise ValueError(
                f"model is {self.model} and model_sha256 is {self.model_sha256}: "
                "set both for an existing model, or neither to train one"
            )
        if self.model is not None and not self.joint:
            raise ValueError(
                f"model is {self.model} and joint is false: an existing model serves both "
                "languages, so set joint: true or leave out the model"
            )
        return self


class BatchingConfig(BaseModel):
    """How the endless stream of pairs is cut into micro-batches and steps."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    max_tokens_per_micro_batch: Annotated[
        int,
        Field(
            gt=0,
            description="budget of a micro-batch: pairs × longest sequence of any field "
            "(padding and EOS included) stays at or below it",
        ),
        "identity",
    ]
    micro_batches_per_step: Annotated[
        int,
        Field(
            gt=0,
            description="micro-batches of a step over all ranks; also the largest number of ranks",
        ),
        "identity",
    ]
    window_shards: Annotated[
        int,
        Field(
            gt=0,
            description="shards' worth of pairs in a window, within which pairs are shuffled and "
            "sorted by length: more is a better shuffle and more memory",
        ),
        "identity",
    ] = 8


@dataclass(frozen=True)
class DataSettings:
    """The part of a recipe that decides what a run is fed."""

    data: DataConfig
    tokenizer: TokenizerConfig
    batching: BatchingConfig
    seed: int
