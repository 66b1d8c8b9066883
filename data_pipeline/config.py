"""What a recipe says about its text: `data`, `tokenizer` and `batching`.

Every field carries its change class: "identity" (another value is another run), "continuable"
(may change within a run) or "execution" (changes no sample).
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Names of held-out sets become file names in the dataset folder.
HeldOutName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]

LOCATION = (
    "a local path, an http(s) URL, or builtin:phrasebook/{train,validation,test}.{fr,en}; "
    "plain text or .gz, one sentence a line"
)


class CorpusConfig(BaseModel):
    """Two files whose n-th lines are translations of each other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Annotated[str, Field(description=f"source sentences: {LOCATION}"), "identity"]
    target: Annotated[str, Field(description=f"target sentences: {LOCATION}"), "identity"]
    source_sha256: Annotated[
        Sha256 | None, Field(description="sha256 of the decompressed source text"), "identity"
    ] = None
    target_sha256: Annotated[
        Sha256 | None, Field(description="sha256 of the decompressed target text"), "identity"
    ] = None

    @model_validator(mode="after")
    def _urls_are_pinned(self) -> Self:
        for side, location, sha256 in (
            ("source", self.source, self.source_sha256),
            ("target", self.target, self.target_sha256),
        ):
            if location.startswith(("http://", "https://")) and sha256 is None:
                raise ValueError(
                    f"{side} is the URL {location} and {side}_sha256 is not set: what a URL gives "
                    f"can change, so set {side}_sha256 to the sha256 of the decompressed text"
                )
        return self


class DataConfig(BaseModel):
    """The parallel text and the shape of the prepared dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
            description="folder of the prepared dataset; its manifest's hash, not this path, "
            "is its identity",
        ),
        "execution",
    ]
    train: Annotated[
        tuple[CorpusConfig, ...],
        Field(min_length=1, description="training corpora, concatenated, then shuffled once"),
        "identity",
    ]
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


class TokenizerConfig(BaseModel):
    """SentencePiece (Kudo and Richardson 2018): trained on the training corpora, or given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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

    model_config = ConfigDict(extra="forbid", frozen=True)

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
            description="most shards in a window, within which pairs are shuffled and sorted "
            "by length: more is a better shuffle and more memory",
        ),
        "identity",
    ] = 8
